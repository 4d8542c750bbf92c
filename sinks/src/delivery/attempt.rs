//! One batch on its way: sent, sent again, cut in halves, freed of what is refused, until every record of it is
//! delivered, dead, or given up for now.

use std::{
    collections::{BTreeSet, VecDeque},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Duration,
};

use futures_util::FutureExt;
use tokio::time::Instant;
use tracing::warn;

use super::shared::{Backoff, Shared, insist, panic_text};
use crate::{
    age::Ages,
    batching::{Outgoing, Slice, cut, halve, records},
    delivery_ledger::{DeadRecord, LedgerFailure, WorkId},
    line::Place,
    memory::Piece,
    sink::{Batch, DeliverError, Disposition},
};

/// How long a batch is tried again in memory before its works go back into the ledger.
const IN_MEMORY: Duration = Duration::from_secs(60);

/// What became of a batch.
#[derive(Debug)]
pub(super) struct Outcome {
    /// What receipts cover.
    pub(super) delivered: Vec<Slice>,
    /// What is refused for good.
    pub(super) dead: Vec<(WorkId, DeadRecord)>,
    /// What is left.
    pub(super) left: Vec<Slice>,
    /// Whether some of what is left may have arrived.
    pub(super) ambiguous: bool,
    /// Whether it was in line with others.
    pub(super) in_line: bool,
    /// How it ended.
    pub(super) end: End,
}

/// How a batch ended.
#[derive(Debug)]
pub(super) enum End {
    /// Nothing is left.
    Done,
    /// For now it is given up.
    GaveUp {
        error: String,
        /// What the destination asked for.
        after: Option<Duration>,
    },
    /// The sink needs a person.
    Halted(DeliverError),
    /// Whoever handled it panicked. With one work in the batch it is known which one that was about.
    Panicked { works: Vec<WorkId>, message: String },
    /// The ledger failed for good.
    Ledger(LedgerFailure),
}

/// Records that go together, now or later.
struct Job {
    slices: Vec<Slice>,
    /// Whether it was sent before and may have arrived.
    ambiguous: bool,
    /// How often it was sent again after that.
    again: u32,
}

/// A work that a batch has records of.
#[derive(Debug, Clone, Copy)]
pub(super) struct Beginning {
    pub(super) work: WorkId,
    /// How often its records may be there once the batch has left.
    pub(super) times: u32,
    /// Whether the ledger knows that.
    pub(super) committed: bool,
}

/// What became of one sending.
enum Sent {
    Taken,
    Failed(DeliverError),
    Panicked(String),
}

/// Carries a batch to the destination. `works` are those that it has records of; empty for a sink that is exactly once.
/// With a place in line it is tried once.
pub(super) async fn carry(
    shared: Arc<Shared>,
    outgoing: Outgoing,
    works: Vec<Beginning>,
    place: Option<Place>,
) -> Outcome {
    let mut outcome = Outcome {
        delivered: Vec::new(),
        dead: Vec::new(),
        left: Vec::new(),
        ambiguous: false,
        in_line: place.is_some(),
        end: End::Done,
    };
    let Outgoing { slices, batch } = outgoing;
    let mut jobs = VecDeque::from([Job { slices, ambiguous: false, again: 0 }]);
    let begin: Vec<_> =
        works.iter().filter(|work| !work.committed).map(|work| (work.work, work.times)).collect();
    if !begin.is_empty() {
        let begun = insist(&shared, || shared.ledger.begin(&shared.name, begin.clone())).await;
        if let Err(failure) = begun {
            outcome.end = End::Ledger(failure);
            outcome.left = jobs.pop_front().map(|job| job.slices).unwrap_or_default();
            return outcome;
        }
    }
    outcome.end = match place {
        None => carry_jobs(&shared, &mut jobs, Some(batch), &works, &mut outcome).await,
        Some(mut place) => {
            let end = carry_in_line(&shared, &mut jobs, batch, &mut place, &mut outcome).await;
            if matches!(end, End::Done) {
                place.taken();
            }
            // Acknowledged in order too.
            place.those_before().await;
            end
        }
    };
    outcome.ambiguous = jobs.iter().any(|job| job.ambiguous);
    outcome.left = jobs.into_iter().flat_map(|job| job.slices).collect();
    outcome
}

