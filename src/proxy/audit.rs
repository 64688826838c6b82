//! The audit's way out: one JSON object per line, in the order in which they were queued.
//!
//! Lines that are ready at the same time are written together, by whoever needs one of them first: under load a line costs
//! a part of a `write(2)`. Nobody goes on before their own line is written. A write has whole lines only.

use std::{
    fs::File,
    future::poll_fn,
    io::{self, Write},
    mem,
    os::fd::AsFd,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    task::Poll,
};

/// Room that is kept for the next group. One that needed more, for a burst, gives it back.
const KEPT: usize = 64 * 1024;

/// Most bytes of a write, so that a pipe takes it whole or not at all, also from a process that is killed under way:
/// `PIPE_BUF` of Linux, pipe(7). A longer line has a write of its own.
const ATOMIC: usize = 4096;

/// Where audit lines go.
pub struct AuditLog {
    queue: Mutex<Queue>,
    /// Held while a group is taken and written, so that groups are written in their order. Taken before the queue's.
    out: Mutex<Out>,
}

/// Lines that nobody has written yet.
#[derive(Default)]
struct Queue {
    lines: Vec<u8>,
    count: usize,
    group: Arc<Group>,
}

/// What came of lines that are written together, once it is known.
type Group = OnceLock<Written>;

/// What came of a group.
#[derive(Debug)]
struct Written {
    /// How many of its lines were written, the first ones.
    lines: usize,
    /// Why the others were not.
    error: Option<io::Error>,
}

/// The place of a line that was queued. It is no record before it is settled.
#[derive(Debug)]
#[must_use = "a queued line is written when somebody settles it"]
pub struct Line {
    group: Arc<Group>,
    index: usize,
}

struct Out {
    writer: Box<dyn Write + Send>,
    /// The last line broke off after some of its bytes: the next one must not continue it.
    broken: bool,
    /// Empty; with the room of the group before.
    spare: Vec<u8>,
}

impl std::fmt::Debug for AuditLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AuditLog").finish_non_exhaustive()
    }
}

impl AuditLog {
    /// Lines to standard output, unbuffered: a line is written when it is settled, or not at all.
    pub fn stdout() -> io::Result<Self> {
        Ok(Self::to(File::from(io::stdout().as_fd().try_clone_to_owned()?)))
    }

    /// Lines to any writer that doesn't buffer.
    pub fn to(out: impl Write + Send + 'static) -> Self {
        Self {
            queue: Mutex::default(),
            out: Mutex::new(Out {
                writer: Box::new(out),
                broken: false,
                spare: Vec::new(),
            }),
        }
    }

    /// Queues one line, which must end in a newline and hold no other.
    pub fn queue(&self, line: &[u8]) -> Line {
        debug_assert!(
            line.iter().position(|byte| *byte == b'\n') == line.len().checked_sub(1),
            "a record must be one line"
        );
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        queue.lines.extend_from_slice(line);
        queue.count += 1;
        Line {
            group: Arc::clone(&queue.group),
            index: queue.count - 1,
        }
    }

    /// Writes a line now, and with it all that is queued, unless somebody did. An error: it is not written, and never will
    /// be.
    pub fn settle(&self, line: &Line) -> io::Result<()> {
        let written = match line.group.get() {
            Some(written) => written,
            None => self.write_group(&line.group),
        };
        match &written.error {
            Some(error) if line.index >= written.lines => Err(error.kind().into()),
            _ => Ok(()),
        }
    }

    /// Lets others of this thread that are ready queue theirs, then settles.
    pub async fn settle_with_others(&self, line: &Line) -> io::Result<()> {
        after_others().await;
        self.settle(line)
    }

    /// Writes one line now.
    pub fn write(&self, line: &[u8]) -> io::Result<()> {
        self.settle(&self.queue(line))
    }

