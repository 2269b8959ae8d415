//! Lucene's completion field, which is what a completion field of Elasticsearch is made of, behind a small server of our own (`peers/LuceneSuggest.java`).
//!
//! The server speaks lines over a socket, which is less than any search engine does for a request: it shows what the field can give, and
//! not what a product around it takes. It completes only; a count stands in a document and cannot be added to.
//!
//! On failure: a connection that failed is given up with the answers that it still owes, and the next request makes another.

#![expect(
    clippy::disallowed_types,
    reason = "a client of another server, which is never simulated"
)]

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::Context as _;
use runtime::Runtime;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use workload::Target;

use crate::process::{Process, Processes, on_path, version};

/// Java compiles it when it starts.
const SOURCE: &str = include_str!("../peers/LuceneSuggest.java");
/// The libraries of it that are needed, and the first release of Lucene 8 that has the format of index that is asked for.
const JARS: [&str; 3] = [
    "lucene-core-8.",
    "lucene-suggest-8.",
    "lucene-analyzers-common-8.",
];
const MINOR_MIN: u32 = 7;
/// The first Java that compiles what it starts, as it is written.
const JAVA_MIN: u32 = 17;
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
    /// A Java on the path, and the libraries in a folder.
    ///
    /// # Errors
    /// Why it is left out.
    pub(crate) fn find(folder: &Path) -> Result<Self, String> {
        let java = on_path("java").ok_or("there is no java")?;
        // As in "openjdk 17.0.15 2025-04-15".
        let said = version(&java);
        let major = said.split_whitespace().nth(1).and_then(leading_number);
        if major.is_none_or(|major| major < JAVA_MIN) {
            return Err(format!("{said:?} is no Java of {JAVA_MIN} or later"));
        }
        let entries = folder.read_dir().into_iter().flatten();
        let paths: Vec<PathBuf> = entries.filter_map(|at| Some(at.ok()?.path())).collect();
        let find = |start: &&str| {
            let is_it = |path: &&PathBuf| {
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                let minor = name.strip_prefix(*start).and_then(leading_number);
                name.ends_with(".jar") && minor.is_some_and(|minor| minor >= MINOR_MIN)
            };
            paths.iter().find(is_it).cloned()
        };
        let jars: Vec<PathBuf> = JARS.iter().filter_map(find).collect();
        if jars.len() < JARS.len() {
            let folder = folder.display();
            return Err(format!(
                "there is no Lucene 8.{MINOR_MIN} or later in {folder}"
            ));
        }
        Ok(Self { java, jars })
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
        let look = |mut lines: &mut dyn Iterator<Item = String>| {
            Iterator::find_map(&mut lines, |line| {
                Some(line.strip_prefix("port ")?.to_owned())
            })
        };
        let port = process.banner(runtime, START_PATIENCE, look).await?;
        let port = port.context("it ended before it listened")?;
        Ok((Processes(vec![process]), format!("127.0.0.1:{port}")))
    }
}

/// Has a file of so many terms with their counts indexed, and committed.
pub(crate) async fn load(
    runtime: &Runtime,
    address: &str,
    file: &Path,
    terms: usize,
) -> Result<(), anyhow::Error> {
    let mut connection = target(runtime, address, 0);
    connection.patience = LOAD_PATIENCE;
    let question = format!("L\t{}\n", file.canonicalize()?.display());
    let asked = connection.ask(question.as_bytes(), 1).await;
    asked.map_err(anyhow::Error::msg)?;
    let said = String::from_utf8_lossy(&connection.line);
    let indexed = said.trim().strip_prefix("OK\t");
    anyhow::ensure!(
        indexed == Some(terms.to_string().as_str()),
        "it was given {terms} terms, and says {said:?}"
    );
    Ok(())
}

/// One connection with one request in flight.
#[derive(Debug)]
pub(crate) struct Lines {
    runtime: Runtime,
    address: String,
    /// None before the first request, and after one that failed.
    stream: Option<tokio::io::BufReader<TcpStream>>,
    /// The last answer.
    line: Vec<u8>,
    k: u32,
    patience: Duration,
}

/// Connects with the first request.
pub(crate) fn target(runtime: &Runtime, address: &str, k: u32) -> Lines {
    Lines {
        runtime: runtime.clone(),
        address: address.to_owned(),
        stream: None,
        line: Vec::new(),
        k,
        patience: ANSWER_PATIENCE,
    }
}

impl Lines {
    /// Sends lines, and waits for so many answers.
    async fn ask(&mut self, lines: &[u8], answers: usize) -> Result<(), String> {
        let runtime = self.runtime.clone();
        let asked = runtime.timeout(self.patience, self.exchange(lines, answers));
        let told = asked.await.unwrap_or(Err("DEADLINE"));
        if told.is_err() {
            self.stream = None;
        }
        told.map_err(str::to_owned)
    }

    async fn exchange(&mut self, lines: &[u8], answers: usize) -> Result<(), &'static str> {
        let broken = |_| "CONNECTION";
        if self.stream.is_none() {
            let stream = TcpStream::connect(&self.address).await.map_err(broken)?;
            stream.set_nodelay(true).map_err(broken)?;
            self.stream = Some(tokio::io::BufReader::new(stream));
        }
        let stream = self.stream.as_mut().ok_or("CONNECTION")?;
        stream.write_all(lines).await.map_err(broken)?;
        for _ in 0..answers {
            self.line.clear();
            let read = stream.read_until(b'\n', &mut self.line).await;
            if read.map_err(broken)? == 0 {
                return Err("CONNECTION");
            }
            if self.line.starts_with(b"ERR\t") {
                return Err("REFUSED");
            }
        }
        Ok(())
    }
}

impl Target for Lines {
    async fn read(&mut self, prefixes: &[&str]) -> Result<(), String> {
        let mut lines = String::new();
        for prefix in prefixes {
            // Writing to a string does not fail.
            let _ = writeln!(lines, "G\t{}\t{prefix}", self.k);
        }
        self.ask(lines.as_bytes(), prefixes.len()).await
    }

    async fn record(&mut self, _: &[&str]) -> Result<(), String> {
        Err("UNSUPPORTED".to_owned())
    }
}

/// The number that a text begins with.
fn leading_number(text: &str) -> Option<u32> {
    let end = text.find(|letter: char| !letter.is_ascii_digit());
    text.get(..end.unwrap_or(text.len()))?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_begin_with_a_number() {
        assert_eq!(leading_number("17.0.15"), Some(17));
        assert_eq!(leading_number("11"), Some(11));
        assert_eq!(leading_number("x86"), None);
        assert_eq!(leading_number(""), None);
    }

    #[test]
    fn what_is_not_there_is_left_out_with_a_reason() {
        let empty = tempfile::tempdir().unwrap();
        let reason = Lucene::find(empty.path()).unwrap_err();
        assert!(
            reason.contains("java") || reason.contains("Lucene"),
            "{reason}"
        );
    }
}