async fn carry_jobs(
    shared: &Arc<Shared>,
    jobs: &mut VecDeque<Job>,
    mut in_hand: Option<Batch>,
    works: &[Beginning],
    outcome: &mut Outcome,
) -> End {
    let mut backoff = Backoff::new(Duration::from_millis(250), Duration::from_secs(15));
    let mut failing_since: Option<Instant> = None;
    while let Some(job) = jobs.front_mut() {
        let batch = match in_hand.take() {
            Some(batch) => batch,
            None => match read_again(shared, &job.slices).await {
                Ok(batch) => batch,
                Err(end) => return end,
            },
        };
        tokio::select! {
            biased;
            () = shared.rate.turn(batch.len(), batch.bytes()) => {}
            () = shared.stop.cancelled() => {
                return End::GaveUp { error: "stopped before its turn".to_owned(), after: None };
            }
        }
        // A sink that is exactly once recognises what is there already.
        if job.ambiguous && !shared.limits.exactly_once {
            // Durable before it leaves again: a crash must not forget that it left before.
            job.again += 1;
            let in_job: BTreeSet<WorkId> = job.slices.iter().map(|slice| slice.work.id).collect();
            let again: Vec<_> = works
                .iter()
                .filter(|work| in_job.contains(&work.work))
                .map(|work| (work.work, work.times + job.again))
                .collect();
            let begun = insist(shared, || shared.ledger.begin(&shared.name, again.clone())).await;
            if let Err(failure) = begun {
                return End::Ledger(failure);
            }
            shared.note_resent(&job.slices);
        }
        let error = match send(shared, batch).await {
            Sent::Taken => {
                outcome.delivered.extend(jobs.pop_front().map(|job| job.slices).unwrap_or_default());
                failing_since = None;
                backoff.reset();
                continue;
            }
            Sent::Failed(error) => error,
            Sent::Panicked(message) => {
                job.ambiguous = true;
                let works: BTreeSet<WorkId> = job.slices.iter().map(|slice| slice.work.id).collect();
                return End::Panicked { works: works.into_iter().collect(), message };
            }
        };
        let DeliverError { disposition, context } = error;
        match disposition {
            Disposition::Halt => return End::Halted(DeliverError::halt(context)),
            Disposition::Split if records(&job.slices) > 1 => {
                let (ambiguous, again) = (job.ambiguous, job.again);
                let (first, second) = halve(std::mem::take(&mut job.slices));
                jobs.pop_front();
                jobs.push_front(Job { slices: second, ambiguous, again });
                jobs.push_front(Job { slices: first, ambiguous, again });
            }
            Disposition::Isolate { suspect } if records(&job.slices) > 1 => {
                let job = jobs.pop_front().expect("it is the first");
                for part in isolate(job, suspect).into_iter().rev() {
                    jobs.push_front(part);
                }
            }
            Disposition::Split | Disposition::Isolate { .. } => {
                refuse(shared, jobs, &[(0, context)], outcome);
            }
            Disposition::Reject { records: refused }
                if refused.iter().any(|(index, _)| *index < records(&job.slices)) =>
            {
                refuse(shared, jobs, &refused, outcome);
            }
            // A refusal of nothing would be sent for ever without a pause.
            Disposition::Reject { .. } | Disposition::Retry { .. } => {
                let (after, ambiguous) = match disposition {
                    Disposition::Retry { after, ambiguous } => (after, ambiguous),
                    _ => (None, false),
                };
                job.ambiguous |= ambiguous;
                let since = *failing_since.get_or_insert_with(Instant::now);
                let wait = backoff.next().max(after.unwrap_or_default());
                let patience = IN_MEMORY.saturating_sub(since.elapsed());
                shared.failed(&context, after.is_some());
                if wait > patience || !shared.pause(wait).await {
                    return End::GaveUp { error: context, after };
                }
            }
        }
    }
    End::Done
}

