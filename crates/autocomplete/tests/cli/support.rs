//! Starting clusters and asking them.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};

use client::{Client, ClientOptions};
use runtime::Runtime;

/// The command, cut off from the environment's settings.
pub(crate) fn autocomplete(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_autocomplete"));
    for name in [
        "ADDR",
        "NAMESPACE",
        "STATE_DIR",
        "DATA_DIR",
        "LOG_FILTER",
        "LOG_FORMAT",
        "SHARDS",
        "REPLICAS",
        "GRPC_ADDR",
        "HTTP_ADDR",
    ] {
        command.env_remove(format!("AUTOCOMPLETE_{name}"));
    }
    command.args(arguments).stdin(Stdio::null());
    command
}

/// Runs the command to its end.
pub(crate) fn output(arguments: &[&str]) -> Output {
    autocomplete(arguments).output().unwrap()
}

pub(crate) fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// A port that is free now and that the system does not hand out by itself, so that it is still free after a restart.
fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let offset = u16::try_from(std::process::id() % 600).unwrap() * 16;
    loop {
        let port = 20_000 + (offset + NEXT.fetch_add(1, Ordering::Relaxed)) % 10_000;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// A cluster in a process of its own, killed when it is dropped.
pub(crate) struct Up {
    child: Child,
    /// What it prints after the banner.
    rest: BufReader<ChildStdout>,
    pub(crate) banner: String,
    pub(crate) addr: String,
    dir: PathBuf,
}

impl Up {
    /// Starts a cluster and waits until it says that it is ready.
    pub(crate) fn start(dir: &Path, arguments: &[&str]) -> Self {
        Self::start_logging(dir, arguments, Stdio::inherit())
    }

    /// As [`Up::start`], with what it logs going elsewhere.
    pub(crate) fn start_logging(dir: &Path, arguments: &[&str], log: impl Into<Stdio>) -> Self {
        Self::start_at(dir, &format!("127.0.0.1:{}", free_port()), arguments, log)
    }

    fn start_at(dir: &Path, addr: &str, arguments: &[&str], log: impl Into<Stdio>) -> Self {
        let mut child = autocomplete(&["up", "--http-addr", "127.0.0.1:0", "--grpc-addr", addr])
            .arg("--data-dir")
            .arg(dir)
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut rest = BufReader::new(child.stdout.take().unwrap());
        let mut banner = String::new();
        while !banner.contains("Ctrl-C stops it") {
            assert_ne!(
                rest.read_line(&mut banner).unwrap(),
                0,
                "up ended: {banner}"
            );
        }
        Self {
            child,
            rest,
            banner,
            addr: addr.to_owned(),
            dir: dir.to_owned(),
        }
    }

    /// `host:port` of its page.
    pub(crate) fn http(&self) -> String {
        let (_, rest) = self.banner.split_once("http://").unwrap();
        rest.split('/').next().unwrap().to_owned()
    }

    /// A page on the HTTP port, asked for with more headers, each ended by a line break.
    pub(crate) fn page(&self, path: &str, headers: &str) -> String {
        let address = self.http();
        let mut stream = TcpStream::connect(&address).unwrap();
        let request =
            format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n{headers}\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut page = String::new();
        stream.read_to_string(&mut page).unwrap();
        assert!(page.starts_with("HTTP/1.1 200"), "{page}");
        page
    }

    /// Its metrics.
    pub(crate) fn metrics(&self) -> String {
        self.page("/metrics", "")
    }

    /// The next line that is not empty.
    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        while line.trim().is_empty() {
            line.clear();
            assert_ne!(self.rest.read_line(&mut line).unwrap(), 0, "up ended");
        }
        line
    }

    /// SIGKILL: nothing of the process runs any more when this returns.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM, and how it ended.
    pub(crate) fn terminate(mut self) -> ExitStatus {
        let process = self.child.id().to_string();
        let sent = Command::new("kill")
            .args(["-TERM", &process])
            .status()
            .unwrap();
        assert!(sent.success());
        self.child.wait().unwrap()
    }

    /// Starts it again on the same data and address.
    pub(crate) fn again(mut self) -> Self {
        self.kill();
        let (dir, addr) = (self.dir.clone(), self.addr.clone());
        drop(self);
        Self::start_at(&dir, &addr, &[], Stdio::inherit())
    }

    /// Runs a command against this cluster.
    pub(crate) fn ask(&self, arguments: &[&str]) -> Output {
        autocomplete(arguments)
            .env("AUTOCOMPLETE_ADDR", &self.addr)
            .env("AUTOCOMPLETE_STATE_DIR", self.dir.join("loads"))
            .output()
            .unwrap()
    }

    /// As [`Up::ask`], for a command that must succeed: what it printed.
    pub(crate) fn answer(&self, arguments: &[&str]) -> String {
        let output = self.ask(arguments);
        assert!(
            output.status.success(),
            "{arguments:?}: {}",
            stderr(&output)
        );
        stdout(&output)
    }

    pub(crate) fn client(&self) -> Client {
        Client::connect(Runtime::real(), ClientOptions::to(&self.addr)).unwrap()
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
