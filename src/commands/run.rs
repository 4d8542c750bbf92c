//! `mailtrail run`: collects and delivers, until it is stopped or, with `--until-idle`, until nothing is left to do.

use std::{process::ExitCode, sync::Arc};

use indicatif::MultiProgress;
use ingest::Listing;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::{Failure, load, print, runtime};
use crate::{
    cli::RunArgs,
    config::Config,
    control,
    http::{Bound, Server},
    idle::{self, Ending},
    live::Live,
    pipeline::{self, Pipeline, StartError},
    progress::Progress,
    reload::{Reloader, Reloads},
    summary::Summary,
};

/// How a run ended.
#[derive(Debug)]
pub(super) enum Ended {
    /// A signal asked for it.
    Stopped,
    /// Nothing is left to do.
    Idle,
    /// Only this is left, and it keeps failing.
    Stuck(Vec<String>),
    /// Something broke.
    Broken(String),
}

/// Runs the command.
pub(super) fn run(args: RunArgs, shown: MultiProgress) -> Result<ExitCode, Failure> {
    let config = load(&args.config)?;
    let (ended, summary) = runtime()?.block_on(collect(&config, args.until_idle, Hangup::Reloads, &shown))?;
    if args.until_idle {
        print(&summary.to_string())?;
    }
    match ended {
        Ended::Stopped | Ended::Idle => Ok(ExitCode::SUCCESS),
        Ended::Stuck(left) => Err(Failure::Problem(format!(
            "stopped, because only this is left and it keeps failing; nothing is lost, the next run goes on:\n  {}",
            left.join("\n  ")
        ))),
        Ended::Broken(why) => Err(Failure::Problem(why)),
    }
}

/// What SIGHUP does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hangup {
    /// The configuration is read again.
    Reloads,
    /// It ends the process, as it does by itself: there is no file to read again.
    Ends,
}

/// Collects as it is configured, and tells what happened.
pub(super) async fn collect(
    config: &Config,
    until_idle: bool,
    hangup: Hangup,
    shown: &MultiProgress,
) -> Result<(Ended, Summary), Failure> {
    let bound = Bound::new(config.http.listen).await.map_err(Failure::problem)?;
    let opened = config.clone();
    let ledger = tokio::task::spawn_blocking(move || pipeline::open_ledger(&opened))
        .await
        .map_err(Failure::problem)?
        .map_err(Failure::problem)?;
    let listing = if until_idle { Listing::Once } else { Listing::Forever };
    let pipeline = match Pipeline::start(config, ledger.clone(), listing).await {
        Ok(pipeline) => pipeline,
        Err(error) => {
            let _ = tokio::task::spawn_blocking(move || ledger.close()).await;
            return Err(match error {
                // Trying again does not make it better.
                StartError::Sink { .. } => Failure::Usage(error.to_string()),
                error => Failure::problem(error),
            });
        }
    };
    let reloads = Reloads::new();
    let live = Live::of(Arc::clone(&pipeline), reloads.clone());
    let server = Arc::new(Server::start(live.clone(), bound));
    let control_stop = CancellationToken::new();
    let socket = {
        let (state, stop) = (config.state.directory.clone(), control_stop.clone());
        tokio::spawn(async move {
            if let Err(error) = control::serve(state, live, stop).await {
                tracing::error!(%error, "commands cannot reach this process");
            }
        })
    };
    let reloader = (hangup == Hangup::Reloads)
        .then(|| Reloader::new(config.path.clone(), Arc::clone(&pipeline), Arc::clone(&server), reloads));
    let progress = Progress::new(shown);
    let ended = tokio::select! {
        ended = wait(&pipeline, until_idle, reloader.as_ref()) => ended,
        () = async { if until_idle { progress.follow(&pipeline).await } else { std::future::pending().await } } => {
            unreachable!("the line is drawn until it is dropped")
        }
    };
    progress.finish();
    if matches!(ended, Ok(Ended::Stopped)) {
        tracing::info!("stopping: what is under way is finished first");
    }
    control_stop.cancel();
    if let Err(error) = socket.await {
        tracing::error!(%error, "the control socket ended badly");
    }
    let summary = Summary::of(&pipeline);
    pipeline.stop().await;
    server.stop().await;
    Ok((ended?, summary))
}

async fn wait(pipeline: &Pipeline, until_idle: bool, reloader: Option<&Reloader>) -> Result<Ended, Failure> {
    let mut terminate = signal(SignalKind::terminate()).map_err(Failure::problem)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(Failure::problem)?;
    let mut hangups = match reloader {
        Some(reloader) => Some((signal(SignalKind::hangup()).map_err(Failure::problem)?, reloader)),
        None => None,
    };
    let idle =
        async { if until_idle { idle::until_idle(pipeline).await } else { std::future::pending().await } };
    tokio::pin!(idle);
    loop {
        let reloader = tokio::select! {
            _ = terminate.recv() => return Ok(Ended::Stopped),
            _ = interrupt.recv() => return Ok(Ended::Stopped),
            broken = pipeline.broken() => return Ok(Ended::Broken(broken.to_string())),
            ending = &mut idle => return Ok(match ending {
                Ok(Ending::Idle) => Ended::Idle,
                Ok(Ending::Stuck(left)) => Ended::Stuck(left),
                Err(error) => Ended::Broken(error.to_string()),
            }),
            reloader = hung_up(&mut hangups) => reloader,
        };
        // Whether anything is left to do is not asked meanwhile: what is stopped and not yet started again would
        // look as if nothing were.
        tokio::select! {
            _ = terminate.recv() => return Ok(Ended::Stopped),
            _ = interrupt.recv() => return Ok(Ended::Stopped),
            broken = pipeline.broken() => return Ok(Ended::Broken(broken.to_string())),
            reloaded = reloader.reload() => if let Err(error) = reloaded {
                return Ok(Ended::Broken(error.to_string()));
            },
        }
    }
}

/// Resolves when a SIGHUP comes that is to be heeded.
async fn hung_up<'r>(hangups: &mut Option<(Signal, &'r Reloader)>) -> &'r Reloader {
    if let Some((signal, reloader)) = hangups
        && signal.recv().await.is_some()
    {
        return reloader;
    }
    std::future::pending().await
}
