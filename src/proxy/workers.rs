//! The threads of the data path.
//!
//! Each has a runtime of its own, and a connection stays on one of them with all that is done for it: on its way through
//! the sidecar a call wakes no second thread, which would cost more than most of what is done for the call.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use tokio::{
    runtime::{Builder, Handle, Runtime},
    sync::oneshot,
};

/// Who serves connections.
#[derive(Clone, Debug)]
pub struct Workers(Arc<[Worker]>);

#[derive(Debug)]
struct Worker {
    runtime: Handle,
    connections: Arc<AtomicUsize>,
}

/// A connection's place at its worker; dropping it gives it up.
#[derive(Debug)]
pub struct Place {
    runtime: Handle,
    connections: Arc<AtomicUsize>,
}

impl Workers {
    /// The caller's own runtime alone.
    pub fn here() -> Self {
        Self::of([Handle::current()])
    }

    fn of(runtimes: impl IntoIterator<Item = Handle>) -> Self {
        let worker = |runtime| Worker {
            runtime,
            connections: Arc::default(),
        };
        Self(runtimes.into_iter().map(worker).collect())
    }

    /// A place at the worker with the fewest connections.
    pub fn place(&self) -> Place {
        let idlest = self
            .0
            .iter()
            .min_by_key(|worker| worker.connections.load(Ordering::Relaxed));
        let (runtime, connections) = match idlest {
            Some(worker) => (worker.runtime.clone(), Arc::clone(&worker.connections)),
            None => (Handle::current(), Arc::default()),
        };
        connections.fetch_add(1, Ordering::Relaxed);
        Place { runtime, connections }
    }
}

impl Place {
    /// The worker's runtime.
    pub fn runtime(&self) -> &Handle {
        &self.runtime
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The workers' threads.
#[derive(Debug)]
pub struct Threads {
    workers: Workers,
    running: Vec<(oneshot::Sender<()>, thread::JoinHandle<()>)>,
}

impl Threads {
    /// Starts so many; one at least.
    pub fn start(number: usize) -> io::Result<Self> {
        let runtimes: Vec<Runtime> = (0..number.max(1))
            .map(|_| Builder::new_current_thread().enable_all().build())
            .collect::<io::Result<_>>()?;
        let workers = Workers::of(runtimes.iter().map(|runtime| runtime.handle().clone()));
        let mut running = Vec::new();
        for runtime in runtimes {
            let (stop, stopped) = oneshot::channel();
            let thread = thread::Builder::new().name("data".into()).spawn(move || {
                // An error: whoever would have said so is gone, which says the same.
                let _ = runtime.block_on(stopped);
            })?;
            running.push((stop, thread));
        }
        Ok(Self { workers, running })
    }

    /// Who runs on them.
    pub fn workers(&self) -> Workers {
        self.workers.clone()
    }

    /// Ends them, with what is still under way.
    pub fn stop(self) {
        let (stops, threads): (Vec<_>, Vec<_>) = self.running.into_iter().unzip();
        drop(stops);
        for thread in threads {
            // A panic was reported when it happened.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_spread_evenly_and_each_runs_on_its_own_thread() {
        let threads = Threads::start(2).unwrap();
        let workers = threads.workers();
        let ids = |places: &[Place]| -> Vec<_> { places.iter().map(|place| place.runtime().id()).collect() };
        let mut places = vec![workers.place(), workers.place()];
        let [first, second] = ids(&places)[..] else {
            panic!()
        };
        assert_ne!(first, second);
        places.push(workers.place());
        places.push(workers.place());
        assert_eq!(ids(&places).iter().filter(|id| **id == first).count(), 2);
        // Of one whose connections have gone.
        places.retain(|place| place.runtime().id() == first);
        assert_eq!(ids(&[workers.place(), workers.place()]), [second, second]);

        let runs_on = |place: &Place| {
            let (tell, told) = std::sync::mpsc::channel();
            place
                .runtime()
                .spawn(async move { tell.send(thread::current().id()) });
            told.recv().unwrap()
        };
        let other = workers.place();
        assert_ne!(runs_on(&places[0]), runs_on(&other));
        assert_eq!(runs_on(&other), runs_on(&other));
        threads.stop();
    }
}
