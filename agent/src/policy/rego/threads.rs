//! Threads to evaluate on: they have the stack it takes, and carry no requests.

use std::{
    collections::VecDeque,
    fmt,
    panic::{self, AssertUnwindSafe},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

/// What an evaluation may need of stack. Only what it uses of it becomes memory.
const STACK: usize = 32 << 20;

/// How long a thread that has nothing to do is kept. Starting one takes longer than most policies; its stack is memory.
const KEPT: Duration = Duration::from_secs(10);

/// Threads that are started as they are needed.
#[derive(Clone)]
pub struct Threads(Arc<Shared>);

struct Shared {
    most: usize,
    kept: Duration,
    state: Mutex<State>,
    more: Condvar,
}

#[derive(Default)]
struct State {
    threads: usize,
    /// Of the threads, those that wait for work.
    idle: usize,
    work: VecDeque<Work>,
}

type Work = Box<dyn FnOnce() + Send>;

impl Threads {
    /// `most` of them at once, kept for a while.
    pub fn new(most: usize) -> Self {
        Self::that_are_kept(most, KEPT)
    }

    /// One, which ends with its work.
    pub fn for_one_question() -> Self {
        Self::that_are_kept(1, Duration::ZERO)
    }

    fn that_are_kept(most: usize, kept: Duration) -> Self {
        Self(Arc::new(Shared {
            most,
            kept,
            state: Mutex::default(),
            more: Condvar::new(),
        }))
    }

    /// Has one of them do `work`, once one is free: how much waits is for the caller to bound. Where there is none and can be
    /// none, `work` is dropped.
    pub fn run(&self, work: impl FnOnce() + Send + 'static) {
        let mut state = self.0.lock();
        state.work.push_back(Box::new(work));
        if state.idle >= state.work.len() {
            self.0.more.notify_one();
            return;
        }
        if state.threads == self.0.most {
            return;
        }
        state.threads += 1;
        drop(state);
        let (shared, thread) = (Arc::clone(&self.0), thread::Builder::new());
        let thread = thread.name("warifu-rego".to_owned()).stack_size(STACK);
        if let Err(error) = thread.spawn(move || shared.work()) {
            tracing::error!(%error, "there is no thread to evaluate the Rego policy on");
            let mut state = self.0.lock();
            state.threads -= 1;
            if state.threads == 0 {
                state.work.clear();
            }
        }
    }
}

impl Shared {
    fn work(&self) {
        while let Some(work) = self.next() {
            // What panics has said so. It ends no thread that others count on.
            let _ = panic::catch_unwind(AssertUnwindSafe(work));
        }
    }

    /// `None` where there was nothing for as long as a thread is kept: it is no longer counted.
    fn next(&self) -> Option<Work> {
        let mut state = self.lock();
        state.idle += 1;
        let none = |state: &mut State| state.work.is_empty();
        let waited = self.more.wait_timeout_while(state, self.kept, none);
        (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        state.idle -= 1;
        let work = state.work.pop_front();
        if work.is_none() {
            state.threads -= 1;
        }
        work
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it is held.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Threads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Threads").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, thread::ThreadId, time::Instant};

    use super::*;

    /// Longer than anything here takes.
    const DEADLINE: Duration = Duration::from_secs(20);

    /// Who does it, and a way to have that go on.
    fn begun(threads: &Threads) -> (mpsc::Receiver<ThreadId>, mpsc::Sender<()>) {
        let (tell, told) = mpsc::channel();
        let (go_on, waits) = mpsc::channel();
        threads.run(move || {
            tell.send(thread::current().id()).unwrap();
            let _ = waits.recv();
        });
        (told, go_on)
    }

    fn until(threads: &Threads, holds: impl Fn(&State) -> bool) {
        let began = Instant::now();
        while !holds(&threads.0.lock()) {
            assert!(began.elapsed() < DEADLINE);
            thread::yield_now();
        }
    }

    #[test]
    fn one_does_all_that_comes_after_one_another_and_more_at_once_are_more() {
        let threads = Threads::new(2);
        let (first, go_on) = begun(&threads);
        let first = first.recv_timeout(DEADLINE).unwrap();
        drop(go_on);
        until(&threads, |state| state.idle == 1);
        let (again, _go_on) = begun(&threads);
        assert_eq!(again.recv_timeout(DEADLINE).unwrap(), first);
        let (second, _go_on) = begun(&threads);
        assert_ne!(second.recv_timeout(DEADLINE).unwrap(), first);
        assert_eq!(threads.0.lock().threads, 2);
    }

    #[test]
    fn s14_what_is_more_than_they_can_do_at_once_is_done_after_it() {
        let threads = Threads::new(1);
        let (first, go_on) = begun(&threads);
        let first = first.recv_timeout(DEADLINE).unwrap();
        let (later, _go_on) = begun(&threads);
        assert!(later.try_recv().is_err());
        assert_eq!(threads.0.lock().threads, 1);
        drop(go_on);
        assert_eq!(later.recv_timeout(DEADLINE).unwrap(), first);
    }

    #[test]
    fn s17_what_panics_ends_no_thread_and_drops_what_it_held() {
        let threads = Threads::new(1);
        let (tell, told) = mpsc::channel::<()>();
        threads.run(move || {
            let _tell = tell;
            panic!("as a bug of the engine would");
        });
        let gone = told.recv_timeout(DEADLINE);
        assert_eq!(gone, Err(mpsc::RecvTimeoutError::Disconnected));
        let (next, _go_on) = begun(&threads);
        next.recv_timeout(DEADLINE).unwrap();
    }

    #[test]
    fn one_that_has_nothing_to_do_ends_and_another_is_started_in_its_place() {
        let threads = Threads::that_are_kept(1, Duration::from_millis(1));
        for _ in 0..100 {
            let (done, go_on) = begun(&threads);
            done.recv_timeout(DEADLINE).unwrap();
            drop(go_on);
        }
        until(&threads, |state| state.threads == 0);
    }
}
