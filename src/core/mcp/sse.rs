//! Event streams (`text/event-stream`, WHATWG HTML §9.2): an incremental reader and a writer.
//!
//! Bytes come in any chunking, lines end in LF, CR or CRLF, and a CRLF may be split. An event that
//! the stream ends in the middle of is dropped, as the standard says.

use thiserror::Error;

/// What can be wrong with a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SseError {
    /// An event grew over the limit.
    #[error("an event of the stream is larger than the limit")]
    TooLarge,
    /// A line is not UTF-8. The standard replaces such bytes; then what was decided on is not
    /// what was sent.
    #[error("the stream is not valid UTF-8")]
    InvalidUtf8,
}

/// What a stream carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// An event.
    Event(Event),
    /// A comment, which keeps the connection alive; without its colon.
    Comment(String),
}

/// An event of a stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// `id`
    pub id: Option<String>,
    /// `event`; absent: `message`.
    pub event: Option<String>,
    /// `retry`, in milliseconds.
    pub retry: Option<u64>,
    /// The `data` lines, joined by line feeds. An event without any only sets `id` or `retry`.
    pub data: Option<String>,
}

/// Room for a line that is kept for the next one, in bytes.
const KEPT: usize = 16 * 1024;

/// Reads a stream.
#[derive(Debug)]
pub struct SseReader {
    limit: usize,
    /// The unfinished line.
    line: Vec<u8>,
    /// The unfinished event.
    event: Event,
    /// Bytes that `event` holds.
    held: usize,
    started: bool,
    after_cr: bool,
    failed: Option<SseError>,
}

impl SseReader {
    /// A reader of events of at most `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self {
            limit,
            line: Vec::new(),
            event: Event::default(),
            held: 0,
            started: false,
            after_cr: false,
            failed: None,
        }
    }

    /// Takes the next bytes and appends the frames that they complete. After an error there are no
    /// more frames.
    pub fn push(&mut self, mut chunk: &[u8], frames: &mut Vec<Frame>) -> Result<(), SseError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        while !chunk.is_empty() {
            if std::mem::take(&mut self.after_cr) && chunk[0] == b'\n' {
                chunk = &chunk[1..];
                continue;
            }
            let end = chunk.iter().position(|byte| matches!(byte, b'\n' | b'\r'));
            let part = &chunk[..end.unwrap_or(chunk.len())];
            if self.held + self.line.len() + part.len() > self.limit {
                return Err(self.fail(SseError::TooLarge));
            }
            self.line.extend_from_slice(part);
            let Some(end) = end else { break };
            self.after_cr = chunk[end] == b'\r';
            chunk = &chunk[end + 1..];
            let line = std::mem::take(&mut self.line);
            self.finish_line(&line, frames)
                .map_err(|error| self.fail(error))?;
            // The room of a long line isn't kept for the short ones that follow.
            if line.capacity() <= KEPT {
                self.line = line;
                self.line.clear();
            }
        }
        Ok(())
    }

    /// Bytes of the event that isn't complete yet.
    pub fn held(&self) -> usize {
        self.held + self.line.len()
    }

    fn fail(&mut self, error: SseError) -> SseError {
        self.failed = Some(error);
        error
    }

    fn finish_line(&mut self, line: &[u8], frames: &mut Vec<Frame>) -> Result<(), SseError> {
        let mut line = std::str::from_utf8(line).map_err(|_| SseError::InvalidUtf8)?;
        if !std::mem::replace(&mut self.started, true) {
            line = line.strip_prefix('\u{feff}').unwrap_or(line);
        }
        if line.is_empty() {
            let event = std::mem::take(&mut self.event);
            self.held = 0;
            if event != Event::default() {
                frames.push(Frame::Event(event));
            }
            return Ok(());
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "" => frames.push(Frame::Comment(value.to_owned())),
            "data" => match &mut self.event.data {
                Some(data) => {
                    data.push('\n');
                    data.push_str(value);
                }
                none => *none = Some(value.to_owned()),
            },
            "event" => self.event.event = Some(value.to_owned()),
            "id" if !value.contains('\0') => self.event.id = Some(value.to_owned()),
            "retry" if value.bytes().all(|byte| byte.is_ascii_digit()) => {
                self.event.retry = value.parse().ok();
            }
            // Unknown fields are ignored by the standard, and so are not passed on.
            _ => {}
        }
        // Comments and unknown fields are held nowhere, but one event may not have them without end.
        self.held += line.len() + 1;
        Ok(())
    }
}

impl Event {
    /// Appends the event to a stream. A type or id with a line break, and an id with a NUL, can't be written and is left out,
    /// so nothing can be made to end an event early.
    pub fn write(&self, out: &mut Vec<u8>) {
        let event = self
            .event
            .as_deref()
            .filter(|event| !event.contains(['\r', '\n']));
        let id = self.id.as_deref().filter(|id| !id.contains(['\r', '\n', '\0']));
        for (field, value) in [("event", event), ("id", id)] {
            if let Some(value) = value {
                write_line(out, field, value);
            }
        }
        if let Some(retry) = self.retry {
            write_line(out, "retry", &retry.to_string());
        }
        if let Some(data) = &self.data {
            for line in lines(data) {
                write_line(out, "data", line);
            }
        }
        out.push(b'\n');
    }
}

