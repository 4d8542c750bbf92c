//! What an earlier run, or this process before a failure, left behind: what of it goes on, and what is made anew.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{PoisonError, atomic::Ordering},
};

use archive::{Hash, Hasher, SealedFile, Store};
use futures_util::TryStreamExt as _;
use tracing::{info, warn};

use super::{
    ArchiveSink, Desk,
    plan::Plan,
    seal,
    span::{Span, Stage},
    staging::StagingError,
    state::{OnDisk, SealedOnDisk, State},
};
use crate::{delivery_ledger::Settlement, sink::DeliverError};

/// What goes on.
#[derive(Debug, Default)]
struct Left {
    spans: BTreeMap<u64, Span>,
    held: Vec<Settlement>,
}

impl Left {
    fn add(&mut self, desk: &Desk, of: &OnDisk, stage: Stage) -> Result<(), StagingError> {
        let (whole, entries) = desk.staging.works(of)?;
        self.held.extend(entries.iter().map(super::span::Entry::settlement));
        self.spans.insert(of.span, Span::again(of.feed(), of.began, of.formats.clone(), whole, stage));
        Ok(())
    }
}

impl ArchiveSink {
    /// Brings the plan in line with the ledger and the disk.
    pub(super) async fn reopen(&self) -> Result<(), DeliverError> {
        let store = self.make_store().await?;
        let state = self.context.stored(State::decode).await?.unwrap_or_default();
        let known = state.clone();
        let found =
            self.blocking(move |desk, _| hashes(desk, &known)).await.map_err(StagingError::retried)?;
        let mut lost = BTreeSet::new();
        for (sealed, found) in state.sealed.iter().zip(found) {
            let files = sealed.object.files.iter().zip(found);
            let damaged = files.filter(|(file, found)| *found != Some(file.sha256)).map(|(file, _)| file);
            let damaged: Vec<_> = damaged.collect();
            if !damaged.is_empty() && !self.is_put(&store, sealed, &damaged).await? {
                warn!(
                    sink = %self.context.name,
                    "the sealed object {} is damaged or gone from the staging folder, and was not put: it is thrown \
                     away and made anew from the spool; look for a faulty disk",
                    names(sealed)
                );
                lost.insert(sealed.span.span);
            }
        }
        let mut manifests = state.manifests.clone();
        self.meet(&store, &mut manifests).await?;
        let again = self.opened.load(Ordering::Relaxed);
        let (known, config) = (state.clone(), self.config.clone());
        let gone = lost.clone();
        let (held, thrown_away) = self
            .blocking(move |desk, _| {
                let _turn = desk.sealing.lock().unwrap_or_else(PoisonError::into_inner);
                let _other = desk.writing.lock().unwrap_or_else(PoisonError::into_inner);
                desk.staging.make()?;
                let mut left = Left::default();
                for sealed in known.sealed.iter().filter(|sealed| !gone.contains(&sealed.span.span)) {
                    let stage = Stage::Sealed(Box::new(sealed.object.clone()));
                    left.add(desk, &sealed.span, stage).map_err(Unfit::Sealed)?;
                }
                let mut damaged = 0;
                for of in what_is_open(desk, &known, again)? {
                    let stage = Stage::Open { due: false };
                    let goes_on = desk.staging.reaches(&of).and_then(|()| left.add(desk, &of, stage));
                    damaged += usize::from(goes_on.is_err());
                }
                let numbers = |open: bool| {
                    let of = left.spans.iter();
                    of.filter(move |(_, span)| matches!(span.stage, Stage::Open { .. }) == open)
                        .map(|(number, _)| *number)
                        .collect::<BTreeSet<u64>>()
                };
                let thrown_away = desk.staging.tidy(&numbers(true), &numbers(false))?;
                *desk.plan() = Plan::new(&config, left.spans, manifests);
                Ok::<_, Unfit>((left.held, thrown_away.max(damaged)))
            })
            .await
            .map_err(Unfit::told)?;
        if thrown_away > 0 {
            info!(
                sink = %self.context.name,
                "{thrown_away} objects that were open when it was stopped without warning are made anew from the spool"
            );
        }
        if !lost.is_empty() {
            // The ledger has to know before their works come again.
            let state = self.desk.plan().state().encode();
            self.context.keep(state).await?;
        }
        if let (Some(stamping), true) = (&self.stamping, self.config.signing.is_some()) {
            // Whether they have one already is seen in the archive.
            let ledger = self.ledger().await?;
            self.desk.plan().manifests().heads(ledger).for_each(|(chain, head)| stamping.add(chain, head));
            stamping.start(store.clone());
        }
        *self.again.lock().unwrap_or_else(PoisonError::into_inner) = held;
        *self.store.lock().unwrap_or_else(PoisonError::into_inner) = Some(store);
        Ok(())
    }

