//! What has been read, kept in memory up to a number of bytes.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::Result;

/// Memory that a value takes.
pub(crate) trait Bytes {
    /// In bytes.
    fn bytes(&self) -> usize;
}

/// Keeps the values used last, up to a number of bytes. Reading happens outside the lock; two threads that want
/// the same value wait for one reading of it.
pub(crate) struct MemoryCache<K, V> {
    capacity: usize,
    state: Mutex<State<K, V>>,
    /// Signalled when a reading has ended.
    read: Condvar,
}

struct State<K, V> {
    slots: HashMap<K, Slot<V>>,
    /// Keys by time of last use.
    used: BTreeMap<u64, K>,
    clock: u64,
    bytes: usize,
}

enum Slot<V> {
    Reading,
    /// Larger than the cache, so there is no point in waiting for another thread's reading.
    TooLarge,
    Ready {
        value: Arc<V>,
        bytes: usize,
        used: u64,
    },
}

impl<K: Clone + Eq + Hash, V: Bytes> MemoryCache<K, V> {
    pub(crate) fn new(capacity: usize) -> Self {
        let state = State { slots: HashMap::new(), used: BTreeMap::new(), clock: 0, bytes: 0 };
        Self { capacity, state: Mutex::new(state), read: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State<K, V>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes in use.
    pub(crate) fn bytes(&self) -> usize {
        self.lock().bytes
    }

    pub(crate) fn get(&self, key: K, read: impl FnOnce() -> Result<V>) -> Result<Arc<V>> {
        // A thread of a pool must not wait: the reading it would wait for may be further down its own stack (it
        // takes up other tasks while a task waits for its parts).
        let may_wait = rayon::current_thread_index().is_none();
        let mut state = self.lock();
        loop {
            if let Some(value) = state.touch(&key) {
                return Ok(value);
            }
            if !(may_wait && matches!(state.slots.get(&key), Some(Slot::Reading))) {
                break;
            }
            state = self.read.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.slots.entry(key.clone()).or_insert(Slot::Reading);
        drop(state);

        // Also when `read` panics, those who wait must go on.
        let release = Release { cache: self, key: &key };
        let value = Arc::new(read()?);
        self.lock().insert(&key, &value, self.capacity);
        drop(release);
        Ok(value)
    }
}

struct Release<'a, K: Clone + Eq + Hash, V: Bytes> {
    cache: &'a MemoryCache<K, V>,
    key: &'a K,
}

impl<K: Clone + Eq + Hash, V: Bytes> Drop for Release<'_, K, V> {
    fn drop(&mut self) {
        let mut state = self.cache.lock();
        if matches!(state.slots.get(self.key), Some(Slot::Reading)) {
            state.slots.remove(self.key);
        }
        drop(state);
        self.cache.read.notify_all();
    }
}

impl<K: Clone + Eq + Hash, V: Bytes> State<K, V> {
    fn touch(&mut self, key: &K) -> Option<Arc<V>> {
        let Some(Slot::Ready { value, used, .. }) = self.slots.get_mut(key) else {
            return None;
        };
        self.clock += 1;
        self.used.remove(used);
        *used = self.clock;
        self.used.insert(self.clock, key.clone());
        Some(Arc::clone(value))
    }

    fn insert(&mut self, key: &K, value: &Arc<V>, capacity: usize) {
        if self.touch(key).is_some() {
            // Another thread of a pool was faster.
            return;
        }
        let bytes = value.bytes();
        if bytes > capacity {
            self.slots.insert(key.clone(), Slot::TooLarge);
            return;
        }
        while self.bytes + bytes > capacity {
            let Some((_, oldest)) = self.used.pop_first() else {
                break;
            };
            if let Some(Slot::Ready { bytes, .. }) = self.slots.remove(&oldest) {
                self.bytes -= bytes;
            }
        }
        self.clock += 1;
        self.used.insert(self.clock, key.clone());
        self.bytes += bytes;
        let slot = Slot::Ready { value: Arc::clone(value), bytes, used: self.clock };
        self.slots.insert(key.clone(), slot);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DataError;

    type Cache = MemoryCache<usize, Vec<Vec<u8>>>;

    impl Bytes for Vec<Vec<u8>> {
        fn bytes(&self) -> usize {
            self.iter().map(Vec::len).sum()
        }
    }

    /// One part of so many bytes.
    fn value_of(bytes: usize) -> Vec<Vec<u8>> {
        vec![vec![0; bytes]]
    }

    #[test]
    fn the_cache_drops_what_was_used_longest_ago() {
        let cache = Cache::new(30);
        let reads = std::cell::RefCell::new(Vec::new());
        let get = |key: usize, bytes: usize| {
            let read = || {
                reads.borrow_mut().push(key);
                Ok(value_of(bytes))
            };
            cache.get(key, read).unwrap();
            assert!(cache.lock().bytes <= 30);
        };
        for (key, bytes) in
            [(1, 10), (2, 10), (3, 10), (1, 10), (4, 10), (1, 10), (2, 10), (9, 31), (9, 31), (1, 10)]
        {
            get(key, bytes);
        }
        assert_eq!(*reads.borrow(), [1, 2, 3, 4, 2, 9, 9]);
        let state = cache.lock();
        assert_eq!(state.used.values().copied().collect::<Vec<_>>(), [4, 2, 1]);
    }

    #[test]
    fn threads_that_want_the_same_image_read_it_once() {
        let cache = Cache::new(100);
        let reads = std::sync::atomic::AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let read = || {
                        reads.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                        std::thread::sleep(std::time::Duration::from_millis(30));
                        Ok(value_of(1))
                    };
                    cache.get(5, read).unwrap();
                });
            }
        });
        assert_eq!(reads.into_inner(), 1);
    }

    #[test]
    fn a_failed_reading_leaves_the_cache_usable() {
        let cache = Cache::new(100);
        assert!(cache.get(1, || Err(DataError::content("m.png", "broken"))).is_err());
        let panicked =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| cache.get(1, || panic!("bug"))));
        assert!(panicked.is_err());
        assert_eq!(cache.get(1, || Ok(value_of(1))).unwrap().len(), 1);
    }

    #[test]
    fn a_reading_within_a_reading_in_a_thread_pool_does_not_wait_for_it() {
        let cache = Cache::new(100);
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        let inner = Mutex::new(0);
        pool.scope(|scope| {
            scope.spawn(|_| *inner.lock().unwrap() = cache.get(0, || Ok(value_of(7))).unwrap().len());
            let outer = cache.get(0, || {
                // As when a reader waits for its parts: the only thread takes up the task above.
                assert_eq!(rayon::yield_now(), Some(rayon::Yield::Executed));
                Ok(value_of(7))
            });
            assert_eq!(outer.unwrap().len(), 1);
        });
        assert_eq!((*inner.lock().unwrap(), cache.lock().bytes), (1, 7));
    }
}
