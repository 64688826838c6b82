//! An event stream: how it is cut into chunks changes nothing, and what is written is read back. The first two bytes say
//! where it is cut.
#![no_main]

use bulkhead_core::mcp::sse::{Event, Frame, SseReader};
use libfuzzer_sys::fuzz_target;

const LIMIT: usize = 4096;

fn read(chunks: &[&[u8]]) -> (Vec<Frame>, bool) {
    let mut reader = SseReader::new(LIMIT);
    let mut frames = Vec::new();
    let ended = chunks.iter().all(|chunk| reader.push(chunk, &mut frames).is_ok());
    assert!(reader.held() <= LIMIT || !ended, "no more is held than may be");
    (frames, ended)
}

fuzz_target!(|data: &[u8]| {
    let [first, second, stream @ ..] = data else {
        return;
    };
    let whole = read(&[stream]);
    let mut cuts = [*first, *second].map(|cut| usize::from(cut) % (stream.len() + 1));
    cuts.sort_unstable();
    let pieces = read(&[&stream[..cuts[0]], &stream[cuts[0]..cuts[1]], &stream[cuts[1]..]]);
    assert_eq!(whole, pieces, "cut at {cuts:?}");

    for frame in whole.0 {
        let Frame::Event(event) = frame else { continue };
        // An id with a NUL is none, and an empty event says nothing.
        if event == Event::default() {
            continue;
        }
        let mut written = Vec::new();
        event.write(&mut written);
        let mut reader = SseReader::new(usize::MAX);
        let mut frames = Vec::new();
        reader
            .push(&written, &mut frames)
            .expect("what is written can be read");
        assert_eq!(
            frames,
            [Frame::Event(event)],
            "{}",
            String::from_utf8_lossy(&written)
        );
    }
});
