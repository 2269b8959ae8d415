//! Lucene's completion field, which is what a completion field of Elasticsearch is made of, behind a small server of our own (`peers/LuceneSuggest.java`).
//!
//! The server speaks lines over a socket, which is less than any search engine does for a request: it shows what the field can give, and
//! not what a product around it takes. It completes only; a count stands in a document and cannot be added to.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::Context as _;
use runtime::Runtime;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use workload::Target;

use crate::process::{Process, Processes};

/// Java compiles it when it starts.
const SOURCE: &str = include_str!("../peers/LuceneSuggest.java");
/// The libraries of it that are needed.
const JARS: [&str; 3] = [
    "lucene-core-8.",
    "lucene-suggest-8.",
    "lucene-analyzers-common-8.",
];
/// The most that the virtual machine may take for objects: ten million terms are indexed in it.
const HEAP: &str = "-Xmx6g";
const START_PATIENCE: Duration = Duration::from_secs(60);
/// Ten million terms take minutes.
const LOAD_PATIENCE: Duration = Duration::from_secs(3600);
/// Answers are waited for as long as ours are.
const ANSWER_PATIENCE: Duration = Duration::from_secs(10);

/// Lucene 8, as Debian's package liblucene8-java has it.
#[derive(Debug, Clone)]
pub(crate) struct Lucene {
    java: PathBuf,
    jars: Vec<PathBuf>,
}

impl Lucene {
    /// The libraries in a folder; none where one is missing.
    pub(crate) fn find(java: PathBuf, folder: &Path) -> Option<Self> {
        let names: Vec<PathBuf> = folder
            .read_dir()
            .ok()?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| path.extension().is_some_and(|end| end == "jar"))
            .collect();
        let find = |start: &&str| {
            let is_it = |path: &&PathBuf| {
                path.file_name()
                    .is_some_and(|name| name.to_string_lossy().starts_with(*start))
            };
            names.iter().filter(is_it).max().cloned()
        };
        let jars: Vec<PathBuf> = JARS.iter().filter_map(find).collect();
        (jars.len() == JARS.len()).then_some(Self { java, jars })
    }

    /// What it is, with its version, in one line.
    pub(crate) fn version(&self) -> String {
        let name = self.jars.first().and_then(|path| path.file_stem());
        name.map_or_else(String::new, |name| name.to_string_lossy().into_owned())
    }

    /// Starts the server in an empty folder; gives its address.
    #[expect(
        clippy::disallowed_methods,
        reason = "scratch space; the vfs crate is for data that must survive"
    )]
    pub(crate) async fn start(
        &self,
        runtime: &Runtime,
        dir: &Path,
    ) -> Result<(Processes, String), anyhow::Error> {
        let source = dir.join("LuceneSuggest.java");
        std::fs::write(&source, SOURCE)?;
        let path = std::env::join_paths(&self.jars).context("joining the names of libraries")?;
        let mut command = Command::new(&self.java);
        command
            .args([HEAP, "-cp"])
            .arg(path)
            .arg(source)
            .arg(dir.join("index"))
            .stdout(Stdio::piped());
        let mut process = Process::start(&mut command)?;
        let stdout = process.take_stdout().context("it has no output")?;
        // Ends at the latest when the process does, which is when this function fails.
        let line = runtime.spawn_blocking("banner", move || {
            BufReader::new(stdout).lines().find_map(Result::ok)
        });
        let line = runtime.timeout(START_PATIENCE, line).await;
        let line = line.context("it does not start")??.unwrap_or_default();
        let port = line.strip_prefix("port ");
        let port = port.context("it ended before it listened")?;
        Ok((Processes(vec![process]), format!("127.0.0.1:{port}")))
    }
}

/// Has a file of terms and counts indexed, and committed.
pub(crate) async fn load(
    runtime: &Runtime,
    address: &str,
    file: &Path,
) -> Result<(), anyhow::Error> {
    let mut connection = target(runtime, address, 0).await?;
    let file = file.canonicalize()?;
    let question = format!("L\t{}\n", file.display());
    connection.patience = LOAD_PATIENCE;
    let answers = connection.ask(question.as_bytes(), 1).await;
    answers.map_err(anyhow::Error::msg)
}

/// One connection with one request in flight.
#[derive(Debug)]
pub(crate) struct Lines {
    runtime: Runtime,
    stream: tokio::io::BufReader<TcpStream>,
    /// Of the answer that is being read; kept for its memory.
    line: Vec<u8>,
    k: u32,
    patience: Duration,
}

/// Connects.
pub(crate) async fn target(
    runtime: &Runtime,
    address: &str,
    k: u32,
) -> Result<Lines, anyhow::Error> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(Lines {
        runtime: runtime.clone(),
        stream: tokio::io::BufReader::new(stream),
        line: Vec::new(),
        k,
        patience: ANSWER_PATIENCE,
    })
}

impl Lines {
    /// Sends lines, and waits for so many answers.
    async fn ask(&mut self, lines: &[u8], answers: usize) -> Result<(), String> {
        let runtime = self.runtime.clone();
        let patience = self.patience;
        let asked = self.exchange(lines, answers);
        match runtime.timeout(patience, asked).await {
            Ok(told) => told,
            Err(_) => Err("DEADLINE".to_owned()),
        }
    }

    async fn exchange(&mut self, lines: &[u8], answers: usize) -> Result<(), String> {
        let broken = |_| "CONNECTION".to_owned();
        self.stream.write_all(lines).await.map_err(broken)?;
        for _ in 0..answers {
            self.line.clear();
            let read = self.stream.read_until(b'\n', &mut self.line).await;
            if read.map_err(broken)? == 0 {
                return Err("CONNECTION".to_owned());
            }
            if self.line.starts_with(b"ERR\t") {
                return Err(String::from_utf8_lossy(&self.line).trim().to_owned());
            }
        }
        Ok(())
    }
}

impl Target for Lines {
    async fn read(&mut self, prefixes: &[&str]) -> Result<(), String> {
        let mut lines = String::new();
        for prefix in prefixes {
            lines.push_str(&format!("G\t{}\t{prefix}\n", self.k));
        }
        self.ask(lines.as_bytes(), prefixes.len()).await
    }

    async fn record(&mut self, _: &[&str]) -> Result<(), String> {
        Err("UNSUPPORTED".to_owned())
    }
}
