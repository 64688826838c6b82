//! Changing a message by replacing raw slices of it; what isn't replaced keeps its bytes.

use std::ops::Range;

use bytes::Bytes;

/// A change of a body.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Edit {
    /// What is replaced; empty where something is put in.
    pub at: Range<usize>,
    /// What takes its place.
    pub text: String,
}

/// The body after its changes, which must not overlap. Without changes it is the same memory.
pub(super) fn apply(body: &Bytes, mut edits: Vec<Edit>) -> Bytes {
    if edits.is_empty() {
        return body.clone();
    }
    edits.sort_by_key(|edit| edit.at.start);
    let grown: usize = edits.iter().map(|edit| edit.text.len()).sum();
    let mut out = Vec::with_capacity(body.len() + grown);
    let mut from = 0;
    for edit in edits {
        out.extend_from_slice(&body[from..edit.at.start]);
        out.extend_from_slice(edit.text.as_bytes());
        from = edit.at.end;
    }
    out.extend_from_slice(&body[from..]);
    Bytes::from(out)
}
