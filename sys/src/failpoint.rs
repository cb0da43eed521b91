//! Fail points: named places where a test may make the process die or an operation fail.
//!
//! `DAVIT_FAILPOINTS="pull.unpacked=kill;run_pod.network=error"` arms them. Without the cargo feature
//! `failpoints` every call is empty and the compiler removes it, so release binaries carry none of this.

/// The error of an armed fail point with the action `error`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Injected {
    /// The name of the fail point.
    pub name: &'static str,
}

impl std::fmt::Display for Injected {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "fail point {:?} was armed", self.name)
    }
}

impl std::error::Error for Injected {}

/// Passes the fail point `name`.
///
/// # Errors
/// [`Injected`] where the test armed it with `error`. With `kill` the process gets SIGKILL and this never returns.
#[cfg(not(feature = "failpoints"))]
#[inline(always)]
pub fn hit(_name: &'static str) -> Result<(), Injected> {
    Ok(())
}

/// Passes the fail point `name`.
///
/// # Errors
/// [`Injected`] where the test armed it with `error`. With `kill` the process gets SIGKILL and this never returns.
#[cfg(feature = "failpoints")]
pub fn hit(name: &'static str) -> Result<(), Injected> {
    match action(name).as_deref() {
        None => Ok(()),
        Some("kill") => {
            // A test stopped here must see the process gone, not a core dump or an unwinding one.
            let pid = nix::unistd::getpid();
            if nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).is_ok() {
                nix::unistd::pause();
            }
            Err(Injected { name })
        }
        Some(_) => Err(Injected { name }),
    }
}

/// What the environment arms `name` with.
#[cfg(feature = "failpoints")]
fn action(name: &str) -> Option<String> {
    let armed = std::env::var("DAVIT_FAILPOINTS").ok()?;
    armed.split(';').find_map(|one| {
        let (key, action) = one.split_once('=')?;
        (key.trim() == name).then(|| action.trim().to_owned())
    })
}

#[cfg(all(test, not(feature = "failpoints")))]
mod tests {
    #[test]
    fn a_fail_point_costs_nothing_and_passes_without_the_feature() {
        assert_eq!(super::hit("any"), Ok(()));
    }
}
