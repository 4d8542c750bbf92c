//! Time-stamps of an archive's heads, by OpenSSL as the authority, and checked by OpenSSL.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::atomic::{AtomicUsize, Ordering},
};

use archive::{ChainFile, ChainKey, Envelope, ObjectPath};
use simulator::SimulatorConfig;

use crate::{
    archive::{below, configure},
    support::{
        World, lasting_port, terminate,
        wire::{Reply, Request, Server},
    },
};

const SETTINGS: &str = "\
[req]
distinguished_name = name
[name]
[ca]
basicConstraints = critical, CA:true
keyUsage = critical, keyCertSign
[stamping]
extendedKeyUsage = critical, timeStamping
keyUsage = critical, digitalSignature
[tsa]
default_tsa = own
[own]
serial = serial
signer_cert = tsa.pem
certs = ca.pem
signer_key = tsa.key
signer_digest = sha256
default_policy = 1.3.6.1.4.1.99999.1
digests = sha256
ess_cert_id_alg = sha256
";

fn openssl(folder: &Path, line: &str) -> Output {
    let mut command = Command::new("openssl");
    command.args(line.split(' ')).current_dir(folder).stdin(Stdio::null());
    command.output().expect("openssl is installed")
}

/// An authority's keys, in a folder.
fn authority(folder: &Path) {
    fs::create_dir(folder).expect("a folder");
    fs::write(folder.join("tsa.cnf"), SETTINGS).expect("a file");
    fs::write(folder.join("serial"), "01").expect("a file");
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -config tsa.cnf";
    for line in [
        &format!("req -x509 {key} -keyout ca.key -out ca.pem -subj /CN=ca -extensions ca"),
        &format!("req {key} -keyout tsa.key -out tsa.csr -subj /CN=stamps"),
        "x509 -req -in tsa.csr -CA ca.pem -CAkey ca.key -CAcreateserial -extfile tsa.cnf -extensions stamping -out tsa.pem",
    ] {
        let output = openssl(folder, line);
        assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

/// Answers a query as the authority does.
fn answer(folder: &Path, request: &Request) -> Reply {
    static NUMBER: AtomicUsize = AtomicUsize::new(0);
    assert_eq!(request.headers["content-type"], "application/timestamp-query");
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    fs::write(folder.join(format!("{number}.tsq")), &request.body).expect("a query");
    openssl(folder, &format!("ts -reply -config tsa.cnf -queryfile {number}.tsq -out {number}.tsr"));
    let answer = fs::read(folder.join(format!("{number}.tsr"))).expect("an answer");
    let head = format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", answer.len());
    Reply::Raw([head.into_bytes(), answer].concat())
}

/// The files of the chain.
fn chain_files(folder: &Path) -> Vec<(PathBuf, ChainFile)> {
    let files = below(folder).into_iter().filter_map(|file| {
        let path: ObjectPath = file.strip_prefix(folder).ok()?.to_str()?.parse().ok()?;
        Some((file, ChainKey::parse(&path)?.1))
    });
    files.collect()
}

fn entries(folder: &Path) -> usize {
    chain_files(folder).iter().filter(|(_, file)| matches!(file, ChainFile::Entry(_))).count()
}

#[test]
#[ignore = "needs openssl"]
fn real_timestamps_are_made_of_heads_and_never_waited_for() {
    let world = World::new(SimulatorConfig {
        blobs: 20,
        rate: 200.0,
        flow_blobs: Some(40),
        ..SimulatorConfig::default()
    });
    let (folder, archive) = (world.path().join("tsa"), world.path().join("archive"));
    authority(&folder);
    let address = ([127, 0, 0, 1], lasting_port()).into();
    let lines = format!(
        "object_age = \"300ms\"\nmanifest_interval = \"1s\"\ntimestamp_url = \"http://{address}/tsa\""
    );
    configure(&world, &lines);
    world.edit(|text| text.replace("[sinks.", "poll_interval = \"1s\"\n[sinks."));

    // Nobody listens, and the archive goes on.
    let tried = world.mailtrail(&["check"]).ends_with(1).text();
    assert!(tried.contains("there are no time-stamps: cannot reach http://"), "{tried}");
    let running = world.start(&["run"]);
    world.until("there are three entries", || entries(&archive) >= 3);
    terminate(&running);
    let log = running.wait().ends_with(0).text();
    assert!(log.contains("have no time-stamp yet"), "{log}");
    assert_eq!(chain_files(&archive).len(), entries(&archive), "there is no time-stamp");

    // Somebody does: the newest head gets one.
    let server = {
        let folder = folder.clone();
        Server::start(Some(address), None, move |request| answer(&folder, request))
    };
    world.mailtrail(&["check"]).ends_with(0);
    // From here on there is an entry only when there is something to say.
    world.edit(|text| text.replace("manifest_interval = \"1s\"", "manifest_interval = \"1h\""));
    world.until("nothing more comes", || {
        world.collect();
        let report = world.mailtrail(&["reconcile", "--json"]).ends_with(0);
        let report: serde_json::Value = serde_json::from_str(&report.stdout).expect("JSON");
        let truth = world.simulator().truth();
        truth.blobs().count() == 60 && report["total"]["records"].as_u64() == Some(truth.count())
    });
    let (newest, _) = chain_files(&archive)
        .into_iter()
        .filter(|(_, file)| matches!(file, ChainFile::Timestamp(_)))
        .max()
        .expect("a time-stamp");
    let entry = newest.with_extension("json");
    assert_eq!(
        chain_files(&archive).into_iter().filter(|(file, _)| *file > newest).count(),
        0,
        "of the head"
    );
    let envelope = Envelope::parse(&fs::read(&entry).expect("an entry")).expect("an envelope");
    fs::write(folder.join("payload"), envelope.payload()).expect("a file");
    fs::copy(&newest, folder.join("archived.tsr")).expect("a copy");
    let checked = openssl(&folder, "ts -verify -in archived.tsr -data payload -CAfile ca.pem");
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
    let verify = ["archive", "verify", "--directory", "archive", "--public-key", "archive.pub"];
    let verified = world.mailtrail(&verify).ends_with(0);
    assert!(verified.stdout.contains("has a time-stamp of 2"), "{}", verified.text());
    let before = chain_files(&archive);
    world.collect();
    assert_eq!(chain_files(&archive), before, "a head has one time-stamp");
    drop(server);

    // One that is of something else is none.
    fs::write(folder.join("payload"), "something else").expect("a file");
    openssl(&folder, "ts -query -data payload -sha256 -cert -out other.tsq");
    openssl(&folder, "ts -reply -config tsa.cnf -queryfile other.tsq -out other.tsr");
    fs::remove_file(&newest).expect("it can be removed");
    fs::copy(folder.join("other.tsr"), &newest).expect("a copy");
    let found = world.mailtrail(&verify).ends_with(1);
    let name = newest.strip_prefix(&archive).expect("it is below").display().to_string();
    assert!(
        found.stdout.contains(&format!("{name}: it is not the time-stamp of the entry beside it")),
        "{}",
        found.text()
    );
}
