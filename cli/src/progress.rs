//! One bar per layer on a terminal; one line per finished layer elsewhere.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use proto::davit::v1::{Phase, Progress};

use crate::format::{short_id, size};

/// Shows the stream of a pull or an import on standard error: standard output is for what was asked.
pub(crate) enum Display {
    Bars {
        all: MultiProgress,
        layers: BTreeMap<String, ProgressBar>,
    },
    Lines {
        seen: BTreeMap<String, Phase>,
    },
}

impl Display {
    pub(crate) fn new() -> Display {
        if std::io::stderr().is_terminal() {
            Display::Bars {
                all: MultiProgress::new(),
                layers: BTreeMap::new(),
            }
        } else {
            Display::lines()
        }
    }

    fn lines() -> Display {
        Display::Lines {
            seen: BTreeMap::new(),
        }
    }

    /// Takes one step of one layer.
    pub(crate) fn show(&mut self, progress: &Progress) {
        match self {
            Display::Bars { all, layers } => {
                let bar = layers
                    .entry(progress.layer.clone())
                    .or_insert_with(|| all.add(bar(&progress.layer)));
                move_bar(bar, progress);
            }
            Display::Lines { seen } => {
                if let Some(line) = line(seen, progress) {
                    eprintln!("{line}");
                }
            }
        }
    }

    /// Leaves the bars as they are, for the message that follows.
    pub(crate) fn finish(&self) {
        if let Display::Bars { layers, .. } = self {
            layers
                .values()
                .filter(|bar| !bar.is_finished())
                .for_each(ProgressBar::abandon);
        }
    }
}

const UNKNOWN: &str = "{prefix} {msg:<11} {spinner} {binary_bytes}";
const KNOWN: &str =
    "{prefix} {msg:<11} [{bar:30}] {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec}";
const ENDED: &str = "{prefix} {msg}";

fn style(template: &str) -> ProgressStyle {
    // The templates above are well-formed; a bar in the default style is no reason to stop a pull.
    ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("=> ")
}

fn bar(layer: &str) -> ProgressBar {
    let bar = ProgressBar::no_length()
        .with_style(style(UNKNOWN))
        .with_prefix(short_id(layer).to_owned());
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

fn move_bar(bar: &ProgressBar, progress: &Progress) {
    match progress.phase() {
        Phase::Done | Phase::Exists => {
            bar.set_style(style(ENDED));
            bar.finish_with_message(if progress.phase() == Phase::Done {
                "done"
            } else {
                "was here"
            });
        }
        phase => {
            if progress.total > 0 && bar.length() != Some(progress.total) {
                bar.set_length(progress.total);
                bar.set_style(style(KNOWN));
            }
            bar.set_message(word(phase));
            bar.set_position(progress.current);
        }
    }
}

/// What a log file wants to know: that a layer is fetched, and that it is there.
fn line(seen: &mut BTreeMap<String, Phase>, progress: &Progress) -> Option<String> {
    let phase = progress.phase();
    if seen.insert(progress.layer.clone(), phase) == Some(phase)
        || matches!(phase, Phase::Waiting | Phase::Unpacking)
    {
        return None;
    }
    let total = if progress.total > 0 {
        format!(" {}", size(progress.total))
    } else {
        String::new()
    };
    Some(format!(
        "layer {} {}{total}",
        short_id(&progress.layer),
        word(phase)
    ))
}

fn word(phase: Phase) -> &'static str {
    match phase {
        Phase::Waiting => "waiting",
        Phase::Downloading => "downloading",
        Phase::Unpacking => "unpacking",
        Phase::Done => "done",
        Phase::Exists => "was here",
        Phase::Image | Phase::Unspecified => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_terminal_each_layer_is_told_once_per_phase_that_matters() {
        let mut seen = BTreeMap::new();
        let mut tell = |phase: Phase, current| {
            line(
                &mut seen,
                &Progress {
                    layer: "sha256:0123456789abcdef".into(),
                    phase: phase.into(),
                    current,
                    total: 2_000_000,
                    ..Progress::default()
                },
            )
        };
        assert_eq!(tell(Phase::Waiting, 0), None);
        assert_eq!(
            tell(Phase::Downloading, 1).unwrap(),
            "layer 0123456789ab downloading 2.0 MB"
        );
        assert_eq!(tell(Phase::Downloading, 2), None);
        assert_eq!(tell(Phase::Unpacking, 2), None);
        assert_eq!(
            tell(Phase::Done, 2).unwrap(),
            "layer 0123456789ab done 2.0 MB"
        );
    }

    #[test]
    fn the_templates_of_the_bars_are_well_formed() {
        for template in [UNKNOWN, KNOWN, ENDED] {
            ProgressStyle::with_template(template).unwrap();
        }
    }
}
