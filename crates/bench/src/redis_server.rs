//! Redis: suggestion dictionaries of its search module, and a sorted set for each prefix.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{Client, Cmd, Pipeline, RedisError, Value};
use runtime::Runtime;
use workload::Target;

use crate::process::{Process, Processes, free_port};

/// The one key of a suggestion dictionary.
const DICTIONARY: &str = "suggestions";

const START_PATIENCE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(20);
/// Answers are waited for as long as ours are.
const ANSWER_PATIENCE: Duration = Duration::from_secs(10);
/// Terms that are sent before their answers are waited for, while loading.
const LOAD_BATCH: usize = 500;

/// How Redis is made to complete prefixes.
#[derive(Debug, Clone)]
pub(crate) enum Design {
    /// FT.SUGADD and FT.SUGGET of this module. Its suggestions are in no append-only file: nothing is durable between snapshots.
    Dictionary(PathBuf),
    /// A sorted set for each prefix of each term, in an append-only file that is synced for every write.
    SortedSets,
}

/// Starts Redis in an empty folder; gives its address.
pub(crate) async fn start(
    runtime: &Runtime,
    program: &Path,
    design: &Design,
    dir: &Path,
) -> Result<(Processes, String), anyhow::Error> {
    let port = free_port()?;
    let mut command = Command::new(program);
    command
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1"])
        .args(["--save", "", "--daemonize", "no", "--dir"])
        .arg(dir)
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    match design {
        Design::Dictionary(module) => command.arg("--loadmodule").arg(module),
        Design::SortedSets => command.args(["--appendonly", "yes", "--appendfsync", "always"]),
    };
    let mut process = Process::start(&mut command)?;
    let address = format!("127.0.0.1:{port}");
    let deadline = runtime.now() + START_PATIENCE;
    loop {
        process.ensure_runs()?;
        if let Ok(mut connection) = connect(&address).await {
            let answer: Result<String, RedisError> =
                redis::cmd("PING").query_async(&mut connection).await;
            if answer.is_ok() {
                return Ok((Processes(vec![process]), address));
            }
        }
        anyhow::ensure!(runtime.now() < deadline, "it does not answer");
        runtime.sleep(POLL).await;
    }
}

async fn connect(address: &str) -> Result<MultiplexedConnection, RedisError> {
    let client = Client::open(format!("redis://{address}"))?;
    // It may still be at work for those who asked before.
    let config = redis::AsyncConnectionConfig::new()
        .set_connection_timeout(Some(ANSWER_PATIENCE))
        .set_response_timeout(Some(ANSWER_PATIENCE));
    client
        .get_multiplexed_async_connection_with_config(&config)
        .await
}

/// Loads terms with their counts, in batches over one connection.
pub(crate) async fn load(
    address: &str,
    design: &Design,
    terms: &[String],
    counts: &[u64],
) -> Result<(), anyhow::Error> {
    let mut connection = connect(address).await?;
    for (terms, counts) in terms.chunks(LOAD_BATCH).zip(counts.chunks(LOAD_BATCH)) {
        let mut pipeline = Pipeline::new();
        for (term, count) in terms.iter().zip(counts) {
            add(&mut pipeline, design, term, *count);
        }
        pipeline.exec_async(&mut connection).await?;
    }
    Ok(())
}

/// What counts a term.
fn add(pipeline: &mut Pipeline, design: &Design, term: &str, count: u64) {
    match design {
        Design::Dictionary(_) => {
            let command = pipeline.cmd("FT.SUGADD").arg(DICTIONARY).arg(term);
            command.arg(count).arg("INCR").ignore();
        }
        Design::SortedSets => {
            let ends = term
                .char_indices()
                .map(|(at, letter)| at + letter.len_utf8());
            for prefix in ends.filter_map(|end| term.get(..end)) {
                let command = pipeline.cmd("ZINCRBY").arg(key(prefix));
                command.arg(count).arg(term).ignore();
            }
        }
    }
}

fn key(prefix: &str) -> String {
    format!("p:{prefix}")
}

/// One connection with one request in flight.
#[derive(Debug)]
pub(crate) struct Redis {
    connection: MultiplexedConnection,
    design: Design,
    k: u32,
}

/// Connects.
pub(crate) async fn target(address: &str, design: Design, k: u32) -> Result<Redis, anyhow::Error> {
    Ok(Redis {
        connection: connect(address).await?,
        design,
        k,
    })
}

impl Redis {
    fn question(&self, prefix: &str) -> Cmd {
        let mut command;
        match self.design {
            Design::Dictionary(_) => {
                command = redis::cmd("FT.SUGGET");
                command.arg(DICTIONARY).arg(prefix).arg("WITHSCORES");
                command.arg("MAX").arg(self.k);
            }
            Design::SortedSets => {
                command = redis::cmd("ZREVRANGE");
                command.arg(key(prefix)).arg(0).arg(self.k - 1);
                command.arg("WITHSCORES");
            }
        }
        command
    }
}

impl Target for Redis {
    async fn read(&mut self, prefixes: &[&str]) -> Result<(), String> {
        let mut pipeline = Pipeline::new();
        for prefix in prefixes {
            pipeline.add_command(self.question(prefix));
        }
        let answer: Result<Value, RedisError> = pipeline.query_async(&mut self.connection).await;
        answer.map(drop).map_err(|error| reason(&error))
    }

    async fn record(&mut self, terms: &[&str]) -> Result<(), String> {
        let mut pipeline = Pipeline::new();
        for term in terms {
            add(&mut pipeline, &self.design, term, 1);
        }
        let done = pipeline.exec_async(&mut self.connection).await;
        done.map_err(|error| reason(&error))
    }
}

fn reason(error: &RedisError) -> String {
    error.code().unwrap_or("CONNECTION").to_owned()
}
