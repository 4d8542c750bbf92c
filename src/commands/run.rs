//! `mailtrail run`: collects and delivers, until it is stopped or, with `--until-idle`, until nothing is left to do.

use std::process::ExitCode;

use indicatif::MultiProgress;
use ingest::Listing;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::{Failure, load, print, runtime};
use crate::{
    cli::RunArgs,
    config::Config,
    control,
    idle::{self, Ending},
    live,
    pipeline::{self, Pipeline},
    progress::Progress,
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
    let (ended, summary) = runtime()?.block_on(collect(&config, args.until_idle, &shown))?;
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

/// Collects as it is configured, and tells what happened.
pub(super) async fn collect(
    config: &Config,
    until_idle: bool,
    shown: &MultiProgress,
) -> Result<(Ended, Summary), Failure> {
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
            return Err(Failure::problem(error));
        }
    };
    let control_stop = CancellationToken::new();
    let socket = {
        let (state, stop) = (config.state.directory.clone(), control_stop.clone());
        let live = live::Live::of(&pipeline);
        tokio::spawn(async move {
            if let Err(error) = control::serve(state, ledger, live, stop).await {
                tracing::error!(%error, "commands cannot reach this process");
            }
        })
    };
    let progress = Progress::new(shown);
    let ended = tokio::select! {
        ended = wait(&pipeline, until_idle) => ended?,
        () = async { if until_idle { progress.follow(&pipeline).await } else { std::future::pending().await } } => {
            unreachable!("the line is drawn until it is dropped")
        }
    };
    progress.finish();
    if matches!(ended, Ended::Stopped) {
        tracing::info!("stopping: what is under way is finished first");
    }
    control_stop.cancel();
    if let Err(error) = socket.await {
        tracing::error!(%error, "the control socket ended badly");
    }
    let summary = Summary::of(&pipeline);
    pipeline.stop().await;
    Ok((ended, summary))
}

async fn wait(pipeline: &Pipeline, until_idle: bool) -> Result<Ended, Failure> {
    let mut terminate = signal(SignalKind::terminate()).map_err(Failure::problem)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(Failure::problem)?;
    let idle =
        async { if until_idle { idle::until_idle(pipeline).await } else { std::future::pending().await } };
    Ok(tokio::select! {
        _ = terminate.recv() => Ended::Stopped,
        _ = interrupt.recv() => Ended::Stopped,
        broken = pipeline.broken() => Ended::Broken(broken.to_string()),
        ending = idle => match ending {
            Ok(Ending::Idle) => Ended::Idle,
            Ok(Ending::Stuck(left)) => Ended::Stuck(left),
            Err(error) => Ended::Broken(error.to_string()),
        },
    })
}
