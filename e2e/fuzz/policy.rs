//! A mounted policy document: it compiles or it is refused, and what compiles stays the same when written again. So with
//! mounted pins.
#![no_main]

use bulkhead_core::{
    mcp::Pins,
    policy::{CompiledPolicy, PolicyDocument},
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(pins) = Pins::from_json(data) {
        let again = Pins::from_json(pins.to_json().as_bytes()).expect("and is read again");
        assert_eq!(pins, again);
    }
    let Ok(_) = CompiledPolicy::from_json(data) else {
        return;
    };
    let document: PolicyDocument =
        serde_json::from_slice(data).expect("what compiles has the shape of a document");
    let written = document.to_json();
    CompiledPolicy::from_json(written.as_bytes()).expect("and compiles again");
    let again: PolicyDocument = serde_json::from_str(&written).expect("and is read again");
    assert_eq!(document, again);
});
