//! The connected producer, and who uses it.
//!
//! Batches are in [line](crate::line): a producer gets the messages of one after those of the one before, and librdkafka
//! keeps that order for each partition. When a batch fails, its producer is closed, and whoever still uses it is waited
//! for: nobody joins them, and only then somebody connects anew. So what was not acknowledged can be sent again without
//! coming behind what followed it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::producer::Producer;
use crate::{
    line::{Line, Place},
    sink::DeliverError,
};

/// A sink's producer and its line.
pub(super) struct Connection(Mutex<State>);

struct State {
    producer: Option<Arc<Producer>>,
    users: usize,
    /// Whether a batch failed while there were users that are still there.
    failed: bool,
    line: Line,
}

/// A batch's use of the connection. Whoever drops it without saying how it ended leaves no producer.
pub(super) struct Using<'a> {
    connection: &'a Connection,
    producer: Option<Arc<Producer>>,
    place: Option<Place>,
    /// Whether the batch was taken, and whether the producer can be used again.
    ended: (bool, bool),
}

impl Connection {
    pub(super) fn new() -> Self {
        Self(Mutex::new(State { producer: None, users: 0, failed: false, line: Line::new() }))
    }

    /// Takes the place behind all others.
    pub(super) fn enter(&self) -> Result<Using<'_>, DeliverError> {
        let mut state = self.lock();
        if state.users == 0 {
            state.failed = false;
            state.line = Line::new();
        } else if state.failed || state.producer.is_none() {
            return Err(behind());
        }
        state.users += 1;
        let (producer, place) = (state.producer.clone(), state.line.join());
        drop(state);
        Ok(Using { connection: self, producer, place: Some(place), ended: (false, false) })
    }

    /// Puts another producer, or none, in the place of the one that is there.
    pub(super) fn replace(&self, producer: Option<Arc<Producer>>) -> Option<Arc<Producer>> {
        std::mem::replace(&mut self.lock().producer, producer)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Using<'_> {
    /// The producer; `None` when somebody has to connect, who is alone then.
    pub(super) fn producer(&mut self) -> Option<Arc<Producer>> {
        self.producer.take()
    }

    /// It was connected: others may follow.
    pub(super) fn connected(&self, producer: Producer) -> Arc<Producer> {
        let producer = Arc::new(producer);
        if let Some(before) = self.connection.replace(Some(Arc::clone(&producer))) {
            discard(before);
        }
        producer
    }

    /// Waits for its turn.
    ///
    /// # Errors
    ///
    /// When a batch before it failed: then nothing of this one may leave.
    pub(super) async fn turn(&mut self) -> Result<Place, DeliverError> {
        let place = self.place.take().ok_or_else(behind)?;
        if place.turn().await { Ok(place) } else { Err(behind()) }
    }

    /// How the batch ended.
    pub(super) fn ended(&mut self, taken: bool, usable: bool) {
        self.ended = (taken, usable);
    }
}

impl Drop for Using<'_> {
    fn drop(&mut self) {
        let (taken, usable) = self.ended;
        let mut state = self.connection.lock();
        state.users -= 1;
        state.failed |= !taken;
        let left = if usable { None } else { state.producer.take() };
        drop(state);
        [left, self.producer.take()].into_iter().flatten().for_each(discard);
    }
}

fn behind() -> DeliverError {
    DeliverError::retry("a batch before it failed")
}

/// Lets go of a producer, which blocks when nobody else has it, without waiting for it.
pub(super) fn discard(producer: Arc<Producer>) {
    // When no thread can be started, this one has to wait.
    let _ = std::thread::Builder::new().name("kafka close".to_owned()).spawn(move || drop(producer));
}
