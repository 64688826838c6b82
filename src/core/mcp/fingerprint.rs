//! The fingerprint of a definition: what a server lists as one of its tools or prompts.

use std::fmt;

use sha2::{Digest as _, Sha256};

use crate::json;

/// SHA-256 over the canonical form (RFC 8785) of a definition, all of it. Written as `sha256:` and 64 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint([u8; 32]);

/// Memory that a definition may take as a tree of values, in bytes: its canonical form may be made of one.
const MAX_WEIGHT: usize = 8 << 20;

/// What a written fingerprint begins with.
const ALGORITHM: &str = "sha256:";

impl Fingerprint {
    /// The fingerprint of a raw JSON value.
    ///
    /// RFC 8785 knows numbers as doubles: two integers beyond 2^53 that are one double have one fingerprint.
    pub fn of(raw: &str) -> Self {
        // What was read as a message has a canonical form. Bytes that had none are held to as they are, and so are those whose
        // form would take much memory to make.
        let canonical = (!json::is_heavier_than(raw, MAX_WEIGHT))
            .then(|| json::canonical(raw))
            .flatten();
        Self(Sha256::digest(canonical.as_deref().unwrap_or(raw.as_bytes())).into())
    }

    /// Reads a written one; `None` when it is anything but `sha256:` and 64 lower-case hex digits.
    pub fn parse(text: &str) -> Option<Self> {
        let hex = text.strip_prefix(ALGORITHM)?.as_bytes();
        let digit = |byte: u8| match byte {
            b'0'..=b'9' => Some(byte - b'0'),
            b'a'..=b'f' => Some(byte - b'a' + 10),
            _ => None,
        };
        let mut bytes = [0; 32];
        if hex.len() != 2 * bytes.len() {
            return None;
        }
        for (byte, pair) in bytes.iter_mut().zip(hex.chunks_exact(2)) {
            *byte = digit(pair[0])? << 4 | digit(pair[1])?;
        }
        Some(Self(bytes))
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(ALGORITHM)?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_definition_that_is_too_heavy_to_be_sorted_the_bytes_are_what_counts() {
        for (lists, sorted) in [(10, true), (100_000, false)] {
            let lists = vec!["[0.5]"; lists].join(",");
            let [one, other] = [
                format!(r#"{{"a":1,"b":[{lists}]}}"#),
                format!(r#"{{"b":[{lists}],"a":1}}"#),
            ];
            assert_eq!(Fingerprint::of(&one) == Fingerprint::of(&other), sorted);
            assert_eq!(Fingerprint::of(&one), Fingerprint::of(&one));
        }
    }

    #[test]
    fn equal_definitions_have_one_fingerprint_however_they_are_written() {
        // SHA-256 of the two bytes {}.
        let empty = "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";
        assert_eq!(Fingerprint::of("{ }").to_string(), empty);
        let one = Fingerprint::of(r#"{"name":"a","description":"\u00e9","n":1.0}"#);
        assert_eq!(
            one,
            Fingerprint::of("{ \"n\":1, \"description\":\"é\", \"name\":\"a\"}")
        );
        assert_ne!(one, Fingerprint::of(r#"{"name":"a","description":"e","n":1}"#));
        assert_eq!(Fingerprint::parse(&one.to_string()), Some(one));
    }

    #[test]
    fn only_the_written_form_is_read() {
        let digits = "0123456789abcdef".repeat(4);
        assert!(Fingerprint::parse(&format!("sha256:{digits}")).is_some());
        for wrong in [
            digits.clone(),
            format!("sha512:{digits}"),
            format!("sha256:{}", digits.to_uppercase()),
            format!("sha256:{}", &digits[1..]),
            format!("sha256:{digits}0"),
            format!("sha256:{}é", &digits[2..]),
        ] {
            assert_eq!(Fingerprint::parse(&wrong), None, "{wrong}");
        }
    }
}
