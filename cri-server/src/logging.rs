//! Where log lines go: standard error, as text or JSON. Nothing here may fail because of it: when the reader of standard
//! error goes away (a journal that restarts, `| head`), lines are lost and the daemon goes on. So no internal errors are
//! reported either, which `eprintln!` would answer with a panic.

use std::io::{self, IsTerminal};
use std::sync::OnceLock;

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::prelude::*;
use tracing_subscriber::{Registry, reload};

use crate::flags::{LogFormat, LogLevel};

/// Sets up logging for the process, and makes panics log lines.
///
/// # Errors
/// It was set up before.
pub fn init(
    level: LogLevel,
    format: LogFormat,
) -> Result<(), tracing_subscriber::util::TryInitError> {
    let (filter, handle) = tracing_subscriber::reload::Layer::new(filter(level));
    // Set once, as the subscriber is.
    LEVEL.set(handle).ok();
    let registry = tracing_subscriber::registry().with(filter);
    match format {
        LogFormat::Json => {
            let lines = tracing_subscriber::fmt::layer()
                .json()
                .with_writer(io::stderr)
                .log_internal_errors(false)
                .flatten_event(true);
            registry
                .with(lines.with_current_span(true).with_span_list(false))
                .try_init()?;
        }
        LogFormat::Text => {
            let lines = tracing_subscriber::fmt::layer()
                .with_writer(io::stderr)
                .log_internal_errors(false);
            registry
                .with(lines.with_ansi(io::stderr().is_terminal()))
                .try_init()?;
        }
    }
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string);
        let backtrace = std::backtrace::Backtrace::capture();
        tracing::error!(place, %backtrace, "panic: {}", panic_text(panic.payload()));
    }));
    Ok(())
}

/// The level's handle; there from [`init`] on.
static LEVEL: OnceLock<reload::Handle<Targets, Registry>> = OnceLock::new();

/// Changes how much is logged from now on.
pub(crate) fn set_level(level: LogLevel) {
    if let Some(Err(error)) = LEVEL.get().map(|handle| handle.reload(filter(level))) {
        tracing::warn!(%error, "change the log level");
    }
}

/// The text of a panic.
pub(crate) fn panic_text(payload: &(dyn std::any::Any + Send)) -> &str {
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("(no text)")
}

/// Our own crates at `level`; the HTTP/2 stack below only when everything is asked for, its frames drown the rest.
fn filter(level: LogLevel) -> Targets {
    let own = match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    let below = if level == LogLevel::Trace {
        LevelFilter::TRACE
    } else {
        own.min(LevelFilter::WARN)
    };
    let targets = Targets::new().with_default(own);
    ["h2", "hyper", "hyper_util", "tonic", "tower", "rustls"]
        .iter()
        .fold(targets, |t, name| t.with_target(*name, below))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_of_the_http_stack_are_logged_only_at_trace() {
        let debug = filter(LogLevel::Debug);
        assert!(debug.would_enable("engine::pod", &tracing::Level::DEBUG));
        assert!(!debug.would_enable("h2::codec", &tracing::Level::DEBUG));
        assert!(filter(LogLevel::Trace).would_enable("h2::codec", &tracing::Level::TRACE));
        assert!(!filter(LogLevel::Error).would_enable("h2::codec", &tracing::Level::WARN));
    }
}