    fn write_group<'g>(&self, group: &'g Group) -> &'g Written {
        let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        // A group is taken and written under the lock: it is the one in the queue, or it was written meanwhile.
        group.get_or_init(|| {
            let next = Queue {
                lines: mem::take(&mut out.spare),
                ..Queue::default()
            };
            let taken = mem::replace(
                &mut *self.queue.lock().unwrap_or_else(PoisonError::into_inner),
                next,
            );
            out.write(taken)
        })
    }
}

impl Out {
    fn write(&mut self, group: Queue) -> Written {
        let mut lines = group.lines;
        let written = match self.write_bytes(&lines) {
            Ok(()) => Written {
                lines: group.count,
                error: None,
            },
            Err((bytes, error)) => {
                let kept = lines.get(..bytes).unwrap_or_default();
                self.broken |= kept.last().is_some_and(|last| *last != b'\n');
                Written {
                    lines: kept.split(|byte| *byte == b'\n').skip(1).count(),
                    error: Some(error),
                }
            }
        };
        lines.clear();
        lines.shrink_to(KEPT);
        self.spare = lines;
        written
    }

    /// An error: so many bytes were written, and then this happened.
    fn write_bytes(&mut self, bytes: &[u8]) -> Result<(), (usize, io::Error)> {
        if self.broken {
            self.writer.write_all(b"\n").map_err(|error| (0, error))?;
            self.broken = false;
        }
        let mut done = 0;
        while let Some(left) = bytes.get(done..).filter(|left| !left.is_empty()) {
            match self.writer.write(whole_lines(left)) {
                Ok(0) => return Err((done, io::ErrorKind::WriteZero.into())),
                Ok(written) => done += written,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err((done, error)),
            }
        }
        Ok(())
    }
}

/// The lines that one write takes.
fn whole_lines(left: &[u8]) -> &[u8] {
    let is_end = |byte: &u8| *byte == b'\n';
    let last = left.get(..ATOMIC).unwrap_or(left).iter().rposition(is_end);
    let end = last.or_else(|| left.iter().position(is_end));
    end.and_then(|end| left.get(..=end)).unwrap_or(left)
}

