//! A simulated tenant and a directory with a configuration that collects it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;
use simulator::{Running, Simulator, SimulatorConfig, TenantConfig};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::{Arrived, Binary, Outcome};

/// A simulated tenant and a directory with a configuration that collects it.
pub(crate) struct World {
    directory: TempDir,
    runtime: Runtime,
    simulator: Option<Running>,
    tenants: Vec<TenantConfig>,
    content_types: Vec<&'static str>,
}

impl World {
    /// Starts the simulation.
    pub(crate) fn new(config: SimulatorConfig) -> World {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let tenants = config.tenants.clone();
        let content_types = config.content_types.iter().map(|kind| kind.as_str()).collect();
        let address = ([127, 0, 0, 1], 0).into();
        let simulator = runtime.block_on(Simulator::start(config, address)).expect("the simulator starts");
        let directory = tempfile::tempdir().expect("a directory");
        World { directory, runtime, simulator: Some(simulator), tenants, content_types }
    }

    /// The simulation.
    pub(crate) fn simulator(&self) -> &Running {
        self.simulator.as_ref().expect("it runs")
    }

    /// Where everything is.
    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Where the sink of this name writes.
    pub(crate) fn out(&self, sink: &str) -> PathBuf {
        self.path().join("out").join(sink)
    }

    /// Writes `mailtrail.toml` with one file sink, in the raw view, called `files`.
    pub(crate) fn configure(&self) -> &Self {
        self.configure_with("", &[("files", "view = \"raw\"")])
    }

    /// Writes `mailtrail.toml`: `tenant` are further lines of each tenant, `sinks` are file sinks with further lines.
    pub(crate) fn configure_with(&self, tenant: &str, sinks: &[(&str, &str)]) -> &Self {
        self.configure_all("", tenant, sinks)
    }

    /// Like [`World::configure_with`], with further lines of `[state]`.
    pub(crate) fn configure_all(&self, state: &str, tenant: &str, sinks: &[(&str, &str)]) -> &Self {
        let mut text = String::new();
        for (name, lines) in sinks {
            let out = self.out(name);
            writeln!(text, "[sinks.{name}]\ntype = \"file\"\ndirectory = {out:?}\n{lines}").expect("text");
        }
        self.configure_sinks(state, tenant, &text)
    }

    /// Writes `mailtrail.toml` with these sections of sinks.
    pub(crate) fn configure_sinks(&self, state: &str, tenant: &str, sinks: &str) -> &Self {
        let mut text = format!("[state]\ndirectory = {:?}\n{state}\n", self.path().join("state"));
        let origin = self.simulator().base_url();
        for (number, simulated) in self.tenants.iter().enumerate() {
            let secret = self.path().join(format!("secret-{number}"));
            fs::write(&secret, simulated.client_secret.as_deref().unwrap_or_default()).expect("a secret");
            writeln!(
                text,
                "[tenants.tenant{number}]\ntenant_id = \"{}\"\nclient_id = \"{}\"\nclient_secret = {{ file = {secret:?} }}\n\
                 cloud = \"custom\"\nauthority = \"{origin}\"\napi = \"{origin}\"\ncontent_types = {:?}\n{tenant}",
                simulated.tenant_id, simulated.client_id, self.content_types
            )
            .expect("text");
        }
        text.push_str(sinks);
        fs::write(self.path().join("mailtrail.toml"), text).expect("a configuration");
        self
    }

    /// Changes `mailtrail.toml` as it is.
    pub(crate) fn edit(&self, change: impl FnOnce(String) -> String) {
        let path = self.path().join("mailtrail.toml");
        let text = fs::read_to_string(&path).expect("a configuration");
        fs::write(&path, change(text)).expect("a configuration");
    }

    /// Starts a command in the directory.
    pub(crate) fn start(&self, arguments: &[&str]) -> Binary {
        Binary::start(self.path(), arguments)
    }

    /// Runs a command to its end.
    pub(crate) fn mailtrail(&self, arguments: &[&str]) -> Outcome {
        self.start(arguments).wait()
    }

    /// The same with these variables in its environment.
    pub(crate) fn mailtrail_with(&self, arguments: &[&str], variables: &[(&str, &str)]) -> Outcome {
        Binary::start_with(self.path(), arguments, variables).wait()
    }

    /// `run --until-idle`, which must succeed.
    pub(crate) fn collect(&self) -> Outcome {
        self.mailtrail(&["run", "--until-idle"]).ends_with(0)
    }

    /// What the sink called `files` has written.
    pub(crate) fn arrived(&self) -> Arrived {
        Arrived::read(&self.out("files"))
    }

    /// Every record arrived exactly once, and `reconcile` agrees.
    pub(crate) fn is_complete(&self) {
        self.arrived().is_exactly(&self.simulator().truth());
        self.mailtrail(&["reconcile"]).ends_with(0);
    }

    /// What every sink has to get: the ids of all records.
    pub(crate) fn due(&self) -> BTreeSet<String> {
        self.simulator().truth().records().filter_map(|(_, _, id)| id).collect()
    }

    /// Every record came, and none that belongs to nobody. Gives how many came more than once, and how many `reconcile`
    /// counts as sent again, which are at least as many.
    pub(crate) fn came_at_least_once(&self, ids: &BTreeMap<String, usize>, sink: &str) -> (usize, usize) {
        let due = self.due();
        let missing = due.iter().filter(|id| !ids.contains_key(*id)).count();
        assert_eq!(missing, 0, "{missing} of {} records are missing", due.len());
        let surplus = ids.keys().filter(|id| !due.contains(*id)).count();
        assert_eq!(surplus, 0, "{surplus} records belong to nobody");
        let twice = ids.values().map(|times| times - 1).sum();
        let resent = self.sum(sink, "resent");
        assert!(twice <= resent, "{twice} records came again, {resent} are counted");
        (twice, resent)
    }

    /// A number of `reconcile`, which agrees, for a sink.
    pub(crate) fn sum(&self, sink: &str, what: &str) -> usize {
        let outcome = self.mailtrail(&["reconcile", "--json"]);
        let report: Value = serde_json::from_str(&outcome.stdout).expect("JSON");
        assert_eq!(report["agrees"], true, "{report}");
        report["total"]["sinks"][sink][what].as_u64().expect("a number") as usize
    }

    /// Waits until the running process says that the sink is in this state; gives its error.
    pub(crate) fn until_sink_is(&self, sink: &str, state: &str) -> String {
        let mut error = String::new();
        self.until(&format!("the sink is {state}"), || {
            let outcome = self.mailtrail(&["status", "--json"]);
            let status: Value = serde_json::from_str(&outcome.stdout).unwrap_or_default();
            let sinks = status["running"]["sinks"].as_array().cloned().unwrap_or_default();
            let of = sinks.into_iter().find(|of| of["name"] == sink).unwrap_or_default();
            error = of["error"].as_str().unwrap_or_default().to_owned();
            of["state"] == state
        });
        error
    }

    /// Waits until something is so.
    pub(crate) fn until(&self, what: &str, mut so: impl FnMut() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(120);
        while !so() {
            assert!(Instant::now() < deadline, "waited in vain until {what}");
            thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if let Some(simulator) = self.simulator.take() {
            self.runtime.block_on(simulator.shutdown());
        }
    }
}
