//! `mailtrail check`: the configuration, then each credential, permission, subscription and sink, each tried by itself.

use std::{fmt::Write, path::Path, process::ExitCode};

use chrono::{TimeDelta, Utc};
use entra::{TokenError, TokenSource};
use ingest::{Listing, api::subscriptions::Subscription, grants, health::Trouble};
use ledger::{Inspector, OpenError};
use nix::unistd::{AccessFlags, access};
use reqwest::Client;

use super::{Failure, found, load, print, runtime};
use crate::{
    cli::CheckArgs,
    config::{Config, Credentials, TenantConfig},
    pipeline::{self, Found},
};

/// What making files in a directory takes.
const WRITE: AccessFlags = AccessFlags::W_OK.union(AccessFlags::X_OK);

/// What was found, a line each.
#[derive(Default)]
struct Findings {
    text: String,
    problems: u32,
}

impl Findings {
    fn good(&mut self, what: &str, how: &str) {
        self.line("ok", what, how);
    }

    fn note(&mut self, what: &str, how: &str) {
        self.line("note", what, how);
    }

    fn problem(&mut self, what: &str, how: &str) {
        self.problems += 1;
        self.line("FAIL", what, how);
    }

    fn line(&mut self, verdict: &str, what: &str, how: &str) {
        // What a server said may hold anything; a line stays a line.
        let how: String = how.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        let _ = writeln!(self.text, "{verdict:<5} {what}: {how}");
    }
}

/// Runs the command.
pub(super) fn run(args: CheckArgs) -> Result<ExitCode, Failure> {
    let config = load(&args.config)?;
    let mut findings = Findings::default();
    findings.good("configuration", &config.path.display().to_string());
    check_state(&config, &mut findings);
    runtime()?.block_on(async {
        let mut network = true;
        match pipeline::http_client(&config.network).await {
            Ok(http) => {
                for tenant in &config.tenants {
                    let what = format!("tenant {}", tenant.name);
                    if args.offline {
                        note_identity(tenant, &what, &mut findings);
                    } else {
                        check_tenant(tenant, &what, &http, &mut findings).await;
                    }
                }
            }
            Err(error) => {
                network = false;
                findings.problem("network", &error.to_string());
            }
        }
        if args.offline {
            check_secrets(&config, &mut findings).await;
        } else {
            // What is wrong with the network is said once.
            for sink in config.sinks.iter().filter(|sink| network || !sink.uses_network()) {
                let what = format!("sink {}", sink.name);
                let ledger = Inspector::open(&config.state.directory).ok();
                match pipeline::probe(&config, sink, ledger, args.send_test_event).await {
                    Ok(Found::Works) => findings.good(&what, "can be delivered to"),
                    Ok(Found::Untried(rest)) => {
                        findings.good(&what, "can be delivered to");
                        let how = "not tried; --send-test-event sends an event that is marked as a test to find out";
                        findings.note(&what, &format!("{rest}: {how}"));
                    }
                    Ok(Found::Took(1)) => findings.good(&what, "took a test event"),
                    Ok(Found::Took(sent)) => findings.good(&what, &format!("took {sent} test events")),
                    Err(error) => findings.problem(&what, &error),
                }
            }
        }
    });
    let ending = match findings.problems {
        0 if args.offline => "nothing wrong was found; nobody was asked".to_owned(),
        0 => "everything works".to_owned(),
        1 => "1 problem".to_owned(),
        problems => format!("{problems} problems"),
    };
    print(&format!("{}\n{ending}\n", findings.text))?;
    Ok(found(findings.problems > 0))
}

fn check_state(config: &Config, findings: &mut Findings) {
    let directory = config.state.directory.display().to_string();
    match Inspector::open(&config.state.directory) {
        Ok(_) if access(&config.state.directory, WRITE).is_err() => {
            findings.problem("state", &format!("{directory} cannot be written to by this user; `mailtrail run` needs that"));
        }
        Ok(_) => findings.good("state", &directory),
        Err(OpenError::Missing { .. }) if config.state.directory.exists() && !config.state.directory.is_dir() => {
            findings.problem("state", &format!("{directory} is no directory; remove it, or set state.directory to another"));
        }
        Err(OpenError::Missing { .. }) if !can_be_made(&config.state.directory) => findings.problem(
            "state",
            &format!("{directory} holds no ledger yet, and this user cannot make one there; `mailtrail run` needs that"),
        ),
        Err(OpenError::Missing { .. }) => {
            findings.note("state", &format!("{directory} holds no ledger yet; `mailtrail run` makes it"));
        }
        // Nothing is wrong: what `run` would do first has not been done.
        Err(error @ OpenError::Older { .. }) => findings.note("state", &error.to_string()),
        Err(error) => findings.problem("state", &error.to_string()),
    }
}

