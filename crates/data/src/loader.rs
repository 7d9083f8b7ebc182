//! A loader that makes items on several threads and hands them out in order.
//!
//! Item `i` is `make(i)`, a function of `i` alone, so what the consumer sees does not depend on the number of
//! threads or on their timing, and a run can be resumed at any position. At most `ahead` items are made before
//! they are asked for.

use std::any::Any;
use std::collections::BTreeMap;
use std::iter::FusedIterator;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use crate::{DataError, Result};

type Make<T> = dyn Fn(u64) -> Result<T> + Send + Sync;

/// An iterator over `make(first), make(first + 1), …, make(end - 1)`, in that order.
///
/// The first error ends the iteration: it is handed out in its place, then comes `None`. A panic in `make` counts
/// as an error. Dropping the loader stops its threads; the drop returns when each has finished the item at hand.
pub struct Loader<T> {
    shared: Arc<Shared<T>>,
    workers: Vec<JoinHandle<()>>,
    /// Next item to hand out.
    position: u64,
    end: u64,
    waited: Duration,
}

struct Shared<T> {
    make: Box<Make<T>>,
    ahead: u64,
    state: Mutex<State<T>>,
    /// Signalled when an item is finished.
    finished: Condvar,
    /// Signalled when an item is taken or the loader stops.
    room: Condvar,
}

struct State<T> {
    /// Next item that no worker has begun.
    claimed: u64,
    /// Next item to hand out.
    delivered: u64,
    /// Items from here on are not made; lowered to stop early.
    end: u64,
    /// Finished, not handed out. Never more than `ahead`.
    done: BTreeMap<u64, Result<T>>,
}

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        // No code that can panic runs under the lock; a poisoned state would still be consistent.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn make_caught(&self, index: u64) -> Result<T> {
        catch_unwind(AssertUnwindSafe(|| (self.make)(index))).unwrap_or_else(|payload| {
            let problem = format!("the loader panicked while making it: {}", panic_text(payload.as_ref()));
            Err(DataError::content(format!("item {index}"), problem))
        })
    }

    fn work(&self) {
        loop {
            let index = {
                let mut state = self.lock();
                loop {
                    if state.claimed >= state.end {
                        return;
                    }
                    if state.claimed - state.delivered < self.ahead {
                        break;
                    }
                    state = self.room.wait(state).unwrap_or_else(PoisonError::into_inner);
                }
                state.claimed += 1;
                state.claimed - 1
            };
            let item = self.make_caught(index);
            let mut state = self.lock();
            if item.is_err() {
                // Nothing after an error is handed out, so nothing after it need be made.
                state.end = state.end.min(index.saturating_add(1));
                self.room.notify_all();
            }
            state.done.insert(index, item);
            self.finished.notify_all();
        }
    }
}

fn panic_text(payload: &(dyn Any + Send)) -> &str {
    if let Some(text) = payload.downcast_ref::<&'static str>() {
        text
    } else if let Some(text) = payload.downcast_ref::<String>() {
        text
    } else {
        "no message"
    }
}

impl<T: Send + 'static> Loader<T> {
    /// Starts `threads` threads that make the items `first..end`.
    ///
    /// - `threads`: 0 makes each item in the consumer's thread when it is asked for.
    /// - `ahead`: bound on the items begun and not yet handed out, at least 1 (0 counts as 1). Fewer than `threads`
    ///   leaves threads idle.
    ///
    /// If the system refuses a thread, the loader goes on with those it got.
    pub fn new(
        first: u64,
        end: u64,
        threads: usize,
        ahead: usize,
        make: impl Fn(u64) -> Result<T> + Send + Sync + 'static,
    ) -> Self {
        let end = end.max(first);
        let shared = Arc::new(Shared {
            make: Box::new(make),
            ahead: ahead.max(1) as u64,
            state: Mutex::new(State { claimed: first, delivered: first, end, done: BTreeMap::new() }),
            finished: Condvar::new(),
            room: Condvar::new(),
        });
        let useful = usize::try_from(end - first).unwrap_or(usize::MAX).min(ahead.max(1));
        let workers = (0..threads.min(useful))
            .filter_map(|n| {
                let shared = Arc::clone(&shared);
                Builder::new().name(format!("loader-{n}")).spawn(move || shared.work()).ok()
            })
            .collect();
        Self { shared, workers, position: first, end, waited: Duration::ZERO }
    }
}

impl<T> Loader<T> {
    /// Index of the item that `next` hands out next.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Time the consumer has spent in `next`, in seconds: waiting, or with 0 threads, making.
    pub fn wait_seconds(&self) -> f64 {
        self.waited.as_secs_f64()
    }

    fn take_next(&self) -> Result<T> {
        if self.workers.is_empty() {
            return self.shared.make_caught(self.position);
        }
        let mut state = self.shared.lock();
        loop {
            if let Some(item) = state.done.remove(&self.position) {
                state.delivered += 1;
                drop(state);
                self.shared.room.notify_all();
                return item;
            }
            state = self.shared.finished.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl<T> Iterator for Loader<T> {
    type Item = Result<T>;

    fn next(&mut self) -> Option<Result<T>> {
        if self.position >= self.end {
            return None;
        }
        let start = Instant::now();
        let item = self.take_next();
        self.waited += start.elapsed();
        self.position += 1;
        if item.is_err() {
            self.end = self.position;
        }
        Some(item)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        // An error may end the iteration any time.
        (0, usize::try_from(self.end - self.position).ok())
    }
}

impl<T> FusedIterator for Loader<T> {}

impl<T> Drop for Loader<T> {
    fn drop(&mut self) {
        self.shared.lock().end = 0;
        self.shared.room.notify_all();
        for worker in self.workers.drain(..) {
            // A worker catches the panics of `make`; should one die all the same there is nobody left to tell.
            let _ = worker.join();
        }
    }
}

impl<T> std::fmt::Debug for Loader<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Loader")
            .field("position", &self.position)
            .field("end", &self.end)
            .field("threads", &self.workers.len())
            .finish_non_exhaustive()
    }
}
