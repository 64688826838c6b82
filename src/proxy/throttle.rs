//! How fast an agent may be refused what counts against none of its limits: requests that are wrong by their head, and those
//! that find no room. Each costs the machine's time and a record all the same, and a client that asks again as soon as it was
//! refused would take both from the others.
//!
//! So refusals have a pace. Whoever is beyond it isn't read from for a while, on any of its connections: what isn't read is
//! no request yet, takes no memory here, and can't be given up to ask anew.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, sleep},
};

use crate::limits::RefusalPace;

/// The refusals of one agent. The same algorithm as [`crate::pace`], but with a debt, and without a lock: each read asks.
#[derive(Debug)]
pub struct Refusals {
    begin: Instant,
    pace: RefusalPace,
    /// When nothing of them counts any more, in nanoseconds since the beginning.
    settled: AtomicU64,
}

impl Refusals {
    /// None yet.
    pub fn new(pace: RefusalPace) -> Self {
        Self {
            begin: Instant::now(),
            pace,
            settled: AtomicU64::new(0),
        }
    }

    /// Counts one.
    pub fn count(&self) {
        self.count_at(self.now());
    }

    /// How long the agent isn't read from, if it isn't.
    pub fn pause(&self) -> Option<Duration> {
        // Most agents are never refused: for them no clock is asked.
        match self.settled.load(Ordering::Relaxed) {
            0 => None,
            settled => self.pause_at(settled, self.now()),
        }
    }

    fn now(&self) -> u64 {
        nanos(self.begin.elapsed())
    }

    fn count_at(&self, now: u64) {
        let most = now.saturating_add(nanos(self.free() + self.pace.longest));
        let counted = |settled: u64| {
            let settled = settled.max(now).saturating_add(nanos(self.pace.each));
            Some(settled.min(most))
        };
        // It never gives up.
        let _ = self
            .settled
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, counted);
    }

    fn pause_at(&self, settled: u64, now: u64) -> Option<Duration> {
        let pause = Duration::from_nanos(settled.checked_sub(now)?).checked_sub(self.free())?;
        (!pause.is_zero()).then_some(pause)
    }

    /// What may be unsettled without a pause.
    fn free(&self) -> Duration {
        self.pace.each * self.pace.at_once
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// A connection that isn't read from while its agent was refused too often.
pub struct Throttled<S> {
    stream: S,
    refusals: Option<Arc<Refusals>>,
    pause: Option<Pin<Box<Sleep>>>,
}

impl<S> Throttled<S> {
    /// Of whoever these are refused to; of nobody, without.
    pub fn new(stream: S, refusals: Option<Arc<Refusals>>) -> Self {
        Self {
            stream,
            refusals,
            pause: None,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Throttled<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.pause.is_none()
            && let Some(pause) = this.refusals.as_ref().and_then(|refusals| refusals.pause())
        {
            this.pause = Some(Box::pin(sleep(pause)));
        }
        if let Some(pause) = &mut this.pause {
            ready!(pause.as_mut().poll(cx));
            // Whoever has waited is read from once, whatever others of the agent have been refused meanwhile: or one of its
            // connections could keep another waiting for ever.
            this.pause = None;
        }
        Pin::new(&mut this.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Throttled<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn what_was_not_read_for_a_while_is_read_after_it() {
        let refusals = Arc::new(Refusals::new(RefusalPace {
            each: Duration::from_millis(200),
            at_once: 1,
            longest: Duration::from_millis(200),
        }));
        let (mut client, server) = tokio::io::duplex(64);
        let mut throttled = Throttled::new(server, Some(Arc::clone(&refusals)));
        client.write_all(b"a").await.unwrap();
        assert_eq!(throttled.read_u8().await.unwrap(), b'a');
        refusals.count();
        refusals.count();
        client.write_all(b"b").await.unwrap();
        assert_eq!(throttled.read_u8().await.unwrap(), b'b');
    }

    #[tokio::test]
    async fn what_others_of_the_agent_are_refused_meanwhile_keeps_nobody_waiting_longer() {
        let refusals = Arc::new(Refusals::new(RefusalPace {
            each: Duration::from_millis(100),
            at_once: 0,
            longest: Duration::from_hours(1),
        }));
        let (mut client, server) = tokio::io::duplex(64);
        let mut throttled = Throttled::new(server, Some(Arc::clone(&refusals)));
        client.write_all(b"a").await.unwrap();
        refusals.count();
        let mut read = std::pin::pin!(throttled.read_u8());
        assert!(futures::poll!(&mut read).is_pending());
        // A hundred seconds of them.
        for _ in 0..1000 {
            refusals.count();
        }
        let read = tokio::time::timeout(Duration::from_secs(10), read).await;
        assert_eq!(read.unwrap().unwrap(), b'a');
        assert!(refusals.pause().is_some());
    }

    #[test]
    fn so_many_are_free_and_then_each_costs_its_time_up_to_the_longest_pause() {
        let pace = RefusalPace {
            each: Duration::from_millis(10),
            at_once: 3,
            longest: Duration::from_millis(50),
        };
        let refusals = Refusals::new(pace);
        let pause = |now: u64| {
            let settled = refusals.settled.load(Ordering::Relaxed);
            refusals.pause_at(settled, now * 1_000_000)
        };
        let millis = |millis| Some(Duration::from_millis(millis));
        let expected = [
            None,
            None,
            None,
            millis(10),
            millis(20),
            millis(30),
            millis(40),
            millis(50),
            millis(50),
        ];
        for (number, expected) in expected.into_iter().enumerate() {
            refusals.count_at(1_000_000_000);
            assert_eq!(pause(1000), expected, "{number}");
        }
        assert_eq!(pause(1049), millis(1));
        assert_eq!(pause(1050), None);
        // Not all is forgotten at once.
        refusals.count_at(1_050_000_000);
        assert_eq!(pause(1050), millis(10));
    }
}
