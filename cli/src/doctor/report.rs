//! The report: for people, for programs, and the table in the documentation.

use serde_json::{Value, json};

use super::table::NEEDS;
use super::{Finding, Level, Need, kernel};

/// What was found for each need.
pub struct Report {
    rows: Vec<(&'static Need, Finding)>,
}

impl Report {
    pub(super) fn new(rows: Vec<(&'static Need, Finding)>) -> Report {
        Report { rows }
    }

    /// What keeps this host from running containers, one sentence each.
    #[must_use]
    pub fn faults(&self) -> Vec<String> {
        let lacking = self
            .rows
            .iter()
            .filter(|(need, _)| need.level == Level::Required);
        lacking
            .filter_map(|(need, finding)| match finding {
                Finding::Present(_) => None,
                Finding::Absent(why) | Finding::Unknown(why) => {
                    Some(format!("{}: {why}", need.title))
                }
            })
            .collect()
    }

    /// One line: whether containers run here, and how much is missing.
    #[must_use]
    pub fn headline(&self) -> String {
        let absent = |level| {
            self.rows
                .iter()
                .filter(|(need, f)| need.level == level && !matches!(f, Finding::Present(_)))
                .count()
        };
        let verdict = match self.faults().len() {
            0 => "can run containers".to_owned(),
            1 => "cannot run containers: 1 need is not met".to_owned(),
            n => format!("cannot run containers: {n} needs are not met"),
        };
        let lesser = match absent(Level::Recommended) + absent(Level::Optional) {
            0 => String::new(),
            n => format!("; {n} lesser ones are not (`davit doctor`)"),
        };
        format!("Linux {} {verdict}{lesser}", kernel::release())
    }

    /// One line per need, and for what is missing what that costs.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        let mut group = "";
        for (need, finding) in &self.rows {
            if need.group != group {
                group = need.group;
                text.push_str(&format!(
                    "{}{group}\n",
                    if text.is_empty() { "" } else { "\n" }
                ));
            }
            let (mark, detail) = match finding {
                Finding::Present(detail) => ("  ok     ", detail),
                Finding::Absent(why) => (
                    if need.level == Level::Required {
                        "  MISSING"
                    } else {
                        "  missing"
                    },
                    why,
                ),
                Finding::Unknown(why) => ("  unknown", why),
            };
            let detail = if detail.is_empty() {
                String::new()
            } else {
                format!(": {detail}")
            };
            text.push_str(&format!("{mark}  {}{detail}\n", need.title));
            if !matches!(finding, Finding::Present(_)) {
                let since = need
                    .since
                    .map_or(String::new(), |version| format!(", since Linux {version}"));
                text.push_str(&format!(
                    "           {}{since}; without it: {}\n",
                    need.level.word(),
                    need.without
                ));
            }
        }
        text + "\n" + &self.headline().replace(" (`davit doctor`)", "") + "\n"
    }

    pub(super) fn json(&self) -> Value {
        let checks = self.rows.iter().map(|(need, finding)| {
            let (state, detail) = match finding {
                Finding::Present(detail) => ("present", detail),
                Finding::Absent(why) => ("absent", why),
                Finding::Unknown(why) => ("unknown", why),
            };
            json!({
                "id": need.id, "title": need.title, "group": need.group, "level": need.level.word(), "minimum_kernel": need.since,
                "state": state, "detail": detail, "purpose": need.purpose, "without": need.without,
            })
        });
        json!({"ok": self.faults().is_empty(), "kernel": kernel::release(), "checks": checks.collect::<Vec<_>>()})
    }
}

/// docs/kernel-features.md, whole.
pub(super) fn markdown() -> String {
    let mut text = String::from(
        "# What Davit needs of a host\n\n\
         `davit doctor` looks at each of these and says what is missing and what that costs. This page is made from the same\n\
         table, in `cli/src/doctor/table.rs`: `davit doctor --markdown > docs/kernel-features.md`; a test compares the two.\n\
         Where it is cheap the doctor makes the call itself, since a version proves little below a seccomp filter.\n",
    );
    let mut group = "";
    for need in NEEDS {
        if need.group != group {
            group = need.group;
            text.push_str(&format!("\n## {group}\n\n| what | since Linux | | what for | without it |\n|---|---|---|---|---|\n"));
        }
        let (since, level) = (need.since.unwrap_or(""), need.level.word());
        text.push_str(&format!(
            "| {} | {since} | {level} | {} | {} |\n",
            need.title, need.purpose, need.without
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn report(of: impl Fn(&Need) -> Finding) -> Report {
        Report::new(NEEDS.iter().map(|need| (need, of(need))).collect())
    }

    #[test]
    fn a_host_that_has_everything_has_no_fault_and_no_advice() {
        let report = report(|_| Finding::Present(String::new()));
        assert_eq!(report.faults(), Vec::<String>::new());
        assert!(!report.text().contains("without it"), "{}", report.text());
        assert_eq!(report.json()["ok"], true);
    }

    #[test]
    fn a_missing_requirement_is_a_fault_and_says_what_it_costs() {
        let report = report(|need| match need.id {
            "openat2" => Finding::Absent("openat2(..): function not implemented (ENOSYS)".into()),
            _ => Finding::Present(String::new()),
        });
        assert_eq!(
            report.faults(),
            ["openat2 with RESOLVE_IN_ROOT: openat2(..): function not implemented (ENOSYS)"]
        );
        assert!(
            report.text().contains("  MISSING  openat2"),
            "{}",
            report.text()
        );
        assert!(
            report
                .text()
                .contains("required, since Linux 5.6; without it: no container starts"),
            "{}",
            report.text()
        );
        assert!(
            report
                .headline()
                .contains("cannot run containers: 1 need is not met")
        );
    }

    #[test]
    fn what_is_only_recommended_does_not_stop_anybody() {
        let report = report(|need| match need.level {
            Level::Required => Finding::Present(String::new()),
            _ => Finding::Absent("no".into()),
        });
        assert_eq!(report.faults(), Vec::<String>::new());
        assert!(
            report.headline().contains("can run containers; "),
            "{}",
            report.headline()
        );
    }

    #[test]
    fn what_is_required_and_could_not_be_looked_at_is_a_fault() {
        assert!(
            !report(|_| Finding::Unknown("only root can look".into()))
                .faults()
                .is_empty()
        );
    }

    #[test]
    fn ids_are_unique_and_groups_stand_together() {
        let ids: BTreeSet<&str> = NEEDS.iter().map(|need| need.id).collect();
        assert_eq!(ids.len(), NEEDS.len());
        let mut groups: Vec<&str> = NEEDS.iter().map(|need| need.group).collect();
        groups.dedup();
        assert_eq!(groups.len(), groups.iter().collect::<BTreeSet<_>>().len());
    }
}
