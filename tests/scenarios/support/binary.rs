//! The real binary, as a user runs it.

use std::{
    io::Read,
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// No command of a scenario takes longer; one that does is stuck, and its output tells where.
const LONGEST: Duration = Duration::from_secs(240);

/// What a finished command left behind.
pub(crate) struct Outcome {
    /// How it ended.
    pub(crate) status: ExitStatus,
    /// What it printed.
    pub(crate) stdout: String,
    /// What it logged.
    pub(crate) stderr: String,
}

impl Outcome {
    /// It ended with this exit status; otherwise its output is shown.
    pub(crate) fn ends_with(self, code: i32) -> Self {
        assert_eq!(
            self.status.code(),
            Some(code),
            "exit status\n--- stdout\n{}\n--- stderr\n{}",
            self.stdout,
            self.stderr
        );
        self
    }

    /// Both outputs.
    pub(crate) fn text(&self) -> String {
        format!("{}\n{}", self.stdout, self.stderr)
    }
}

/// A running mailtrail. Dropping it kills it.
pub(crate) struct Binary {
    child: Child,
    outputs: [thread::JoinHandle<String>; 2],
}

impl Binary {
    /// Starts `mailtrail` with these arguments in a directory.
    pub(crate) fn start(directory: &Path, arguments: &[&str]) -> Binary {
        Self::start_with(directory, arguments, &[])
    }

    /// The same with these variables in its environment.
    pub(crate) fn start_with(directory: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> Binary {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mailtrail"));
        command.args(arguments);
        Self::of(command, directory, variables)
    }

    /// Starts a command that becomes `mailtrail` in the end, in a directory.
    pub(crate) fn spawn(command: Command, directory: &Path) -> Binary {
        Self::of(command, directory, &[])
    }

    fn of(mut command: Command, directory: &Path, variables: &[(&str, &str)]) -> Binary {
        command.current_dir(directory).env_remove("MAILTRAIL_LOG").env_remove("MAILTRAIL_CONFIG");
        for proxy in ["http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"] {
            command.env_remove(proxy);
        }
        let mut child = command
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("mailtrail starts");
        let stdout = collect(child.stdout.take().expect("piped"));
        let stderr = collect(child.stderr.take().expect("piped"));
        Binary { child, outputs: [stdout, stderr] }
    }

    /// Its process.
    pub(crate) fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).expect("a process id"))
    }

    /// Whether it has ended.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("it can be waited for").is_some()
    }

    /// Waits for its end.
    pub(crate) fn wait(mut self) -> Outcome {
        let deadline = Instant::now() + LONGEST;
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("it can be waited for") {
                break status;
            }
            if Instant::now() > deadline {
                self.child.kill().expect("it can be killed");
                break self.child.wait().expect("it can be waited for");
            }
            thread::sleep(Duration::from_millis(10));
        };
        let [stdout, stderr] =
            std::mem::replace(&mut self.outputs, [thread::spawn(String::new), thread::spawn(String::new)]);
        let read = |output: thread::JoinHandle<String>| output.join().expect("output is text");
        Outcome { status, stdout: read(stdout), stderr: read(stderr) }
    }
}

impl Drop for Binary {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn collect(mut pipe: impl Read + Send + 'static) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = pipe.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// `kill -9`.
pub(crate) fn kill_hard(binary: &Binary) {
    kill(binary.pid(), Signal::SIGKILL).expect("it can be killed");
}

/// SIGTERM.
pub(crate) fn terminate(binary: &Binary) {
    kill(binary.pid(), Signal::SIGTERM).expect("it can be signalled");
}

/// SIGINT, as Ctrl-C sends it.
pub(crate) fn interrupt(binary: &Binary) {
    kill(binary.pid(), Signal::SIGINT).expect("it can be signalled");
}

/// SIGHUP.
pub(crate) fn hang_up(binary: &Binary) {
    kill(binary.pid(), Signal::SIGHUP).expect("it can be signalled");
}
