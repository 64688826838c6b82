//! JSON strings: escapes, and names that parsers may take for one another.

use crate::reason::Reason;

/// Length of what is neither a quote, a backslash nor a control character, eight bytes at a time.
pub(super) fn plain_len(bytes: &[u8]) -> usize {
    const ONES: u64 = u64::MAX / 0xff;
    const TOPS: u64 = ONES << 7;
    // The top bits of the bytes that are below `limit` (at most 0x80). A byte that follows a hit may look like one too, so
    // only the first is one.
    let below = |word: u64, limit: u64| word.wrapping_sub(ONES * limit) & !word & TOPS;
    let (words, rest) = bytes.as_chunks();
    for (index, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        let (quote, backslash) = (word ^ (ONES * 0x22), word ^ (ONES * 0x5c));
        let hits = below(word, 0x20) | below(quote, 1) | below(backslash, 1);
        if hits != 0 {
            return index * 8 + (hits.trailing_zeros() / 8) as usize;
        }
    }
    let end = rest
        .iter()
        .position(|byte| matches!(byte, b'"' | b'\\' | 0..0x20));
    words.len() * 8 + end.unwrap_or(rest.len())
}

/// Length of the escape (or pair of surrogate escapes) at the start of `bytes`.
pub(super) fn escape_len(bytes: &[u8]) -> Result<usize, Reason> {
    match bytes.get(1) {
        Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => Ok(2),
        Some(b'u') => match hex(bytes)? {
            0xDC00..=0xDFFF => Err(Reason::LoneSurrogate),
            0xD800..=0xDBFF => match bytes.get(6..8) {
                Some(b"\\u") if matches!(hex(&bytes[6..])?, 0xDC00..=0xDFFF) => Ok(12),
                _ => Err(Reason::LoneSurrogate),
            },
            _ => Ok(6),
        },
        _ => Err(Reason::MalformedJson),
    }
}

fn hex(escape: &[u8]) -> Result<u32, Reason> {
    let digits = escape.get(2..6).ok_or(Reason::MalformedJson)?;
    digits.iter().try_fold(0, |value, digit| {
        let digit = char::from(*digit).to_digit(16).ok_or(Reason::MalformedJson)?;
        Ok(value << 4 | digit)
    })
}

/// The text of a raw string (with its quotes).
pub(super) fn unescape(raw: &str) -> Result<String, Reason> {
    serde_json::from_str(raw).map_err(|_| Reason::MalformedJson)
}

/// Appends `text` as a JSON string.
pub fn quote(out: &mut String, text: &str) {
    out.push('"');
    let mut rest = text;
    loop {
        let (plain, others) = rest.split_at(plain_len(rest.as_bytes()));
        out.push_str(plain);
        let Some(special) = others.bytes().next() else {
            break;
        };
        match special {
            b'"' => out.push_str("\\\""),
            b'\\' => out.push_str("\\\\"),
            b'\n' => out.push_str("\\n"),
            b'\r' => out.push_str("\\r"),
            b'\t' => out.push_str("\\t"),
            control => {
                out.push_str("\\u00");
                out.push(char::from(b'0' + (control >> 4)));
                out.push(char::from(b"0123456789abcdef"[usize::from(control & 0xf)]));
            }
        }
        rest = &others[1..];
    }
    out.push('"');
}

/// `text` as a JSON string.
pub fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    quote(&mut out, text);
    out
}

/// Whether some parser may take one name for the other: they are equal when case is ignored, by
/// Unicode's rules (Go's `encoding/json` folds `ſ` to `s` and `K`, the Kelvin sign, to `k`).
pub fn same_ignoring_case(left: &str, right: &str) -> bool {
    if left.is_ascii() && right.is_ascii() {
        return left.eq_ignore_ascii_case(right);
    }
    fold(left).eq(fold(right))
}

fn fold(text: &str) -> impl Iterator<Item = char> + '_ {
    text.chars()
        .flat_map(char::to_uppercase)
        .flat_map(char::to_lowercase)
}

/// Whether `key` differs from `name` in case only.
pub fn is_case_variant(key: &str, name: &str) -> bool {
    key != name && same_ignoring_case(key, name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_variants_are_found_as_the_loosest_parser_finds_them() {
        let cases = [
            ("Name", "name", true),
            ("NAME", "name", true),
            ("name", "name", false),
            ("names", "name", false),
            ("nam\u{e9}", "name", false),
            ("argument\u{17f}", "arguments", true),
            ("to\u{212a}en", "token", true),
            ("nam\u{c9}", "nam\u{e9}", true),
        ];
        for (key, name, variant) in cases {
            assert_eq!(is_case_variant(key, name), variant, "{key} {name}");
        }
    }

    #[test]
    fn plain_text_ends_before_the_first_byte_that_is_not() {
        for byte in 0..=u8::MAX {
            let ends = matches!(byte, b'"' | b'\\' | 0..0x20);
            for at in 0..20 {
                let mut bytes = [0xc3_u8; 20];
                bytes[at] = byte;
                assert_eq!(plain_len(&bytes), if ends { at } else { 20 }, "{byte:#x} at {at}");
            }
        }
    }

    #[test]
    fn quoting_is_what_serde_json_reads_back() {
        let text = "a\"b\\c\n\r\t\u{0}\u{1f}\u{7f}é\u{2028}😀";
        assert_eq!(serde_json::from_str::<String>(&quoted(text)).unwrap(), text);
    }
}