/// Goes to the end of the queue of those that are ready. Unlike [`tokio::task::yield_now`] it doesn't wait for events.
async fn after_others() {
    let mut waited = false;
    poll_fn(|context| {
        if mem::replace(&mut waited, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

#[cfg(test)]
mod tests {
    use std::{collections::VecDeque, thread};

    use super::*;

    /// Takes so many bytes and fails, as often as there are numbers, and takes everything from then on.
    #[derive(Clone, Default)]
    struct Disk(Arc<Mutex<Kept>>);

    #[derive(Default)]
    struct Kept {
        rooms: VecDeque<usize>,
        text: Vec<u8>,
        writes: Vec<usize>,
    }

    impl Disk {
        fn with_room(rooms: &[usize]) -> Self {
            let disk = Self::default();
            disk.0.lock().unwrap().rooms = rooms.iter().copied().collect();
            disk
        }

        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().text.clone()).unwrap()
        }

        fn writes(&self) -> Vec<usize> {
            self.0.lock().unwrap().writes.clone()
        }
    }

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let mut kept = self.0.lock().unwrap();
            kept.writes.push(bytes.len());
            let taken = match kept.rooms.front_mut() {
                Some(0) => {
                    kept.rooms.pop_front();
                    return Err(io::ErrorKind::StorageFull.into());
                }
                Some(room) => {
                    let taken = bytes.len().min(*room);
                    *room -= taken;
                    taken
                }
                None => bytes.len(),
            };
            kept.text.extend_from_slice(&bytes[..taken]);
            Ok(taken)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn whoever_settles_first_writes_what_is_queued_and_nothing_is_written_twice() {
        let disk = Disk::default();
        let log = AuditLog::to(disk.clone());
        let [first, second] = [b"1\n", b"2\n"].map(|line| log.queue(line));
        assert_eq!(disk.text(), "", "a queued line is no record yet");
        log.settle(&second).unwrap();
        log.settle(&first).unwrap();
        assert_eq!((disk.text().as_str(), disk.writes()), ("1\n2\n", vec![4]));
        let third = log.queue(b"3\n");
        log.write(b"4\n").unwrap();
        log.settle(&third).unwrap();
        assert_eq!(
            (disk.text().as_str(), disk.writes()),
            ("1\n2\n3\n4\n", vec![4, 4])
        );
    }

    #[tokio::test]
    async fn lines_of_tasks_that_are_ready_share_a_write() {
        let disk = Disk::default();
        let log = Arc::new(AuditLog::to(disk.clone()));
        let tasks: Vec<_> = (0..3)
            .map(|task| {
                let log = Arc::clone(&log);
                tokio::spawn(async move {
                    let line = log.queue(format!("{task}\n").as_bytes());
                    log.settle_with_others(&line).await
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap().unwrap();
        }
        assert_eq!((disk.text().as_str(), disk.writes()), ("0\n1\n2\n", vec![6]));
    }

    /// Of a group that breaks off, the lines before the break are records, the others are not and never will be.
    #[test]
    fn a_line_that_broke_off_fails_with_those_after_it_and_does_not_swallow_the_next_one() {
        for (room, whole, kept) in [
            (0, 0, ""),
            (3, 0, "aaa\n"),
            (5, 1, "aaaa\n"),
            (7, 1, "aaaa\nbb\n"),
            (10, 2, "aaaa\nbbbb\n"),
            (14, 2, "aaaa\nbbbb\ncccc\n"),
        ] {
            let disk = Disk::with_room(&[room]);
            let log = AuditLog::to(disk.clone());
            let lines = [b"aaaa\n", b"bbbb\n", b"cccc\n"].map(|line| log.queue(line));
            let settled = lines.each_ref().map(|line| log.settle(line).is_ok());
            assert_eq!(settled, [0, 1, 2].map(|index| index < whole), "{room}");
            log.write(b"next\n").unwrap();
            assert_eq!(disk.text(), format!("{kept}next\n"), "{room}");
            assert!(log.settle(&lines[2]).is_err(), "{room}: for good");
        }

        let disk = Disk::with_room(&[3, 0]);
        let log = AuditLog::to(disk.clone());
        assert_eq!(
            [b"aaaa\n", b"bbbb\n", b"cccc\n"].map(|line| log.write(line).is_ok()),
            [false, false, true]
        );
        assert_eq!(disk.text(), "aaa\ncccc\n");
    }

    #[test]
    fn a_write_is_of_whole_lines_that_a_pipe_takes_at_once() {
        for (lengths, writes) in [
            (&[2048, 2048][..], &[4096][..]),
            (&[2048, 2049], &[2048, 2049]),
            (&[100, 5000, 100], &[100, 5000, 100]),
            (&[5000, 100, 100], &[5000, 200]),
        ] {
            let disk = Disk::default();
            let log = AuditLog::to(disk.clone());
            let lines: Vec<Line> = lengths
                .iter()
                .map(|length| log.queue(format!("{}\n", "x".repeat(length - 1)).as_bytes()))
                .collect();
            log.settle(&lines[0]).unwrap();
            assert_eq!(disk.writes(), writes, "{lengths:?}");
        }
    }

    #[test]
    fn threads_write_whole_lines_each_its_own_in_order() {
        let disk = Disk::default();
        let log = AuditLog::to(disk.clone());
        thread::scope(|scope| {
            for name in ["a", "b", "c", "d"] {
                let log = &log;
                scope.spawn(move || {
                    for number in 0..500 {
                        let line = log.queue(format!("{name} {number}\n").as_bytes());
                        log.settle(&line).unwrap();
                    }
                });
            }
        });
        let text = disk.text();
        for name in ["a", "b", "c", "d"] {
            let own = text
                .lines()
                .filter_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            assert!(own.eq((0..500).map(|number| number.to_string())), "{name}");
        }
        assert_eq!(text.lines().count(), 2000);
    }
}
