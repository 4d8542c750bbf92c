//! What is deployed with: the image, docker-compose.yml, alerts and the dashboard, held together and against the code.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use yaml_rust2::{Yaml, YamlLoader};

pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

pub(crate) fn yaml(path: &str) -> Yaml {
    let mut documents =
        YamlLoader::load_from_str(&read(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
    assert_eq!(documents.len(), 1, "{path}");
    documents.remove(0)
}

fn text(yaml: &Yaml) -> &str {
    yaml.as_str().unwrap_or_else(|| panic!("{yaml:?} is a text"))
}

fn list(yaml: &Yaml) -> impl Iterator<Item = &Yaml> {
    yaml.as_vec().into_iter().flatten()
}

fn entries(yaml: &Yaml) -> impl Iterator<Item = (&str, &Yaml)> {
    yaml.as_hash().into_iter().flatten().map(|(key, value)| (text(key), value))
}

/// The configuration of the compose set.
fn config() -> toml::Table {
    read("deploy/mailtrail.toml").parse().expect("TOML")
}

#[test]
fn every_image_has_a_fixed_version_and_what_is_published_is_for_this_machine_only() {
    let compose = yaml("docker-compose.yml");
    let volumes: BTreeSet<&str> = entries(&compose["volumes"]).map(|(name, _)| name).collect();
    let services: BTreeSet<&str> = entries(&compose["services"]).map(|(name, _)| name).collect();
    assert_eq!(services.len(), 7, "{services:?}");
    for (name, service) in entries(&compose["services"]) {
        let image = text(&service["image"]);
        let tag = image.rsplit_once(':').map(|(_, tag)| tag);
        assert!(tag.is_some_and(|tag| !tag.is_empty() && tag != "latest"), "{name}: {image}");
        for port in list(&service["ports"]) {
            assert!(text(port).starts_with("127.0.0.1:"), "{name} publishes {port:?} to everybody");
        }
        for mount in list(&service["volumes"]) {
            let source = text(mount).split(':').next().expect("a source");
            match source.strip_prefix("./") {
                Some(path) => {
                    assert!(root().join(path).exists(), "{name} mounts {path}, which is not there");
                    assert!(text(mount).ends_with(":ro"), "{name} may write to {path}");
                }
                None => assert!(volumes.contains(source), "{name} mounts {source}, which is no volume"),
            }
        }
        for (other, _) in entries(&service["depends_on"]) {
            assert!(services.contains(other), "{name} waits for {other}, which is not there");
        }
        assert_eq!(service["privileged"], Yaml::BadValue, "{name}");
    }
}

#[test]
fn the_services_find_each_other() {
    let compose = yaml("docker-compose.yml");
    let (services, config) = (&compose["services"], config());
    let (tenant, mailtrail) = (&services["tenant"], &services["mailtrail"]);
    let contoso = &config["tenants"]["contoso"];

    // The simulated tenant is on mailtrail's own machine, as far as both can tell.
    assert_eq!(text(&mailtrail["network_mode"]), "service:tenant");
    let command: Vec<_> = list(&tenant["command"]).map(text).collect();
    let listen = command.iter().position(|word| *word == "--listen").expect("it listens");
    for key in ["authority", "api"] {
        assert_eq!(contoso[key].as_str(), Some(format!("http://{}", command[listen + 1]).as_str()), "{key}");
    }
    let simulated = simulator::TenantConfig::numbered(0);
    assert_eq!(contoso["tenant_id"].as_str(), Some(simulated.tenant_id.to_string().as_str()));
    assert_eq!(contoso["client_id"].as_str(), Some(simulated.client_id.as_str()));
    assert_eq!(
        Some(text(&mailtrail["environment"]["CONTOSO_SECRET"])),
        simulated.client_secret.as_deref(),
        "the simulated tenant takes it"
    );

    // Prometheus asks where mailtrail answers.
    let port =
        config["http"]["listen"].as_str().and_then(|address| address.rsplit_once(':')).expect("a port").1;
    let prometheus = yaml("deploy/prometheus/prometheus.yml");
    let job = &prometheus["scrape_configs"][0];
    assert_eq!(text(&job["job_name"]), "mailtrail");
    assert_eq!(text(&job["static_configs"][0]["targets"][0]), format!("mailtrail:{port}"));
    assert_eq!(text(&tenant["networks"]["default"]["aliases"][0]), "mailtrail");
    assert_eq!(text(&tenant["ports"][0]), format!("127.0.0.1:{port}:{port}"));
    assert!(read("Dockerfile").contains(&format!("\nEXPOSE {port}\n")));

    // Kafka is where it says that it is, and has the topics.
    let stream = &config["sinks"]["stream"];
    let advertised = text(&services["kafka"]["environment"]["KAFKA_ADVERTISED_LISTENERS"]);
    assert_eq!(
        advertised,
        format!("PLAINTEXT://{}", stream["bootstrap_servers"][0].as_str().expect("a broker"))
    );
    let topics = text(&services["topics"]["command"][0]);
    for kind in contoso["content_types"].as_array().expect("content types") {
        let topic = stream["topic"].as_str().expect("a topic");
        let topic = topic.replace("{content_type}", kind.as_str().expect("a text"));
        assert!(topics.contains(&format!("--topic {topic} ")), "{topic} is not made");
    }
    let progress =
        topics.lines().find(|line| line.contains("--topic mailtrail.progress ")).expect("it is made");
    assert!(progress.contains("cleanup.policy=compact"), "{progress}");
    assert_eq!(services["topics"]["image"], services["kafka"]["image"]);

    // Splunk knows the token, and acknowledges.
    let soc = &config["sinks"]["soc"];
    assert_eq!(soc["acknowledgement"].as_str(), Some("indexer"));
    let splunk = yaml("deploy/splunk/default.yml");
    let conf = |key: &str| {
        let found = list(&splunk["splunk"]["conf"]).find(|conf| text(&conf["key"]) == key).expect(key);
        &found["value"]["content"]
    };
    let token = &conf("inputs")["http://mailtrail"];
    assert_eq!(token["useACK"].as_i64(), Some(1));
    assert_eq!(token["token"], mailtrail["environment"]["HEC_TOKEN"]);
    assert_eq!(soc["index"].as_str(), Some(text(&token["index"])));
    assert!(!conf("indexes")[text(&token["index"])].is_badvalue(), "the index is made");
    let hec = conf("inputs")["http"]["port"].as_i64().expect("a port");
    assert_eq!(soc["url"].as_str(), Some(format!("http://splunk:{hec}").as_str()));

    // Every secret that the configuration wants is there.
    let wanted = read("deploy/mailtrail.toml");
    for name in wanted.split("env = \"").skip(1).filter_map(|rest| rest.split('"').next()) {
        assert!(!mailtrail["environment"][name].is_badvalue(), "{name} is not set");
    }
}

#[test]
fn the_image_is_small_and_runs_without_rights() {
    let dockerfile = read("Dockerfile");
    let lines: Vec<&str> = dockerfile.lines().collect();
    let stages: Vec<usize> =
        lines.iter().enumerate().filter(|(_, line)| line.starts_with("FROM ")).map(|(at, _)| at).collect();
    assert_eq!(stages.len(), 2, "one to build, one to run");
    for stage in &stages {
        let image = lines[*stage].split(' ').nth(1).expect("an image");
        let tag = image.rsplit_once(':').map(|(_, tag)| tag);
        assert!(tag.is_some_and(|tag| tag != "latest"), "{image}");
    }
    let last = &lines[stages[1]..];
    assert!(last[0].contains("distroless"), "{}", last[0]);
    assert!(last.iter().all(|line| !line.starts_with("RUN ")), "there is no shell in it");
    let user = last.iter().find_map(|line| line.strip_prefix("USER ")).expect("a user");
    let ids: Vec<u32> =
        user.split(':').map(|id| id.parse().expect("a number, which any platform can check")).collect();
    assert!(ids.len() == 2 && ids.iter().all(|id| *id > 0), "{user}");
    let health = last.iter().position(|line| line.starts_with("HEALTHCHECK ")).expect("a health check");
    assert!(
        last[health + 1].contains(r#"["/usr/local/bin/mailtrail", "status", "--alive"]"#),
        "{}",
        last[health + 1]
    );

    // It is built with a compiler that can, from everything that it is made of.
    let manifest: toml::Table = read("Cargo.toml").parse().expect("TOML");
    let version =
        |text: &str| -> Vec<u32> { text.split('.').map(|part| part.parse().expect("a number")).collect() };
    let needed = version(manifest["workspace"]["package"]["rust-version"].as_str().expect("a version"));
    let image = lines[stages[0]].split(' ').nth(1).expect("an image");
    let used = image.strip_prefix("rust:").and_then(|tag| tag.split('-').next()).expect("a version");
    assert!(version(used) >= needed, "{used} is older than {needed:?}");
    let allowed: BTreeSet<String> =
        read(".dockerignore").lines().filter_map(|line| Some(line.strip_prefix('!')?.to_owned())).collect();
    let members = manifest["workspace"]["members"].as_array().expect("members");
    let members = members.iter().map(|member| member.as_str().expect("a text"));
    for part in members.chain(["src", "benches", "Cargo.toml", "Cargo.lock"]) {
        assert!(allowed.contains(part), "{part} is not let into the image's build");
    }
}

/// The metrics that the documentation lists.
fn documented() -> BTreeSet<String> {
    let page = read("docs/operations.md");
    let names = page.lines().filter_map(|line| line.strip_prefix("| `mailtrail_")?.split('`').next());
    names.map(|name| format!("mailtrail_{name}")).collect()
}

/// The metrics that an expression asks for; of a histogram, its name.
fn metrics_in(expression: &str) -> BTreeSet<String> {
    let words = expression.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    let names = words.filter(|word| word.starts_with("mailtrail_"));
    names.map(|name| name.strip_suffix("_bucket").unwrap_or(name).to_owned()).collect()
}

/// Every alert: its name and its rule.
pub(crate) fn alerts() -> Vec<(String, Yaml)> {
    let rules = yaml("deploy/prometheus/alerts.yml");
    let alerts = list(&rules["groups"]).flat_map(|group| list(&group["rules"]));
    alerts.map(|rule| (text(&rule["alert"]).to_owned(), rule.clone())).collect()
}

#[test]
fn every_alert_says_what_to_do_and_is_tried_both_ways() {
    let known = documented();
    let page = read("docs/operations.md");
    let anchor = |heading: &str| -> String {
        let kept = heading
            .to_lowercase()
            .chars()
            .filter(|c| c.is_alphanumeric() || " -".contains(*c))
            .collect::<String>();
        kept.replace(' ', "-")
    };
    let anchors: BTreeSet<String> = page
        .lines()
        .filter(|line| line.starts_with('#'))
        .map(|line| anchor(line.trim_start_matches('#').trim()))
        .collect();
    let mut cases: BTreeMap<String, BTreeSet<bool>> = BTreeMap::new();
    for case in list(&yaml("deploy/prometheus/alerts_test.yml")["tests"]) {
        for case in list(&case["alert_rule_test"]) {
            let fires = list(&case["exp_alerts"]).next().is_some();
            cases.entry(text(&case["alertname"]).to_owned()).or_default().insert(fires);
        }
    }
    let alerts = alerts();
    assert!(alerts.len() >= 20);
    for (name, rule) in &alerts {
        assert!(["critical", "warning"].contains(&text(&rule["labels"]["severity"])), "{name}");
        for annotation in ["summary", "description"] {
            assert!(!text(&rule["annotations"][annotation]).is_empty(), "{name}");
        }
        let runbook =
            text(&rule["annotations"]["runbook"]).strip_prefix("docs/operations.md#").expect("a place");
        assert!(anchors.contains(runbook), "{name}: there is no heading for #{runbook}");
        let asked = metrics_in(text(&rule["expr"]));
        assert!(!asked.is_empty() || name == "MailtrailDown", "{name}");
        assert!(asked.is_subset(&known), "{name} asks for {asked:?}");
        assert_eq!(
            cases.get(name).map(BTreeSet::len),
            Some(2),
            "{name} has a case in which it fires and one in which not"
        );
    }
    assert_eq!(cases.len(), alerts.len(), "no case is of an alert that is not there");
}

/// Every query of the dashboard: its panel's title and the expression.
pub(crate) fn dashboard_queries() -> Vec<(String, String)> {
    let dashboard: serde_json::Value =
        serde_json::from_str(&read("deploy/grafana/dashboards/mailtrail.json")).expect("JSON");
    let mut queries = Vec::new();
    for panel in dashboard["panels"].as_array().expect("panels") {
        let title = panel["title"].as_str().expect("a title");
        for target in panel["targets"].as_array().into_iter().flatten() {
            queries.push((title.to_owned(), target["expr"].as_str().expect("an expression").to_owned()));
        }
    }
    queries
}

#[test]
fn the_dashboard_shows_metrics_that_there_are() {
    let (known, queries) = (documented(), dashboard_queries());
    assert!(queries.len() >= 25, "{queries:?}");
    for (title, query) in &queries {
        let asked = metrics_in(query);
        assert!(!asked.is_empty() && asked.is_subset(&known), "{title} asks for {asked:?}");
    }
    let dashboard: serde_json::Value =
        serde_json::from_str(&read("deploy/grafana/dashboards/mailtrail.json")).expect("JSON");
    let source = yaml("deploy/grafana/provisioning/datasources/prometheus.yml");
    let uid = text(&source["datasources"][0]["uid"]).to_owned();
    let panels = dashboard["panels"].as_array().expect("panels");
    let mut taken = BTreeSet::new();
    let mut ids = BTreeSet::new();
    for panel in panels {
        let title = &panel["title"];
        assert!(ids.insert(panel["id"].as_u64().expect("an id")), "{title}: the id is another's too");
        for target in panel["targets"].as_array().into_iter().flatten() {
            assert_eq!(target["datasource"]["uid"].as_str(), Some(uid.as_str()), "{title}");
        }
        let place = |key: &str| panel["gridPos"][key].as_u64().expect("a place");
        for (x, y) in (0..place("w")).flat_map(|x| (0..place("h")).map(move |y| (x, y))) {
            assert!(place("x") + x < 24, "{title} is too wide");
            assert!(taken.insert((place("x") + x, place("y") + y)), "{title} lies over another");
        }
    }
    let provider = yaml("deploy/grafana/provisioning/dashboards/mailtrail.yml");
    let path = PathBuf::from(text(&provider["providers"][0]["options"]["path"]));
    let compose = yaml("docker-compose.yml");
    let mounted = list(&compose["services"]["grafana"]["volumes"]).map(text);
    let expected = format!("./deploy/grafana/dashboards:{}:ro", path.display());
    assert!(mounted.into_iter().any(|mount| mount == expected), "{expected}");
}

#[test]
fn the_configuration_of_the_compose_set_is_valid() {
    let directory = tempfile::tempdir().expect("a directory");
    let state = directory.path().join("state");
    let content = read("deploy/mailtrail.toml").replace("/var/lib/mailtrail", state.to_str().expect("plain"));
    let path = directory.path().join("mailtrail.toml");
    fs::write(&path, content).expect("a configuration");
    let compose = yaml("docker-compose.yml");
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_mailtrail"));
    command.args(["check", "--offline", "--config"]).arg(&path).env_remove("MAILTRAIL_LOG");
    for (name, value) in entries(&compose["services"]["mailtrail"]["environment"]) {
        command.env(name, text(value));
    }
    let output = command.output().expect("mailtrail starts");
    let told = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    assert!(output.status.success(), "{}", told.join("\n"));
}