/// Appends a comment to a stream.
pub fn write_comment(text: &str, out: &mut Vec<u8>) {
    for line in lines(text) {
        write_line(out, "", line);
    }
    out.push(b'\n');
}

fn write_line(out: &mut Vec<u8>, field: &str, value: &str) {
    out.extend_from_slice(field.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value.as_bytes());
    out.push(b'\n');
}

/// The lines of a text, whatever ends them: a lone CR in `data` would end the field too.
fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.split('\n')
        .flat_map(|line| line.strip_suffix('\r').unwrap_or(line).split('\r'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(chunks: &[&[u8]]) -> Result<Vec<Frame>, SseError> {
        let mut reader = SseReader::new(64);
        let mut frames = Vec::new();
        for chunk in chunks {
            reader.push(chunk, &mut frames)?;
        }
        Ok(frames)
    }

    fn data(text: &str) -> Frame {
        Frame::Event(Event {
            data: Some(text.to_owned()),
            ..Event::default()
        })
    }

    #[test]
    fn streams_are_read_as_the_standard_says() {
        let cases: &[(&str, Vec<Frame>)] = &[
            ("data: a\n\n", vec![data("a")]),
            (
                "data:a\r\n\r\ndata:b\r\rdata: c\n\n",
                vec![data("a"), data("b"), data("c")],
            ),
            ("data: a\ndata: b\ndata\n\n", vec![data("a\nb\n")]),
            ("data:  a\n\n", vec![data(" a")]),
            ("\u{feff}data: a\n\n", vec![data("a")]),
            ("data: \u{feff}a\n\n", vec![data("\u{feff}a")]),
            (": ping\n\n", vec![Frame::Comment("ping".to_owned())]),
            (":\n", vec![Frame::Comment(String::new())]),
            ("unknown: x\ndata: a\n\n\n\n", vec![data("a")]),
            ("data: unfinished\n", vec![]),
            (
                "id: 1\nevent: message\nretry: 500\ndata: \n\n",
                vec![Frame::Event(Event {
                    id: Some("1".into()),
                    event: Some("message".into()),
                    retry: Some(500),
                    data: Some(String::new()),
                })],
            ),
            ("id: 1\0\nretry: 5s\ndata: a\n\n", vec![data("a")]),
            (
                "id: 7\n\n",
                vec![Frame::Event(Event {
                    id: Some("7".into()),
                    ..Event::default()
                })],
            ),
        ];
        for (stream, frames) in cases {
            assert_eq!(read(&[stream.as_bytes()]).as_ref(), Ok(frames), "{stream:?}");
            let bytes: Vec<_> = stream.as_bytes().chunks(1).collect();
            assert_eq!(read(&bytes).as_ref(), Ok(frames), "byte by byte {stream:?}");
        }
    }

    #[test]
    fn a_stream_that_is_too_large_or_no_text_ends() {
        assert_eq!(read(&[&[b'a'; 65]]), Err(SseError::TooLarge));
        assert_eq!(
            read(&[&b"data: aaaaaaaaaaaaaaaa\n".repeat(4)]),
            Err(SseError::TooLarge)
        );
        assert_eq!(
            read(&[&b":aaaaaaaaaaaaaaaa\n".repeat(9)]),
            Err(SseError::TooLarge)
        );
        assert_eq!(read(&[b"data: \xff\n\n"]), Err(SseError::InvalidUtf8));
        assert!(read(&[&b"data: aaaaaaaaaaaaaaaa\n\n".repeat(9)]).is_ok());
        let mut reader = SseReader::new(64);
        let mut frames = Vec::new();
        assert!(reader.push(b"\xff\n", &mut frames).is_err());
        assert!(reader.push(b"data: a\n\n", &mut frames).is_err());
        assert_eq!(frames, []);
    }

    #[test]
    fn what_is_written_cannot_break_out_of_its_event() {
        let event = Event {
            id: Some("1\ndata: x".into()),
            event: Some("a\rb".into()),
            data: Some("a\r\nb\rc\nd".into()),
            retry: None,
        };
        let mut out = Vec::new();
        event.write(&mut out);
        assert_eq!(out, b"data: a\ndata: b\ndata: c\ndata: d\n\n");
        let mut out = Vec::new();
        write_comment("a\ndata: b", &mut out);
        assert_eq!(out, b": a\n: data: b\n\n");
    }

    proptest! {
        #[test]
        fn chunking_changes_nothing(stream in "[a-d:\r\n \u{e9}]{0,40}|(data|id|:|event)(:[a-c ]{0,3})?(\r\n|\n|\r){1,2}", cuts in prop::collection::vec(0usize..40, 0..4)) {
            let bytes = stream.as_bytes();
            let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let chunks: Vec<_> = cuts.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect();
            prop_assert_eq!(read(&chunks), read(&[bytes]));
        }

        #[test]
        fn what_is_written_is_read_back(id in prop::option::of("[a-z0-9 ]{0,8}"), event in prop::option::of("[a-z \0]{1,8}"), data in "[a-z:\n \u{1f600}]{0,20}") {
            let event = Event { id, event, retry: Some(7), data: Some(data) };
            let mut out = Vec::new();
            event.write(&mut out);
            let mut frames = Vec::new();
            SseReader::new(1 << 10).push(&out, &mut frames).unwrap();
            prop_assert_eq!(frames, vec![Frame::Event(event)]);
        }
    }
}
