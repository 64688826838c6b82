//! The audit's way out: one JSON object per line, one write each, in order.

use std::{
    fs::File,
    io::{self, Write},
    os::fd::AsFd,
    sync::{Mutex, PoisonError},
};

/// Where audit lines go.
pub struct AuditLog {
    out: Mutex<Out>,
}

struct Out {
    writer: Box<dyn Write + Send>,
    /// The last line broke off after some of its bytes: the next one must not continue it.
    broken: bool,
}

impl std::fmt::Debug for AuditLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AuditLog").finish_non_exhaustive()
    }
}

impl AuditLog {
    /// Lines to standard output, unbuffered: a line is written when `write` returns, or not at all.
    pub fn stdout() -> io::Result<Self> {
        Ok(Self::to(File::from(io::stdout().as_fd().try_clone_to_owned()?)))
    }

    /// Lines to any writer that doesn't buffer.
    pub fn to(out: impl Write + Send + 'static) -> Self {
        Self {
            out: Mutex::new(Out {
                writer: Box::new(out),
                broken: false,
            }),
        }
    }

    /// Writes one line, which must end in a newline and hold no other.
    pub fn write(&self, line: &[u8]) -> io::Result<()> {
        debug_assert!(
            line.iter().position(|byte| *byte == b'\n') == line.len().checked_sub(1),
            "a record must be one line"
        );
        let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        if out.broken {
            out.writer.write_all(b"\n")?;
            out.broken = false;
        }
        let mut left = line;
        while !left.is_empty() {
            match out.writer.write(left) {
                Ok(written) if written > 0 => left = left.get(written..).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                failed => {
                    out.broken = left.len() < line.len();
                    return Err(failed.err().unwrap_or_else(|| io::ErrorKind::WriteZero.into()));
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    /// Takes `room` bytes, fails once, and takes everything from then on.
    #[derive(Clone)]
    struct Full(Arc<Mutex<(Option<usize>, Vec<u8>)>>);

    impl Write for Full {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let mut kept = self.0.lock().unwrap();
            let taken = match kept.0 {
                Some(0) => {
                    kept.0 = None;
                    return Err(io::ErrorKind::StorageFull.into());
                }
                Some(room) => room.min(bytes.len()),
                None => bytes.len(),
            };
            kept.0 = kept.0.map(|room| room - taken);
            kept.1.extend_from_slice(&bytes[..taken]);
            Ok(taken)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_that_broke_off_does_not_swallow_the_next_one() {
        for (room, expected) in [
            (2, "{\"\n{\"b\":2}\n"),
            (0, "{\"b\":2}\n"),
            (8, "{\"a\":1}\n{\"b\":2}\n"),
        ] {
            let out = Full(Arc::new(Mutex::new((Some(room), Vec::new()))));
            let log = AuditLog::to(out.clone());
            assert_eq!(log.write(b"{\"a\":1}\n").is_ok(), room == 8);
            // With room for the whole first line, the second is the one that fails.
            if room == 8 {
                assert!(log.write(b"{\"x\":0}\n").is_err());
            }
            log.write(b"{\"b\":2}\n").unwrap();
            assert_eq!(String::from_utf8_lossy(&out.0.lock().unwrap().1), expected);
        }
    }
}