/// Gives the batch to the sink in its turn, and breaks the line in the very step in which it fails: nobody else is given
/// to the sink between a failure and that.
async fn carry_in_line(
    shared: &Arc<Shared>,
    jobs: &mut VecDeque<Job>,
    batch: Batch,
    place: &mut Place,
    outcome: &mut Outcome,
) -> End {
    let behind = || End::GaveUp { error: "a batch before it failed".to_owned(), after: None };
    if !place.turn().await {
        return behind();
    }
    tokio::select! {
        biased;
        () = shared.rate.turn(batch.len(), batch.bytes()) => {}
        () = shared.stop.cancelled() => {
            place.fail();
            return End::GaveUp { error: "stopped before its turn".to_owned(), after: None };
        }
    }
    if place.is_broken() {
        return behind();
    }
    let sending = send(shared, batch);
    place.given();
    let error = match sending.await {
        Sent::Taken => {
            outcome.delivered.extend(jobs.pop_front().map(|job| job.slices).unwrap_or_default());
            return End::Done;
        }
        Sent::Failed(error) => {
            place.fail();
            error
        }
        Sent::Panicked(message) => {
            place.fail();
            let works = jobs.iter_mut().flat_map(|job| {
                job.ambiguous = true;
                job.slices.iter().map(|slice| slice.work.id)
            });
            let works: BTreeSet<WorkId> = works.collect();
            return End::Panicked { works: works.into_iter().collect(), message };
        }
    };
    let DeliverError { disposition, context } = error;
    let (after, ambiguous) = match disposition {
        Disposition::Halt => return End::Halted(DeliverError::halt(context)),
        Disposition::Retry { after, ambiguous } => (after, ambiguous),
        Disposition::Isolate { .. } => (None, true),
        // Which of its records it is gets found out when it goes alone.
        Disposition::Split | Disposition::Reject { .. } => (None, false),
    };
    for job in jobs {
        job.ambiguous |= ambiguous;
    }
    End::GaveUp { error: context, after }
}

/// Cuts a job of several records such that the suspect is alone. Destinations count from 0 or from 1 and are not always
/// right, so nothing is refused by their word: what is left whole and is refused again is cut again.
fn isolate(job: Job, suspect: Option<usize>) -> Vec<Job> {
    let count = records(&job.slices);
    let Job { slices, ambiguous, again } = job;
    let Some(suspect) = suspect else {
        // Nobody knows where it stopped.
        let (first, second) = halve(slices);
        return [first, second].map(|slices| Job { slices, ambiguous: true, again }).into();
    };
    let suspect = suspect.min(count - 1);
    let (before, rest) = cut(slices, suspect);
    let (alone, after) = cut(rest, 1);
    let parts = [(before, true), (alone, ambiguous), (after, ambiguous)];
    let parts = parts.into_iter().filter(|(slices, _)| !slices.is_empty());
    parts.map(|(slices, ambiguous)| Job { slices, ambiguous, again }).collect()
}

/// Makes dead letters of the refused records of the first job.
fn refuse(shared: &Shared, jobs: &mut VecDeque<Job>, refused: &[(usize, String)], outcome: &mut Outcome) {
    let Some(Job { slices, ambiguous, again }) = jobs.pop_front() else { return };
    let mut left = Vec::new();
    let mut start = 0;
    let mut count = 0;
    for slice in slices {
        let mut out = BTreeSet::new();
        for (index, reason) in refused {
            if (start..start + slice.len()).contains(index) && out.insert(index - start) {
                let position = slice.positions.iter().nth(index - start);
                let position = position.expect("a slice has a position for each of its records");
                outcome.dead.push((slice.work.id, DeadRecord { position, reason: reason.clone() }));
                count += 1;
            }
        }
        start += slice.len();
        if out.is_empty() { left.push(slice) } else { left.extend(slice.without(&out)) }
    }
    warn!(sink = %shared.name, "refused {count} records for good, the first because: {}", refused[0].1);
    if !left.is_empty() {
        jobs.push_front(Job { slices: left, ambiguous, again });
    }
}

