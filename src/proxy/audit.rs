//! The audit's way out: one JSON object per line, one write each, in order.

use std::{
    fs::File,
    io::{self, Write},
    os::fd::AsFd,
    sync::{Mutex, PoisonError},
};

/// Where audit lines go.
pub struct AuditLog {
    out: Mutex<Box<dyn Write + Send>>,
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
            out: Mutex::new(Box::new(out)),
        }
    }

    /// Writes one line, which must end in a newline and hold no other.
    pub fn write(&self, line: &[u8]) -> io::Result<()> {
        debug_assert!(
            line.iter().position(|byte| *byte == b'\n') == line.len().checked_sub(1),
            "a record must be one line"
        );
        self.out
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .write_all(line)
    }
}
