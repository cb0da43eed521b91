//! Interleaved timing: every contender runs once per round, in a turning order, so that the machine's drift hits all.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

/// One or more commands that are started one after the other and timed until the last has ended.
pub(crate) struct Contender {
    pub(crate) name: String,
    commands: Box<dyn Fn() -> Vec<Command> + Send + Sync>,
}

impl Contender {
    pub(crate) fn new(
        name: &str,
        commands: impl Fn() -> Vec<Command> + Send + Sync + 'static,
    ) -> Contender {
        Contender {
            name: name.to_owned(),
            commands: Box::new(commands),
        }
    }
}

/// The times of one contender.
#[derive(Debug, Clone)]
pub(crate) struct Times {
    pub(crate) name: String,
    sorted: Vec<Duration>,
}

// === impl Times ===

impl Times {
    pub(crate) fn new(name: &str, mut times: Vec<Duration>) -> Times {
        times.sort_unstable();
        Times {
            name: name.to_owned(),
            sorted: times,
        }
    }

    /// The time that so many percent of the runs stay within.
    pub(crate) fn at(&self, percent: usize) -> Duration {
        let last = self.sorted.len().saturating_sub(1);
        self.sorted
            .get(last * percent / 100)
            .copied()
            .unwrap_or_default()
    }

    pub(crate) fn as_json(&self) -> Value {
        let ms = |percent| self.at(percent).as_secs_f64() * 1e3;
        json!({"name": self.name, "runs": self.sorted.len(), "median_ms": ms(50), "min_ms": ms(0), "p90_ms": ms(90), "max_ms": ms(100)})
    }
}

/// Runs every contender `runs` times, `pause` before each run.
pub(crate) fn race(contenders: &[Contender], runs: usize, pause: Duration) -> Result<Vec<Times>> {
    let mut times = vec![Vec::with_capacity(runs); contenders.len()];
    for round in 0..runs {
        for turn in 0..contenders.len() {
            let index = (round + turn) % contenders.len();
            std::thread::sleep(pause);
            times[index].push(time(&contenders[index])?);
        }
    }
    let named = contenders.iter().zip(times);
    Ok(named
        .map(|(contender, times)| Times::new(&contender.name, times))
        .collect())
}

/// One run, from before its first process exists until its last has ended.
fn time(contender: &Contender) -> Result<Duration> {
    let mut commands = (contender.commands)();
    for command in &mut commands {
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
    }
    let start = Instant::now();
    for command in &mut commands {
        let status = command.status().with_context(|| contender.name.clone())?;
        ensure!(
            status.success(),
            "{}: {}",
            contender.name,
            explain(contender)
        );
    }
    Ok(start.elapsed())
}

/// Whether a contender works at all; else why not. What it writes goes to a file: a created container keeps its
/// caller's pipe.
pub(crate) fn trial(contender: &Contender) -> Result<(), String> {
    for mut command in (contender.commands)() {
        let said = tempfile::tempfile().map_err(|error| error.to_string())?;
        let copy = said.try_clone().map_err(|error| error.to_string())?;
        let status = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(copy)
            .status()
            .map_err(|error| error.to_string())?;
        if !status.success() {
            return Err(format!("{status}: {}", read_back(said).trim()));
        }
    }
    Ok(())
}

fn read_back(mut file: std::fs::File) -> String {
    use std::io::{Read, Seek};
    let mut text = String::new();
    match file.rewind().and_then(|()| file.read_to_string(&mut text)) {
        Ok(_) => text,
        Err(error) => error.to_string(),
    }
}

fn explain(contender: &Contender) -> String {
    trial(contender)
        .err()
        .unwrap_or_else(|| "it failed once, and not again when asked why".to_owned())
}

/// Prints one line per contender, with its ratio to the first: of the medians, and of the best runs, which a busy
/// machine spoils less.
pub(crate) fn print(title: &str, times: &[Times]) {
    println!("\n{title}");
    println!(
        "{:<28} {:>9} {:>7} {:>9} {:>7} {:>9}",
        "", "median ms", "ratio", "best ms", "ratio", "p90 ms"
    );
    let Some(first) = times.first() else { return };
    for one in times {
        let ms = |percent| one.at(percent).as_secs_f64() * 1e3;
        let (median, best) = (ratio(one, first, 50), ratio(one, first, 0));
        println!(
            "{:<28} {:>9.2} {median:>7.2} {:>9.2} {best:>7.2} {:>9.2}",
            one.name,
            ms(50),
            ms(0),
            ms(90)
        );
    }
}

/// How many times as long one takes as the other, within the runs of which so many percent are faster.
pub(crate) fn ratio(one: &Times, other: &Times, percent: usize) -> f64 {
    one.at(percent).as_secs_f64() / other.at(percent).as_secs_f64().max(1e-9)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(ms: &[u64]) -> Times {
        Times::new("x", ms.iter().copied().map(Duration::from_millis).collect())
    }

    #[test]
    fn medians_and_percentiles_are_of_the_sorted_times() {
        let odd = times(&[5, 1, 9, 3, 7]);
        assert_eq!(
            [odd.at(0), odd.at(50), odd.at(100)].map(|d| d.as_millis()),
            [1, 5, 9]
        );
        assert_eq!(times(&[]).at(50), Duration::ZERO);
        assert!((ratio(&times(&[3, 9]), &times(&[2, 9]), 0) - 1.5).abs() < 1e-9);
    }

    #[test]
    fn contenders_take_turns_and_a_failing_one_says_why() {
        let contender = |name: &str, script: &'static str| {
            Contender::new(name, move || {
                let mut command = Command::new("sh");
                command.args(["-c", script]);
                vec![command]
            })
        };
        let both = [contender("a", "true"), contender("b", "true")];
        let times = race(&both, 3, Duration::ZERO).unwrap();
        assert_eq!(
            times.iter().map(|t| t.sorted.len()).collect::<Vec<_>>(),
            [3, 3]
        );
        let error = race(
            &[contender("bad", "echo because >&2; exit 3")],
            1,
            Duration::ZERO,
        )
        .unwrap_err();
        assert!(
            error.to_string().contains("bad: exit status: 3: because"),
            "{error}"
        );
    }
}