/// Whether files can be made in a directory, or in the closest one above it that exists.
fn can_be_made(directory: &Path) -> bool {
    let directory = std::path::absolute(directory).unwrap_or_else(|_| directory.to_owned());
    let there = directory.ancestors().find(|above| above.exists());
    there.is_some_and(|there| there.is_dir() && access(there, WRITE).is_ok())
}

/// Whether the secrets can be read, without using them.
async fn check_secrets(config: &Config, findings: &mut Findings) {
    for (key, secret) in &config.secrets {
        match secret.read().await {
            Ok(_) => findings.good(key, "the secret can be read"),
            Err(error) => {
                let error = TokenError::from(error);
                findings.problem(key, &with_advice(&error.to_string(), error.advice()));
            }
        }
    }
}

/// Says that there is no secret to look at.
fn note_identity(tenant: &TenantConfig, what: &str, findings: &mut Findings) {
    if matches!(
        tenant.credentials,
        Credentials::ManagedIdentity { .. } | Credentials::WorkloadIdentity { .. }
    ) {
        findings.note(what, "the identity of the platform was not tried");
    }
}

async fn check_tenant(tenant: &TenantConfig, what: &str, http: &Client, findings: &mut Findings) {
    let tokens = match tenant.token_source(http.clone()) {
        Ok(tokens) => tokens,
        Err(error) => return findings.problem(what, &error.to_string()),
    };
    if !check_login(tenant, what, &tokens, findings).await {
        return;
    }
    let api = match tenant.collector_config(Listing::Once).api(tokens, http.clone()) {
        Ok(api) => api,
        Err(error) => return findings.problem(what, &error.to_string()),
    };
    match api.subscriptions().await {
        Ok(subscriptions) => {
            for content_type in &tenant.content_types {
                let what = format!("{what} {content_type}");
                match subscriptions.of(*content_type) {
                    Subscription::Enabled => findings.good(&what, "the subscription is enabled"),
                    Subscription::Absent => findings.note(
                        &what,
                        "there is no subscription yet; `mailtrail run` starts it, and the first content comes within 12 \
                         hours. If auditing is off in the tenant, the start is refused, which cannot be seen before: the \
                         log of `run` and `mailtrail status` say so then",
                    ),
                    Subscription::Disabled => findings.problem(
                        &what,
                        "the subscription is disabled: an administrator or the service has stopped it, or auditing was \
                         turned off, and what happens meanwhile is lost; `mailtrail run` starts it again",
                    ),
                }
            }
        }
        Err(error) => findings.problem(what, &with_advice(&error.to_string(), &error.advice())),
    }
}

/// Logs in and looks at what the token allows; whether there is a token.
async fn check_login(
    tenant: &TenantConfig,
    what: &str,
    tokens: &TokenSource,
    findings: &mut Findings,
) -> bool {
    let token = match tokens.token().await {
        Ok(token) => token,
        Err(error) => {
            findings.problem(what, &with_advice(&error.to_string(), error.advice()));
            return false;
        }
    };
    if let Ok(Some(end)) = tokens.certificate_ends().await {
        let how = format!("the certificate is good until {}", end.format("%Y-%m-%d"));
        let soon = end - Utc::now() < TimeDelta::days(30);
        if soon { findings.note(what, &format!("{how}: renew it soon")) } else { findings.good(what, &how) }
    }
    let Some(claims) = token.claims() else {
        findings.note(what, "logged in; the token cannot be read, so its roles were not checked");
        return true;
    };
    let id = tenant.tenant_id.to_string();
    if let Some(other) = claims.tenant_id.as_deref().filter(|other| !other.eq_ignore_ascii_case(&id)) {
        findings.problem(what, &format!("the token is for tenant {other}: `tenant_id` says {id}"));
    }
    let missing = grants::missing(&claims, &tenant.content_types);
    if !missing.contains(&grants::READ) {
        findings.good(what, "logged in, with the role ActivityFeed.Read");
    }
    for role in missing {
        let Trouble { error, advice } = grants::lacks(role);
        findings.problem(what, &with_advice(&error, &advice));
    }
    true
}

fn with_advice(error: &str, advice: &str) -> String {
    if advice.is_empty() { error.to_owned() } else { format!("{error}; {advice}") }
}
