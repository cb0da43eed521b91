//! What a program of the suite prints: the Test Anything Protocol, with JSON between `---` and `...`.

/// Each point with whether it passed; skipped ones are left out.
///
/// Several programs announce no point and print a diagnostic with an error instead: it counts as a point that fails.
pub(crate) fn points(text: &str) -> Vec<(String, bool)> {
    let mut points = Vec::new();
    let mut is_announced = false;
    for line in text.lines() {
        let (passes, rest) = match (line.strip_prefix("ok "), line.strip_prefix("not ok ")) {
            (Some(rest), _) => (true, rest),
            (_, Some(rest)) => (false, rest),
            _ => {
                points.extend(error_without_point(line).filter(|_| !is_announced));
                continue;
            }
        };
        is_announced = true;
        let name = rest.trim_start_matches(|digit: char| digit.is_ascii_digit());
        let name = name.trim_start().trim_start_matches("- ").trim();
        if !name.to_ascii_uppercase().contains("# SKIP") {
            points.push((name.to_owned(), passes));
        }
    }
    points
}

/// `"error": "text\nmore"` of a diagnostic, as a failing point named by the text's first line.
fn error_without_point(line: &str) -> Option<(String, bool)> {
    let text = line.trim().strip_prefix("\"error\": \"")?;
    let end = text.find(['\\', '"']).unwrap_or(text.len());
    (end > 0).then(|| (text[..end].to_owned(), false))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runtime_tools_output_is_read_as_points() {
        let text = "TAP version 13\nok 1 - first\n  ---\n  {\n    \"error\": \"of a point\"\n  }\n  ...\nnot ok 2 - second\n# expect: 1\nok 3 # SKIP third\n1..3\n";
        let expected = [("first".to_owned(), true), ("second".to_owned(), false)];
        assert_eq!(points(text), expected);
    }

    #[test]
    fn runtime_tools_errors_without_a_point_are_failures() {
        let text = "TAP version 13\n  ---\n  {\n    \"error\": \"hooks MUST run\\nRefer to: x\"\n  }\n  ...\n1..0\n";
        assert_eq!(points(text), [("hooks MUST run".to_owned(), false)]);
        assert!(points("TAP version 13\n1..0\n").is_empty());
    }
}
