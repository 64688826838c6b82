//! What a value would take in memory as a tree of values (`serde_json::Value`), told from its text alone.

use super::Reader;

/// Whether a raw value that was read before takes more memory than this when it is read into a tree of values, by what a
/// value and an object take there. Not exactly: within a few times.
pub(crate) fn is_heavier_than(raw: &str, most: usize) -> bool {
    const VALUE: usize = 32;
    const OBJECT: usize = 640;
    // The lightest text for its tree is one of empty objects.
    if raw.len() < most / OBJECT {
        return false;
    }
    let mut reader = Reader::again(raw);
    let mut weight = VALUE;
    while let Some(byte) = reader.peek() {
        weight += match byte {
            b'"' => match reader.scan_string() {
                Ok(_) => continue,
                Err(_) => return true,
            },
            b'{' => OBJECT,
            b'[' | b',' | b':' => VALUE,
            _ => 0,
        };
        reader.at += 1;
    }
    weight > most
}
