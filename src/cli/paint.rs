//! Colours and ages, as kubectl's users expect them. `output` strips colours where there is no terminal.

use jiff::Timestamp;

/// Something is as it should be.
pub fn good(text: &str) -> String {
    format!("\x1b[32m{text}\x1b[0m")
}

/// Something isn't.
pub fn bad(text: &str) -> String {
    format!("\x1b[31m{text}\x1b[0m")
}

/// Something isn't known.
pub fn unclear(text: &str) -> String {
    format!("\x1b[33m{text}\x1b[0m")
}

/// A heading.
pub fn strong(text: &str) -> String {
    format!("\x1b[1m{text}\x1b[0m")
}

/// A condition's status.
pub fn status(status: &str) -> String {
    match status {
        "True" => good(status),
        "False" => bad(status),
        _ => unclear(status),
    }
}

/// A number of seconds as kubectl's ages: one unit, the largest that says something.
pub fn span(seconds: i64) -> String {
    match seconds.max(0) {
        seconds @ 0..120 => format!("{seconds}s"),
        seconds @ 120..7_200 => format!("{}m", seconds / 60),
        seconds @ 7_200..172_800 => format!("{}h", seconds / 3_600),
        seconds => format!("{}d", seconds / 86_400),
    }
}

/// Text that a client or server chose, for a terminal: control characters, with which it could repaint the screen, become visible.
pub fn printable(text: &str) -> String {
    text.chars()
        .flat_map(|character| {
            let hidden = character.is_control() && !matches!(character, '\n' | '\t');
            let escape = hidden.then(|| character.escape_unicode().collect::<Vec<_>>());
            escape.unwrap_or_else(|| vec![character])
        })
        .collect()
}

/// Seconds from one moment to another.
pub fn seconds_between(from: Timestamp, to: Timestamp) -> i64 {
    to.as_second() - from.as_second()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_have_one_unit() {
        let table = [
            (-5, "0s"),
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (7_199, "119m"),
            (7_200, "2h"),
            (172_800, "2d"),
        ];
        for (seconds, text) in table {
            assert_eq!(span(seconds), text);
        }
    }
}
