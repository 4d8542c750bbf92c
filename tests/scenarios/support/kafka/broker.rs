//! A real Apache Kafka, as `tests/servers/kafka` installs it: a broker with its own ports and directory, and the project's
//! own tools to make topics and to read them. The scenarios and the benchmark share it.

use std::{
    fs::{self, File},
    net::{TcpListener, TcpStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;

use super::installed;

/// The version that `tests/servers/kafka` installs.
const VERSION: &str = "4.1.0";
/// How long a broker may take to start. After a kill it looks through its logs first.
const START: Duration = Duration::from_secs(240);
/// For how long nothing more comes from a reader who has as many messages as are to be there.
const QUIET: Duration = Duration::from_secs(5);

/// Users of a broker with a login, with their passwords.
pub(crate) const WRITER: (&str, &str) = ("writer", "writers-password");
/// A user without any permission.
pub(crate) const STRANGER: (&str, &str) = ("stranger", "strangers-password");

/// A broker. Dropping it kills it.
pub(crate) struct Broker {
    directory: TempDir,
    ports: [u16; 3],
    process: Option<Child>,
}

fn libs() -> PathBuf {
    // It is there when the installation came to its end.
    installed(&format!("kafka-{VERSION}/complete"), "tests/servers/kafka").with_file_name("libs")
}

fn java(heap: &str) -> Command {
    let mut command = Command::new("java");
    command.arg(heap).arg("-cp").arg(libs().join("*")).stdin(Stdio::null());
    command
}

impl Broker {
    /// Starts one that lets everybody in.
    pub(crate) fn start() -> Self {
        Self::start_with(None, "")
    }

    /// Starts one that tells everybody who comes to use this port.
    pub(crate) fn start_behind(port: u16) -> Self {
        Self::start_with(Some(port), "")
    }

    /// Starts one that also has a port for users who log in by SCRAM-SHA-256, and where these may do nothing unless they
    /// are [allowed](Broker::allow) to.
    pub(crate) fn start_with_login() -> Self {
        Self::start_with(
            None,
            "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer\n\
             super.users=User:ANONYMOUS\nallow.everyone.if.no.acl.found=false\n",
        )
    }

    fn start_with(behind: Option<u16>, more: &str) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let held = [(); 3].map(|()| TcpListener::bind("127.0.0.1:0").expect("a free port"));
        let ports = held.each_ref().map(|listener| listener.local_addr().expect("an address").port());
        drop(held);
        let [plain, login, controller] = ports;
        let advertised = behind.unwrap_or(plain);
        let data = directory.path().join("data");
        let properties = format!(
            "process.roles=broker,controller\nnode.id=1\ncontroller.quorum.voters=1@127.0.0.1:{controller}\n\
             listeners=PLAINTEXT://127.0.0.1:{plain},SASL://127.0.0.1:{login},CONTROLLER://127.0.0.1:{controller}\n\
             advertised.listeners=PLAINTEXT://127.0.0.1:{advertised},SASL://127.0.0.1:{login}\n\
             controller.listener.names=CONTROLLER\n\
             listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SASL:SASL_PLAINTEXT\n\
             inter.broker.listener.name=PLAINTEXT\nlog.dirs={}\noffsets.topic.replication.factor=1\n\
             transaction.state.log.replication.factor=1\ntransaction.state.log.min.isr=1\n\
             group.initial.rebalance.delay.ms=0\nauto.create.topics.enable=false\n\
             sasl.enabled.mechanisms=SCRAM-SHA-256\n\
             listener.name.sasl.scram-sha-256.sasl.jaas.config=\
             org.apache.kafka.common.security.scram.ScramLoginModule required;\n{more}",
            data.display()
        );
        fs::write(directory.path().join("server.properties"), properties).expect("a configuration");
        let mut broker = Self { directory, ports, process: None };
        let mut format = java("-Xmx256m");
        format.arg("kafka.tools.StorageTool").args(["format", "-t", "4L6g3nShT-eMCtK--X86sw", "-c"]);
        format.arg(broker.directory.path().join("server.properties"));
        for (name, password) in [WRITER, STRANGER] {
            format.args(["--add-scram", &format!("SCRAM-SHA-256=[name={name},password={password}]")]);
        }
        run(format);
        broker.up();
        broker
    }

    /// Starts it again after [`Broker::kill`].
    pub(crate) fn up(&mut self) {
        let log = self.directory.path().join("broker.log");
        let output = File::create(&log).expect("a log");
        let mut command = java("-Xmx512m");
        command
            .arg("kafka.Kafka")
            .arg(self.directory.path().join("server.properties"))
            .current_dir(self.directory.path())
            .stdout(output.try_clone().expect("a log"))
            .stderr(output);
        self.process = Some(command.spawn().expect("java starts"));
        let deadline = Instant::now() + START;
        loop {
            // Its log goes nowhere, but it opens its port when it is ready.
            if TcpStream::connect(self.address()).is_ok() {
                return;
            }
            let text = fs::read_to_string(&log).unwrap_or_default();
            let process = self.process.as_mut().expect("it was started");
            let ended = process.try_wait().expect("it can be waited for");
            assert!(ended.is_none() && Instant::now() < deadline, "the broker does not start:\n{text}");
            thread::sleep(Duration::from_millis(100));
        }
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().expect("it can be killed");
            process.wait().expect("it can be waited for");
        }
    }

    /// Where everybody is let in.
    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port())
    }

    /// Its own port for everybody.
    pub(crate) fn port(&self) -> u16 {
        self.ports[0]
    }

    /// Where users log in.
    pub(crate) fn login_address(&self) -> String {
        format!("127.0.0.1:{}", self.ports[1])
    }

    /// Makes a topic with these settings.
    pub(crate) fn create(&self, topic: &str, partitions: u32, settings: &[&str]) {
        let mut command = java("-Xmx256m");
        command
            .arg("org.apache.kafka.tools.TopicCommand")
            .args(["--bootstrap-server", &self.address(), "--create", "--topic", topic])
            .args(["--partitions", &partitions.to_string()]);
        for setting in settings {
            command.args(["--config", setting]);
        }
        run(command);
    }

    /// Makes the topics that the sinks of the scenarios use.
    pub(crate) fn create_usual(&self) {
        thread::scope(|scope| {
            scope.spawn(|| self.create("audit", 3, &[]));
            scope.spawn(|| self.create("mailtrail.progress", 1, &["cleanup.policy=compact"]));
        });
    }

    /// Allows the writer this, such as `["--operation", "Write", "--topic", "audit"]`.
    pub(crate) fn allow(&self, what: &[&str]) {
        let mut command = java("-Xmx256m");
        command
            .arg("org.apache.kafka.tools.AclCommand")
            .args(["--bootstrap-server", &self.address(), "--add", "--allow-principal", "User:writer"])
            .args(what);
        run(command);
    }

    /// How many bytes the topic has on disk: it grows while something is written.
    pub(crate) fn size(&self, topic: &str) -> u64 {
        let data = self.directory.path().join("data");
        let mut size = 0;
        for entry in fs::read_dir(data).expect("the broker's data").flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.rsplit_once('-').is_some_and(|(of, _)| of == topic) {
                let files = fs::read_dir(entry.path()).into_iter().flatten().flatten();
                let logs = files.filter(|file| file.path().extension().is_some_and(|kind| kind == "log"));
                size +=
                    logs.filter_map(|file| file.metadata().ok()).map(|metadata| metadata.len()).sum::<u64>();
            }
        }
        size
    }

    /// Every message of a topic that is committed, as an independent reader sees it. It reads until nothing has come for a
    /// while, which may be shorter when there are as many as are to be there.
    pub(crate) fn read(&self, topic: &str, expected: usize) -> Vec<Vec<u8>> {
        self.read_what_is(topic, expected, "read_committed")
    }

    /// Every message that is in the log of a topic, also of transactions that were aborted or never ended: to find out
    /// where one is that a reader misses.
    pub(crate) fn read_uncommitted(&self, topic: &str, expected: usize) -> Vec<Vec<u8>> {
        self.read_what_is(topic, expected, "read_uncommitted")
    }

    fn read_what_is(&self, topic: &str, expected: usize, isolation: &str) -> Vec<Vec<u8>> {
        let output = self.directory.path().join("read");
        let mut command = java("-Xmx512m");
        command
            .arg("org.apache.kafka.tools.consumer.ConsoleConsumer")
            .args(["--bootstrap-server", &self.address(), "--topic", topic, "--from-beginning"])
            // It ends when nothing has come for so long, which a machine that is busy with much else may take.
            .args(["--timeout-ms", "60000", "--consumer-property"])
            .arg(format!("isolation.level={isolation}"))
            .stdout(File::create(&output).expect("a file"))
            .stderr(Stdio::null());
        let mut reader = command.spawn().expect("java starts");
        let has_read = || fs::read(&output).expect("what was read");
        let lines = || has_read().iter().filter(|byte| **byte == b'\n').count();
        let (mut size, mut last) = (0, Instant::now());
        loop {
            let ended = reader.try_wait().expect("it can be waited for");
            let now = fs::metadata(&output).expect("what was read").len();
            if now > size {
                (size, last) = (now, Instant::now());
            }
            if let Some(status) = ended {
                assert!(status.success(), "the consumer ended with {status}");
                break;
            }
            // It writes each message at once.
            if last.elapsed() > QUIET && lines() >= expected {
                reader.kill().expect("it can be killed");
                reader.wait().expect("it can be waited for");
                break;
            }
            thread::sleep(Duration::from_millis(200));
        }
        has_read().split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).map(<[u8]>::to_vec).collect()
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if let Some(process) = &mut self.process {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

fn run(mut command: Command) {
    let done = command.output().expect("java starts");
    assert!(
        done.status.success(),
        "{command:?}\n{}{}",
        String::from_utf8_lossy(&done.stdout),
        String::from_utf8_lossy(&done.stderr)
    );
}
