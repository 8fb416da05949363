//! Room for images that are being decoded: a file of a few kilobytes may claim 268 million pixels, and every thread may
//! meet one at the same time. Large images wait for one another; the bound is on all of them together.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};

/// Images that take fewer bytes need no permission: an image of 2.8 million pixels takes 16 MiB while it is decoded.
const ASKED_FROM: usize = 16 << 20;

/// Bytes for all large images: a base, and an amount per thread, enough to decode photographs of 16 million pixels on all
/// threads at once.
const BYTES: usize = 1 << 30;
const BYTES_A_THREAD: usize = 96 << 20;

/// A number of bytes that is given out in the order of requests.
#[derive(Debug)]
pub(super) struct Room {
    bytes: usize,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    taken: usize,
    /// Number of requests, and the one whose turn it is.
    asked: u64,
    turn: u64,
}

/// Bytes that were given out, until it is dropped; copies hold the same.
#[derive(Debug, Clone)]
pub(super) struct Taken {
    _given: Option<Arc<Given>>,
}

impl Taken {
    /// No bytes, which are always there.
    pub fn nothing() -> Self {
        Self { _given: None }
    }
}

#[derive(Debug)]
struct Given {
    room: Arc<Room>,
    bytes: usize,
}

/// Takes room for an image that needs `bytes` bytes while it is decoded; waits for others where there is too little. An
/// image that needs more than all is decoded alone. A thread that holds room must not request more.
pub(super) fn take(bytes: usize) -> Taken {
    static ROOM: OnceLock<Arc<Room>> = OnceLock::new();
    if bytes < ASKED_FROM {
        return Taken::nothing();
    }
    let threads = rayon::current_num_threads();
    Room::take(ROOM.get_or_init(|| Room::of(BYTES + threads * BYTES_A_THREAD)), bytes)
}

impl Room {
    fn of(bytes: usize) -> Arc<Self> {
        Arc::new(Self { bytes, state: Mutex::default(), changed: Condvar::new() })
    }

    fn take(room: &Arc<Self>, bytes: usize) -> Taken {
        let bytes = bytes.min(room.bytes);
        let mut state = room.lock();
        let ticket = state.asked;
        state.asked += 1;
        while state.turn != ticket || state.taken + bytes > room.bytes {
            state = room.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.turn += 1;
        state.taken += bytes;
        drop(state);
        // the next in line may fit too
        room.changed.notify_all();
        Taken { _given: Some(Arc::new(Given { room: Arc::clone(room), bytes })) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // a panic cannot come between two changes of it
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Given {
    fn drop(&mut self) {
        self.room.lock().taken -= self.bytes;
        self.room.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn no_more_is_given_out_than_there_is() {
        let room = Room::of(100);
        let now = AtomicUsize::new(0);
        let most = AtomicUsize::new(0);
        let done = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for thread in 0..8 {
                let room = &room;
                let now = &now;
                let most = &most;
                let done = &done;
                scope.spawn(move || {
                    for i in 0..200 {
                        let bytes = [10, 30, 60, 100, 250][(thread + i) % 5];
                        let taken = Room::take(room, bytes);
                        let bytes = bytes.min(100);
                        most.fetch_max(now.fetch_add(bytes, Ordering::SeqCst) + bytes, Ordering::SeqCst);
                        std::thread::yield_now();
                        now.fetch_sub(bytes, Ordering::SeqCst);
                        drop(taken.clone());
                        drop(taken);
                        done.fetch_add(1, Ordering::SeqCst);
                    }
                });
            }
        });
        assert_eq!((most.into_inner(), done.into_inner()), (100, 1600));
        assert_eq!(room.lock().taken, 0);
    }

    #[test]
    fn a_large_one_is_not_passed_by_for_ever() {
        let room = Room::of(100);
        let small = Room::take(&room, 60);
        std::thread::scope(|scope| {
            let large = scope.spawn(|| drop(Room::take(&room, 100)));
            while room.lock().asked < 2 {
                std::thread::yield_now();
            }
            // there would be room for it, but it came later
            let late = scope.spawn(|| drop(Room::take(&room, 40)));
            while room.lock().asked < 3 {
                std::thread::yield_now();
            }
            assert!(!late.is_finished() && !large.is_finished());
            drop(small);
            large.join().expect("it had its turn");
            late.join().expect("it had its turn");
        });
    }
}
