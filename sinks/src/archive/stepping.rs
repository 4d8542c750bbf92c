//! The steps of objects: sealed, put, cleared away.

use std::sync::PoisonError;

use archive::{Put, SealedObject, Source};
use futures_util::{StreamExt as _, stream};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::{
    ArchiveSink,
    desk::{Desk, Unsealed},
    plan::{Due, Offer},
    span,
    staging::{Kind, StagingError},
};
use crate::{
    delivery_ledger::WorkId,
    holding::Advance,
    sink::{DeliverError, Disposition},
};

/// So many objects are put at a time.
const PUT_AT_ONCE: usize = 4;

impl ArchiveSink {
    /// Clears away what a step that is durable now has left.
    pub(super) async fn confirm(&self) {
        let confirmed = self.desk.plan().confirm();
        let left: Vec<(u64, bool)> = match confirmed {
            None | Some(Offer::Manifests(_)) => return,
            Some(Offer::Sealed(sealed)) => sealed.into_iter().map(|(number, _)| (number, false)).collect(),
            Some(Offer::Put(put)) => put.into_iter().map(|number| (number, true)).collect(),
        };
        let removed = self
            .blocking(move |desk, _| {
                left.into_iter().try_for_each(|(number, all)| match all {
                    true => desk.staging.remove_all(number),
                    false => desk.staging.remove(number, Kind::Records),
                })
            })
            .await;
        if let Err(error) = removed {
            // The next start removes what nobody knows.
            warn!(sink = %self.context.name, "a file that is not needed any more stays: {error}");
        }
    }

    /// Seals what is due.
    pub(super) async fn seal(&self, due: Vec<Due>) -> Result<Advance, DeliverError> {
        let ledger = self.ledger().await?;
        let has_columns = due.iter().any(|due| due.formats.parquet.is_some());
        let seal = move |desk: &Desk, cancelled: &CancellationToken| {
            let _turn = desk.sealing.lock().unwrap_or_else(PoisonError::into_inner);
            desk.seal(due, ledger, cancelled)
        };
        let sealed = if has_columns { self.with_columns(seal).await } else { self.blocking(seal).await };
        match sealed {
            Ok(sealed) => {
                self.figures.sealed(sealed.len());
                let state = self.desk.plan().offer(Offer::Sealed(sealed)).encode();
                Ok(Advance { state, arrived: Vec::new(), bytes: 0, reached: false })
            }
            Err(Unsealed { span, error }) if error.is_damage() => {
                // The spool still has its works.
                self.desk.plan().forget(span);
                Err(DeliverError::halt(format!(
                    "{error}; the object is thrown away and made anew from the spool: look for a faulty disk, or for \
                     somebody else who writes to that folder"
                )))
            }
            Err(Unsealed { error, .. }) => Err(error.retried()),
        }
    }

    /// Puts what is sealed.
    pub(super) async fn put(&self, sealed: Vec<(u64, SealedObject)>) -> Result<Advance, DeliverError> {
        let store = self.store().await?;
        let mut puts = stream::iter(sealed)
            .map(|(number, object)| {
                let (store, staging) = (&store, &self.desk.staging);
                async move {
                    let put = async {
                        for (index, of) in (0..).zip(&object.files) {
                            let file = staging.file(number, Kind::File(index));
                            staging.step().map_err(StagingError::retried)?;
                            let put = store.put_new(&of.path, Source::File(&file), &of.sha256).await;
                            staging.step().map_err(StagingError::retried)?;
                            let how: Put = put.map_err(|error| self.refused(&error))?;
                            self.figures.put(of, how);
                        }
                        Ok::<(), DeliverError>(())
                    };
                    (number, put.await)
                }
            })
            .buffer_unordered(PUT_AT_ONCE);
        let (mut put, mut failed) = (Vec::new(), None);
        while let Some((number, result)) = puts.next().await {
            match result {
                Ok(()) => put.push(number),
                // One of several that need a person goes before what can pass.
                Err(error) => {
                    if failed
                        .as_ref()
                        .is_none_or(|before: &DeliverError| before.disposition != Disposition::Halt)
                    {
                        failed = Some(error);
                    }
                }
            }
        }
        drop(puts);
        match failed {
            Some(error) if put.is_empty() => {
                self.figures.failed();
                Err(error)
            }
            Some(error) => {
                // Those that are put are settled first. The others are tried again after that.
                self.figures.failed();
                warn!(sink = %self.context.name, "not every object could be put: {error}");
                self.settled(put).await
            }
            None => self.settled(put).await,
        }
    }

    /// The step that settles the works of objects that are put.
    async fn settled(&self, put: Vec<u64>) -> Result<Advance, DeliverError> {
        let (on_disk, bytes) = {
            let plan = self.desk.plan();
            let on_disk: Vec<_> = put.iter().filter_map(|number| plan.on_disk(*number)).collect();
            let bytes = put.iter().filter_map(|number| plan.span(*number)).map(|span| span.whole.bytes);
            (on_disk, bytes.sum())
        };
        let works = self
            .blocking(move |desk, _| {
                let mut works: Vec<WorkId> = Vec::new();
                for of in &on_disk {
                    works.extend(desk.staging.works(of)?.1.iter().map(span::Entry::work));
                }
                Ok::<_, StagingError>(works)
            })
            .await;
        // The object is in the archive and its works cannot be named: nobody but a person can help.
        let arrived = works.map_err(|error| match error.is_damage() {
            true => DeliverError::halt(format!("{error}; bring that file back: its object is put already")),
            false => error.retried(),
        })?;
        let state = self.desk.plan().offer(Offer::Put(put)).encode();
        Ok(Advance { state, arrived, bytes, reached: true })
    }
}
