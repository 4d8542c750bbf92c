//! `mailtrail simulate`: a simulated tenant, for whoever builds or tries a collector.

use std::{fmt::Write, process::ExitCode};

use chrono::Utc;
use simulator::{Simulator, SimulatorConfig};
use tokio::signal::unix::{SignalKind, signal};

use super::{Failure, print, runtime};
use crate::cli::SimulateArgs;

/// Runs the command.
pub(super) fn run(args: SimulateArgs) -> Result<ExitCode, Failure> {
    let config = args.simulator_config(Utc::now());
    runtime()?.block_on(async {
        let described = config.clone();
        let running = Simulator::start(config, args.listen).await.map_err(Failure::problem)?;
        print(&configuration(&described, &running.base_url()))?;
        let mut terminate = signal(SignalKind::terminate()).map_err(Failure::problem)?;
        tokio::select! {
            _ = terminate.recv() => {}
            interrupted = tokio::signal::ctrl_c() => interrupted.map_err(Failure::problem)?,
        }
        running.shutdown().await;
        Ok(ExitCode::SUCCESS)
    })
}

/// A configuration that collects the simulated tenants, to be taken as it is.
pub(super) fn configuration(config: &SimulatorConfig, origin: &str) -> String {
    let mut text = format!(
        "# A simulated tenant is served at {origin}. Save this as mailtrail.toml, then:\n\
         #   SIMULATED_SECRET_0=simulated-secret mailtrail run --config mailtrail.toml\n"
    );
    for (number, tenant) in config.tenants.iter().enumerate().skip(1) {
        let secret = tenant.client_secret.as_deref().unwrap_or_default();
        let _ = writeln!(text, "# (and SIMULATED_SECRET_{number}={secret})");
    }
    text.push_str("\n[state]\ndirectory = \"mailtrail-state\"\n");
    let content_types: Vec<_> = config.content_types.iter().map(|kind| format!("\"{kind}\"")).collect();
    for (number, tenant) in config.tenants.iter().enumerate() {
        let _ = write!(
            text,
            "\n[tenants.simulated{number}]\ntenant_id = \"{}\"\nclient_id = \"{}\"\n\
             client_secret = {{ env = \"SIMULATED_SECRET_{number}\" }}\ncloud = \"custom\"\nauthority = \"{origin}\"\n\
             api = \"{origin}\"\ncontent_types = [{}]\n",
            tenant.tenant_id,
            tenant.client_id,
            content_types.join(", ")
        );
    }
    text.push_str("\n[sinks.files]\ntype = \"file\"\ndirectory = \"mailtrail-out\"\n");
    text
}

#[cfg(test)]
mod tests {
    use simulator::TenantConfig;

    use super::*;
    use crate::config::Config;

    #[test]
    fn the_printed_configuration_is_one() {
        let simulated = SimulatorConfig {
            tenants: (0..3).map(TenantConfig::numbered).collect(),
            ..SimulatorConfig::default()
        };
        let text = configuration(&simulated, "http://127.0.0.1:9400");
        let config = Config::parse("mailtrail.toml".as_ref(), text.as_bytes()).unwrap();
        assert_eq!(config.tenants.len(), 3);
        assert_eq!(config.sinks.len(), 1);
    }
}
