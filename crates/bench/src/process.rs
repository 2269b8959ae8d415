//! Processes that end with their owner.

use std::io::{self, BufRead as _, BufReader, Read};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use anyhow::Context as _;
use runtime::{Runtime, Task};
use rustix::process::{Pid, Signal, kill_process};

const POLL: Duration = Duration::from_millis(20);

/// Ticks of a processor's time a second, as Linux counts them for every process.
const TICKS_PER_SECOND: u64 = 100;

/// A running process, killed when it is dropped.
#[derive(Debug)]
pub(crate) struct Process(Child);

impl Process {
    /// Starts it. Nothing is sent to it.
    pub(crate) fn start(command: &mut Command) -> Result<Self, anyhow::Error> {
        let child = command
            .stdin(Stdio::null())
            .spawn()
            .with_context(|| format!("starting {}", command.get_program().display()))?;
        Ok(Self(child))
    }

    pub(crate) fn take_stdout(&mut self) -> Option<ChildStdout> {
        self.0.stdout.take()
    }

    /// What is looked for in the lines that it says when it starts, on a piped standard output; none where it ended before.
    pub(crate) async fn banner(
        &mut self,
        runtime: &Runtime,
        patience: Duration,
        look: impl FnOnce(&mut dyn Iterator<Item = String>) -> Option<String> + Send + 'static,
    ) -> Result<Option<String>, anyhow::Error> {
        let stdout = self.take_stdout().context("it has no output")?;
        // Ends at the latest when the process does, which is when its owner fails.
        let look = runtime.spawn_blocking("banner", move || {
            look(&mut BufReader::new(stdout).lines().map_while(Result::ok))
        });
        let said = runtime.timeout(patience, look).await;
        Ok(said.context("it does not start")??)
    }

    /// Waits until it ends well, at most for so long.
    pub(crate) async fn finish(
        mut self,
        runtime: &Runtime,
        limit: Duration,
    ) -> Result<(), anyhow::Error> {
        let deadline = runtime.now() + limit;
        loop {
            if let Some(status) = self.0.try_wait()? {
                anyhow::ensure!(status.success(), "it ended with {status}");
                return Ok(());
            }
            anyhow::ensure!(runtime.now() < deadline, "it takes longer than {limit:?}");
            runtime.sleep(POLL).await;
        }
    }

    /// What it writes to a piped standard output until it ends well, at most for so long. Where it does not, the error has what it wrote to a
    /// piped standard error.
    pub(crate) async fn said(
        mut self,
        runtime: &Runtime,
        limit: Duration,
    ) -> Result<String, anyhow::Error> {
        let stdout = self.take_stdout().context("it has no output")?;
        let stderr = self.0.stderr.take().context("it has no output of errors")?;
        // Both end at the latest when the process does, which is when it is not waited for any longer.
        let (said, wrong) = (text(runtime, stdout), text(runtime, stderr));
        let ended = self.finish(runtime, limit).await;
        let (said, wrong) = (said.await??, wrong.await??);
        ended.with_context(|| wrong.trim().to_owned())?;
        Ok(said)
    }

    /// Asks it to end, and waits until it has ended well, at most for so long.
    pub(crate) async fn end(self, runtime: &Runtime, limit: Duration) -> Result<(), anyhow::Error> {
        kill_process(Pid::from_child(&self.0), Signal::TERM).context("asking it to end")?;
        self.finish(runtime, limit).await
    }

    /// Fails once it has ended.
    pub(crate) fn ensure_runs(&mut self) -> Result<(), anyhow::Error> {
        match self.0.try_wait()? {
            None => Ok(()),
            Some(status) => anyhow::bail!("it ended with {status}"),
        }
    }

    /// Processor time that it has used, all threads together. Zero where the system does not say.
    pub(crate) fn cpu(&self) -> Duration {
        let stat = self.proc("stat");
        // Behind the name, which may contain anything, in brackets: state, 10 numbers, then ours.
        let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        let ticks = fields.split_whitespace().skip(11).take(2);
        let ticks: u64 = ticks.filter_map(|text| text.parse::<u64>().ok()).sum();
        Duration::from_millis(ticks * 1_000 / TICKS_PER_SECOND)
    }

    /// Memory that it holds. Zero where the system does not say.
    pub(crate) fn resident_bytes(&self) -> u64 {
        self.status_bytes("VmRSS:")
    }

    /// The most memory that it held since that was last forgotten. Zero where the system does not say.
    pub(crate) fn peak_bytes(&self) -> u64 {
        self.status_bytes("VmHWM:")
    }

