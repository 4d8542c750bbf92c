//! Work that blocks, where it keeps nobody from working.

use std::panic::resume_unwind;

use tokio::task::spawn_blocking;

/// Does what blocks off the reactor's threads. A panic of it goes on in whoever waits.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => resume_unwind(panic),
            // The runtime is about to end, and whoever waits for this with it.
            Err(_) => std::future::pending().await,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_it_gives_comes_back_and_a_panic_goes_on() {
        assert_eq!(blocking(|| 7).await, 7);
        let panicked = tokio::spawn(blocking(|| panic!("a fault"))).await.unwrap_err().into_panic();
        assert_eq!(panicked.downcast_ref::<&str>(), Some(&"a fault"));
    }
}