/// Gives the batch to the sink at once; the future resolves to what became of it.
fn send(shared: &Shared, batch: Batch) -> impl Future<Output = Sent> {
    let (records, bytes, ages) = (batch.len(), batch.bytes(), Ages::of(&batch));
    let restored = batch.restored();
    let start = Instant::now();
    let delivery = catch_unwind(AssertUnwindSafe(|| shared.sink.deliver(batch)));
    async move {
        let delivery = match delivery {
            Ok(delivery) => AssertUnwindSafe(delivery).catch_unwind(),
            Err(panic) => return Sent::Panicked(panic_text(panic.as_ref())),
        };
        match tokio::time::timeout(shared.limits.timeout, delivery).await {
            Ok(Ok(Ok(receipt))) if receipt.records() == records => {
                // What a sink holds has arrived nowhere yet.
                if shared.sink.holding().is_none() {
                    shared.rate.eased();
                    shared.health.delivered((records, restored), bytes, &ages, start.elapsed());
                    shared.succeeded();
                }
                Sent::Taken
            }
            Ok(Ok(Ok(receipt))) => Sent::Panicked(format!(
                "its receipt covers {} records of a batch of {records}",
                receipt.records()
            )),
            Ok(Ok(Err(error))) => Sent::Failed(error),
            Ok(Err(panic)) => Sent::Panicked(panic_text(panic.as_ref())),
            Err(_) => Sent::Failed(DeliverError::ambiguous(format!(
                "no answer within {:.0?}",
                shared.limits.timeout
            ))),
        }
    }
}

/// Makes the batch again from the spool: nothing holds its bytes while it waits.
async fn read_again(shared: &Arc<Shared>, slices: &[Slice]) -> Result<Batch, End> {
    let mut memory = 0;
    for (index, slice) in slices.iter().enumerate() {
        if index == 0 || !slice.shares_piece(&slices[index - 1]) {
            memory += slice.memory;
        }
    }
    // All of it at once: whoever held a part of it while waiting for the rest could wait for ever.
    let room = Arc::new(shared.again.reserve(memory).await);
    let mut batch = Batch::default();
    let mut last: Option<(&Slice, Arc<Piece>)> = None;
    for slice in slices {
        let piece = match &last {
            Some((before, piece)) if before.shares_piece(slice) => Arc::clone(piece),
            _ => {
                let read = insist(shared, || {
                    shared.ledger.read(&shared.name, &slice.work, slice.from, slice.only.as_deref())
                });
                let rendered = match AssertUnwindSafe(read).catch_unwind().await {
                    Ok(Ok(Ok(piece))) => piece.rendered,
                    Ok(Ok(Err(gone))) => return Err(End::GaveUp { error: gone.to_string(), after: None }),
                    Ok(Err(failure)) => return Err(End::Ledger(failure)),
                    Err(panic) => {
                        let message = panic_text(panic.as_ref());
                        return Err(End::Panicked { works: vec![slice.work.id], message });
                    }
                };
                Arc::new(Piece::new(rendered, Arc::clone(&room)))
            }
        };
        let same = slice.indexes.end <= piece.len()
            && slice
                .indexes
                .clone()
                .zip(slice.positions.iter())
                .all(|(index, position)| piece.position(index) == position);
        if !same {
            let message = "reading it again gave other records than before".to_owned();
            return Err(End::Panicked { works: vec![slice.work.id], message });
        }
        batch.parts.push(slice.part(&piece));
        last = Some((slice, piece));
    }
    Ok(batch)
}
