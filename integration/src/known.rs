//! `known.txt` beside a conformance suite: what does not pass, a line each, with the reason.

/// The lines of four parts between ` | `; `#` begins a comment.
///
/// # Panics
/// On a line of another form.
pub fn rows(text: &str) -> impl Iterator<Item = [&str; 4]> {
    text.lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| {
            let parts: Vec<&str> = line.split(" | ").map(str::trim).collect();
            parts
                .try_into()
                .unwrap_or_else(|_| panic!("known.txt: not four parts: {line}"))
        })
}
