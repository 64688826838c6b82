//! Mirrored headers: any text survives its encoding, any value is read or refused. Lines of `name: value`.
#![no_main]

use bulkhead_core::mcp::headers::{MirroredHeaders, decode, encode};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let lines = data.split(|byte| *byte == b'\n').filter_map(|line| {
        let colon = line.iter().position(|byte| *byte == b':')?;
        Some((std::str::from_utf8(&line[..colon]).ok()?, &line[colon + 1..]))
    });
    let _ = MirroredHeaders::read(lines);
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let encoded = encode(text);
    assert!(
        encoded.bytes().all(|byte| matches!(byte, b'\t' | b' '..=b'~')),
        "{encoded}"
    );
    assert_eq!(decode(&encoded).expect("what is encoded can be decoded"), text);
    // Whatever a client sends: decoded, then encoded and decoded again, it is the same.
    if let Ok(decoded) = decode(text) {
        assert_eq!(
            decode(&encode(&decoded)).expect("it can be decoded again"),
            decoded
        );
    }
});
