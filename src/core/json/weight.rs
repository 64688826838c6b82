//! What a value would take in memory as a tree of values (`serde_json::Value`), told from its text alone.

use super::Reader;

/// Whether a raw value that was read before takes more bytes of memory than this when it is read into a tree of values, by
/// what values, lists and objects take there. Not exactly: within a few times.
pub(crate) fn is_heavier_than(raw: &str, most: usize) -> bool {
    const VALUE: usize = 32;
    // With room for four, as a list has that grows.
    const ARRAY: usize = 5 * VALUE;
    // With a node of its tree, which has room for eleven.
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
            b'[' => ARRAY,
            b',' | b':' => VALUE,
            _ => 0,
        };
        reader.at += 1;
    }
    weight > most
}
