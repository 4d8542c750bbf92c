//! The thread on which objects with columns are sealed: one for the whole process, however many sinks there are.
//!
//! Making columns takes tens of megabytes for a moment. glibc keeps what a thread has freed for threads of the same arena, and each of
//! the threads for blocking work has an arena of its own: on whichever of them was free, an archive of 10,000 blobs took
//! 255 MiB in the end. On one thread that memory is there once. It is the reserve beside the memory budget of all sinks, whose parts
//! are for records on their way; nobody waits for a part of that while holding this thread, or the other way round.

use std::{
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{LazyLock, mpsc},
    thread,
};

use crate::blocking::blocking;

type Job = Box<dyn FnOnce() + Send>;

/// What is to be done there, in the order of asking. `None` when the system gives no thread.
static QUEUE: LazyLock<Option<mpsc::Sender<Job>>> = LazyLock::new(|| {
    let (sender, jobs) = mpsc::channel::<Job>();
    let works = move || jobs.into_iter().for_each(|job| job());
    thread::Builder::new().name("columns".to_owned()).spawn(works).ok().map(|_| sender)
});

/// Does work on that thread, when its turn comes, also when the future is dropped meanwhile. A panic of it goes on in whoever waits.
pub(super) async fn on_one_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    // The runtime is to know that something is under way.
    blocking(move || wait_for(work)).await
}

fn wait_for<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let (answer, answered) = mpsc::channel();
    let job: Job = Box::new(move || {
        let _ = answer.send(catch_unwind(AssertUnwindSafe(work)));
    });
    let left = match &*QUEUE {
        Some(queue) => queue.send(job).err().map(|unsent| unsent.0),
        None => Some(job),
    };
    // Here it takes more memory, and works.
    left.into_iter().for_each(|job| job());
    match answered.recv().expect("a job answers, with its panic if need be") {
        Ok(done) => done,
        Err(panic) => resume_unwind(panic),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::{FutureExt as _, future::join_all};

    use super::*;

    #[tokio::test]
    async fn all_work_is_done_on_one_thread_and_a_panic_ends_none_of_it() {
        let works = (0..20).map(|_| on_one_thread(|| thread::current().id()));
        let threads = join_all(works).await;
        assert!(threads.iter().all(|one| *one == threads[0] && *one != thread::current().id()));
        let panicked = AssertUnwindSafe(on_one_thread(|| panic!("as it must"))).catch_unwind().await;
        assert_eq!(panicked.unwrap_err().downcast_ref(), Some(&"as it must"));
        assert_eq!(on_one_thread(|| thread::current().id()).await, threads[0]);
    }

    #[tokio::test]
    async fn who_stops_waiting_keeps_nobody_from_working() {
        let (go, wait) = mpsc::channel::<()>();
        let mut given_up = Box::pin(on_one_thread(move || wait.recv()));
        assert!(given_up.as_mut().now_or_never().is_none());
        drop(given_up);
        let mut next = Box::pin(on_one_thread(|| 7));
        let soon = tokio::time::timeout(Duration::from_millis(20), &mut next).await;
        assert!(soon.is_err(), "it is not its turn");
        go.send(()).unwrap();
        assert_eq!(next.await, 7);
    }
}