    /// Has the system forget the most memory that it held. Where that is refused, it stays the most since it began.
    #[expect(
        clippy::disallowed_methods,
        reason = "a word to the system, which is no file"
    )]
    pub(crate) fn forget_peak(&self) {
        let _ = std::fs::write(format!("/proc/{}/clear_refs", self.0.id()), "5");
    }

    fn status_bytes(&self, name: &str) -> u64 {
        let status = self.proc("status");
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let kib = line.and_then(|rest| rest.trim().trim_end_matches(" kB").parse::<u64>().ok());
        kib.unwrap_or(0) * 1024
    }

    fn proc(&self, name: &str) -> String {
        let path = format!("/proc/{}/{name}", self.0.id());
        std::fs::read_to_string(path).unwrap_or_default()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The processes that make up a server, seen as one.
#[derive(Debug)]
pub(crate) struct Processes(pub(crate) Vec<Process>);

impl Processes {
    /// Fails once one has ended.
    pub(crate) fn ensure_run(&mut self) -> Result<(), anyhow::Error> {
        self.0.iter_mut().try_for_each(Process::ensure_runs)
    }

    /// See [`Process::cpu`].
    pub(crate) fn cpu(&self) -> Duration {
        self.0.iter().map(Process::cpu).sum()
    }

    /// See [`Process::resident_bytes`].
    pub(crate) fn resident_bytes(&self) -> u64 {
        self.0.iter().map(Process::resident_bytes).sum()
    }

    /// See [`Process::peak_bytes`]. They need not have held it at the same time.
    pub(crate) fn peak_bytes(&self) -> u64 {
        self.0.iter().map(Process::peak_bytes).sum()
    }

    /// See [`Process::forget_peak`].
    pub(crate) fn forget_peak(&self) {
        self.0.iter().for_each(Process::forget_peak);
    }
}

/// All that is read until it ends.
fn text(runtime: &Runtime, from: impl Read + Send + 'static) -> Task<io::Result<String>> {
    runtime.spawn_blocking("output", move || io::read_to_string(from))
}

/// A free port of loopback. Somebody may take it until the server does; then the server ends, and the run with it.
pub(crate) fn free_port() -> Result<u16, anyhow::Error> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).context("finding a free port")?;
    Ok(listener.local_addr()?.port())
}

/// A program by its name, as a shell finds it.
pub(crate) fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let mut found = std::env::split_paths(&path).map(|dir| dir.join(name));
    found.find(|path| is_file(path))
}

pub(crate) fn is_file(path: &Path) -> bool {
    path.metadata().is_ok_and(|at| at.is_file())
}

/// What a program says of its version, in one line.
pub(crate) fn version(program: &Path) -> String {
    let output = Command::new(program)
        .arg("--version")
        .stdin(Stdio::null())
        .output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    let text = text.unwrap_or_default();
    text.lines().next().unwrap_or("unknown").trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_process_is_watched_and_ended() {
        let runtime = Runtime::real();
        let mut sleeping = Process::start(Command::new("sleep").arg("1000")).unwrap();
        sleeping.ensure_runs().unwrap();
        assert!(sleeping.resident_bytes() > 0);
        sleeping.forget_peak();
        assert!(sleeping.peak_bytes() > 0);
        let limit = Duration::from_millis(1);
        assert!(sleeping.finish(&runtime, limit).await.is_err(), "too long");
        let ended = Process::start(&mut Command::new("false")).unwrap();
        let long = Duration::from_secs(60);
        assert!(ended.finish(&runtime, long).await.is_err(), "not well");
        let ended = Process::start(&mut Command::new("true")).unwrap();
        ended.finish(&runtime, long).await.unwrap();
        let script = "trap 'exit 0' TERM; echo ready; while :; do sleep 0.01; done";
        let mut shell = Command::new("sh");
        shell.args(["-c", script]).stdout(Stdio::piped());
        let mut orderly = Process::start(&mut shell).unwrap();
        let mut line = String::new();
        let mut said = BufReader::new(orderly.take_stdout().unwrap());
        said.read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        orderly.end(&runtime, long).await.unwrap();
    }

    #[tokio::test]
    async fn what_a_process_said_is_read_and_what_went_wrong_is_told() {
        let runtime = Runtime::real();
        let long = Duration::from_secs(60);
        let shell = |script: &str| {
            let mut shell = Command::new("sh");
            let shell = shell.args(["-c", script]).stdout(Stdio::piped());
            Process::start(shell.stderr(Stdio::piped())).unwrap()
        };
        let said = shell("echo answer; echo aside >&2").said(&runtime, long);
        assert_eq!(said.await.unwrap(), "answer\n");
        let failed = shell("echo half; echo the cause >&2; exit 3").said(&runtime, long);
        let error = format!("{:#}", failed.await.unwrap_err());
        assert!(error.starts_with("the cause: it ended with"), "{error}");
    }

    #[test]
    fn programs_are_found_as_a_shell_finds_them() {
        assert!(on_path("sh").is_some());
        assert!(on_path("no such program").is_none());
    }
}
