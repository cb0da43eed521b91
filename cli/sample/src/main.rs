//! The sample pod's program: a web server that answers every GET with its pod's name and addresses.
//!
//! It shows the whole path at once: an image, a pod, an address, a log (the access log on stdout), a clean end on
//! SIGTERM. As PID 1 of its namespace it must ask for SIGTERM: the kernel drops the default action there.
#![forbid(unsafe_code)]

mod addresses;
mod http;

use std::io::Write;
use std::net::{Ipv6Addr, SocketAddr, TcpListener};
use std::process::ExitCode;
use std::thread;

use nix::sys::signal::Signal;
use sys::epoll::Epoll;
use sys::signalfd::SignalFd;

const PORT: u16 = 8080;
const SIGNALS: u64 = 0;
const CONNECTIONS: u64 = 1;

fn main() -> ExitCode {
    match serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("davit-sample: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Serves until SIGTERM or SIGINT; one thread per connection, each with a deadline.
fn serve() -> Result<(), Box<dyn std::error::Error>> {
    // Before any thread starts: a thread that did not block them would die of them.
    let signals = SignalFd::block(&[Signal::SIGTERM, Signal::SIGINT])?;
    let listener = listen(port()?)?;
    println!("listening on {}", listener.local_addr()?);
    let mut epoll = Epoll::new(2)?;
    epoll.add(&signals, SIGNALS)?;
    epoll.add(&listener, CONNECTIONS)?;
    loop {
        let ready: Vec<u64> = epoll.wait(None)?.map(|ready| ready.token).collect();
        if ready.contains(&SIGNALS) && signals.next()?.is_some() {
            println!("asked to end");
            std::io::stdout().flush()?;
            return Ok(());
        }
        if ready.contains(&CONNECTIONS) {
            match listener.accept() {
                Ok((stream, peer)) => drop(
                    thread::Builder::new()
                        .stack_size(64 * 1024)
                        .spawn(move || http::answer(stream, peer))?,
                ),
                // The client may have gone again, or descriptors may be short for a moment.
                Err(error) => eprintln!("accept: {error}"),
            }
        }
    }
}

/// The port: 8080, or what `--port` says.
fn port() -> Result<u16, String> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => Ok(PORT),
        ["--port", port] => port.parse().map_err(|e| format!("--port {port}: {e}")),
        _ => Err(format!(
            "usage: davit-sample [--port N]; not: {}",
            args.join(" ")
        )),
    }
}

/// Every address, IPv6 too where the pod has it.
fn listen(port: u16) -> std::io::Result<TcpListener> {
    TcpListener::bind(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)))
        .or_else(|_| TcpListener::bind(("0.0.0.0", port)))
}
