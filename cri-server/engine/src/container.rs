//! Containers: the steps of their life, each blocking and free of state. The pod's task
//! ([`crate::pod::task`]) calls them and keeps what they answer.

pub(crate) mod create;
pub(crate) mod remove;
mod rootfs;
pub(crate) mod status;
pub(crate) mod update;
pub(crate) mod volumes;

use nix::sys::signal::Signal;

use crate::error::{Error, Result};
use crate::model::ContainerConfig;

/// The signal that asks a container to stop: the request's, else the image's, else SIGTERM.
pub(crate) fn stop_signal(config: &ContainerConfig, image: &str) -> Result<String> {
    match config
        .stop_signal
        .as_deref()
        .filter(|name| !name.is_empty())
    {
        Some(name) => match signal_number(name) {
            Some(_) => Ok(name.to_owned()),
            None => Err(Error::invalid(
                "stop_signal",
                format!("{name:?} is no signal"),
            )),
        },
        // What an image says wrongly must not keep it from running.
        None if signal_number(image).is_some() => Ok(image.to_owned()),
        None => Ok("SIGTERM".to_owned()),
    }
}

/// The number of a signal's name (`SIGTERM`, `term`, `15`, `SIGRTMIN+3`).
pub(crate) fn signal_number(name: &str) -> Option<i32> {
    /// As glibc and every container engine count: 32 and 33 belong to the C library.
    const RTMIN: i32 = 34;
    const RTMAX: i32 = 64;
    if let Ok(number) = name.parse::<i32>() {
        return (1..=RTMAX).contains(&number).then_some(number);
    }
    let upper = name.to_ascii_uppercase();
    let bare = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some(rest) = bare.strip_prefix("RTMIN") {
        let number = if rest.is_empty() {
            0
        } else {
            rest.strip_prefix('+')?.parse::<i32>().ok()?
        } + RTMIN;
        return (RTMIN..=RTMAX).contains(&number).then_some(number);
    }
    if let Some(rest) = bare.strip_prefix("RTMAX") {
        let number = RTMAX
            - if rest.is_empty() {
                0
            } else {
                rest.strip_prefix('-')?.parse::<i32>().ok()?
            };
        return (RTMIN..=RTMAX).contains(&number).then_some(number);
    }
    format!("SIG{bare}")
        .parse::<Signal>()
        .ok()
        .map(|signal| signal as i32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_is_known_by_each_of_its_names() {
        let table = [
            ("SIGTERM", Some(15)),
            ("term", Some(15)),
            ("9", Some(9)),
            ("SIGRTMIN", Some(34)),
            ("SIGRTMIN+3", Some(37)),
            ("rtmax-1", Some(63)),
            ("SIGRTMIN+31", None),
            ("0", None),
            ("65", None),
            ("SIGNONE", None),
            ("", None),
        ];
        for (name, number) in table {
            assert_eq!(signal_number(name), number, "{name}");
        }
    }

    #[test]
    fn the_request_beats_the_image_and_a_wrong_image_is_ignored() {
        let config = |name: Option<&str>| ContainerConfig {
            stop_signal: name.map(str::to_owned),
            ..Default::default()
        };
        assert_eq!(
            stop_signal(&config(Some("SIGUSR1")), "SIGQUIT").expect("signal"),
            "SIGUSR1"
        );
        assert_eq!(
            stop_signal(&config(None), "SIGQUIT").expect("signal"),
            "SIGQUIT"
        );
        assert_eq!(
            stop_signal(&config(None), "nonsense").expect("signal"),
            "SIGTERM"
        );
        assert!(stop_signal(&config(Some("nonsense")), "").is_err());
    }
}