    /// Whether files that this machine has lost are in the archive. When they are not, the object may be made anew only
    /// if none of its other files is there either.
    async fn is_put(
        &self,
        store: &Store,
        sealed: &SealedOnDisk,
        lost: &[&SealedFile],
    ) -> Result<bool, DeliverError> {
        let (mut there, mut missing) = (None, None);
        for file in &sealed.object.files {
            let head = store.head(&file.path).await.map_err(|error| self.refused(&error))?;
            if head.is_none() {
                missing = missing.or(Some(file).filter(|file| lost.contains(file)));
                continue;
            }
            there = Some(file);
            if !lost.contains(&file) {
                continue;
            }
            let found = stored_hash(store, file).await.map_err(|error| self.refused(&error))?;
            if found != file.sha256 {
                return Err(DeliverError::halt(format!(
                    "{} is there with other bytes than those that were sealed, and these are damaged in the staging \
                     folder: find out who wrote it",
                    store.describe(&file.path)
                )));
            }
        }
        match (missing, there) {
            (None, _) => Ok(true),
            (Some(_), None) => Ok(false),
            (Some(missing), Some(there)) => Err(DeliverError::halt(format!(
                "of an object, {} is in the archive, and {} is damaged or gone from the staging folder and not put: \
                 bring back {}",
                store.describe(&there.path),
                missing.path,
                self.desk.staging.file(sealed.span.span, sealed.kind_of(missing)).display()
            ))),
        }
    }
}

/// The files of an object, for people.
fn names(sealed: &SealedOnDisk) -> String {
    let names: Vec<&str> = sealed.object.files.iter().map(|file| file.path.as_str()).collect();
    names.join(", ")
}

async fn stored_hash(store: &Store, file: &SealedFile) -> Result<Hash, archive::StoreError> {
    let mut pieces = store.get(&file.path).await?.pieces;
    let mut hasher = Hasher::default();
    while let Some(piece) = pieces.try_next().await? {
        hasher.update(&piece);
    }
    Ok(hasher.finish())
}

/// The hashes of what is sealed, as it lies on this machine.
fn hashes(desk: &Desk, state: &State) -> Result<Vec<Vec<Option<Hash>>>, StagingError> {
    let _turn = desk.sealing.lock().unwrap_or_else(PoisonError::into_inner);
    desk.staging.make()?;
    let of = |sealed: &SealedOnDisk| seal::hashes_of(&desk.staging, sealed.span.span, &sealed.object.files);
    state.sealed.iter().map(of).collect()
}

/// What is open: what the ledger says when the process begins, after that what it has itself.
fn what_is_open(desk: &Desk, state: &State, again: bool) -> Result<Vec<OnDisk>, StagingError> {
    if !again {
        return Ok(state.open.clone());
    }
    let numbers = desk.plan().cut_to_open(state);
    let mut open = Vec::new();
    for number in numbers {
        desk.write_journal(number)?;
        open.extend(desk.plan().on_disk(number).filter(|on_disk| on_disk.bytes > 0));
    }
    Ok(open)
}

/// Why the sink cannot be opened.
enum Unfit {
    /// The works of an object that has a name cannot be read.
    Sealed(StagingError),
    Other(StagingError),
}

impl From<StagingError> for Unfit {
    fn from(error: StagingError) -> Self {
        Self::Other(error)
    }
}

impl Unfit {
    fn told(self) -> DeliverError {
        match self {
            Self::Sealed(error) if error.is_damage() => DeliverError::halt(format!(
                "{error}; it says which blobs are in an object that may be put already: bring that file back"
            )),
            Self::Sealed(error) | Self::Other(error) => error.retried(),
        }
    }
}
