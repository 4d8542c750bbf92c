//! SIGHUP: the configuration is read again and applied, while what did not change runs on.
//!
//! A configuration that is wrong, or that cannot be applied while mailtrail runs, is refused as a whole: the one in
//! use stays, and everything that is wrong with the new one goes to the log, to `status` and to `/readyz`, and
//! `mailtrail_config_accepted` is 0 until another one is accepted.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use chrono::{DateTime, Utc};

use crate::{
    config::{self, Config, ConfigError},
    http::Server,
    live::RefusedConfig,
    pipeline::{ApplyError, Pipeline},
};

/// What became of the configurations that were read.
#[derive(Debug, Clone)]
pub(crate) struct Reloads(Arc<Mutex<ReloadState>>);

/// The configuration in use, and the one that is not.
#[derive(Debug, Clone)]
pub(crate) struct ReloadState {
    /// When the one in use was applied.
    pub(crate) applied: DateTime<Utc>,
    /// The last one that was read, when it was refused.
    pub(crate) refused: Option<RefusedConfig>,
}

impl Reloads {
    /// A configuration is in use.
    pub(crate) fn new() -> Self {
        Self(Arc::new(Mutex::new(ReloadState { applied: Utc::now(), refused: None })))
    }

    /// How it stands.
    pub(crate) fn state(&self) -> ReloadState {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, ReloadState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads the configuration again and applies it.
pub(crate) struct Reloader {
    path: PathBuf,
    pipeline: Arc<Pipeline>,
    server: Arc<Server>,
    reloads: Reloads,
}

impl Reloader {
    /// For the file that the configuration in use was read from.
    pub(crate) fn new(path: PathBuf, pipeline: Arc<Pipeline>, server: Arc<Server>, reloads: Reloads) -> Self {
        Self { path, pipeline, server, reloads }
    }

    /// Does it once. Dropping it in between is fine when everything is stopped next.
    ///
    /// # Errors
    ///
    /// When the ledger failed for good: the process has to stop. A configuration that is refused is no error.
    pub(crate) async fn reload(&self) -> Result<(), ledger::LedgerError> {
        let path = self.path.display();
        tracing::info!(config = %path, "reading the configuration again");
        match self.try_reload().await {
            Ok(()) => Ok(()),
            Err(ApplyError::Ledger(error)) => Err(error),
            Err(ApplyError::Refused(problems)) => {
                tracing::error!(config = %path, "the configuration is refused; the one before stays in use");
                for problem in &problems {
                    tracing::error!("{problem}");
                }
                self.reloads.lock().refused = Some(RefusedConfig { at: Utc::now(), problems });
                Ok(())
            }
        }
    }

    async fn try_reload(&self) -> Result<(), ApplyError> {
        let refused = |problem: String| ApplyError::Refused(vec![problem]);
        let path = self.path.clone();
        let read = tokio::task::spawn_blocking(move || config::load(Some(&path)));
        let config: Config = match read.await.map_err(|error| refused(error.to_string()))? {
            Ok(config) => config,
            Err(ConfigError::Invalid(invalid)) => {
                return Err(ApplyError::Refused(invalid.to_string().lines().map(str::to_owned).collect()));
            }
            Err(error) => return Err(refused(error.to_string())),
        };
        let address =
            self.server.prepare(config.http.listen).await.map_err(|error| refused(error.to_string()))?;
        let changes = self.pipeline.apply(&config).await?;
        if let Some(bound) = address {
            self.server.switch(bound).await;
        }
        *self.reloads.lock() = ReloadState { applied: Utc::now(), refused: None };
        tracing::info!("the configuration is applied: {changes}");
        for left in changes.left_over() {
            tracing::warn!(
                "{} deliveries are still pending for the sink {}, which is no longer configured: configure it again, or \
                 give them up with `mailtrail sinks forget {}`",
                left.pending,
                left.name,
                left.name
            );
        }
        Ok(())
    }
}
