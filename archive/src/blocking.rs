//! Work that blocks, where it keeps nobody from working.

use std::panic::resume_unwind;

use tokio::task::{JoinError, spawn_blocking};

/// Does what takes time off the reactor's threads. A panic of it goes on in whoever waits.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => ended(error).await,
    }
}

/// What becomes of whoever waits for a task that did not come to its end.
pub(crate) async fn ended<T>(error: JoinError) -> T {
    match error.try_into_panic() {
        Ok(panic) => resume_unwind(panic),
        // The runtime is about to end, and whoever waits for this with it.
        Err(_) => std::future::pending().await,
    }
}
