//! Streams Records at a cluster from several lanes and keeps the history.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use api::v1;
use client::{Client, ClientOptions};
use parking_lot::Mutex;
use runtime::{Runtime, Task};

use crate::history::{History, Outcome};

/// How long one Record may be retried before it is left open. Longer than any recovery of a run takes.
const RECORD_DEADLINE: Duration = Duration::from_secs(90);

/// Retries are bounded by the deadline, not by their number.
const RETRIES: u32 = 10_000;

/// A client whose writes are retried through a recovery.
///
/// # Errors
/// When the address is not one.
pub fn patient_client(runtime: &Runtime, coordinator: &str) -> anyhow::Result<Client> {
    let options = ClientOptions {
        deadline: RECORD_DEADLINE,
        retries: RETRIES,
        ..ClientOptions::to(coordinator)
    };
    Ok(Client::connect(runtime.clone(), options)?)
}

/// Lanes that are sending.
#[derive(Debug)]
pub struct Workload {
    history: Arc<Mutex<History>>,
    settled: Arc<AtomicUsize>,
    lanes: Vec<Task<()>>,
    total: usize,
}

impl Workload {
    /// Starts `lanes` lanes that share the queries: each takes the next one when its Record is settled. Half of the
    /// Records add 1, the others a little more, so that a lost one and a doubled one cannot cancel out.
    #[must_use]
    pub fn start(runtime: &Runtime, client: &Client, queries: Vec<String>, lanes: usize) -> Self {
        let history = Arc::new(Mutex::new(History::default()));
        let settled = Arc::new(AtomicUsize::new(0));
        let next = Arc::new(AtomicUsize::new(0));
        let total = queries.len();
        let queries = Arc::new(queries);
        let lanes = (0..lanes)
            .map(|_| {
                let (history, settled) = (Arc::clone(&history), Arc::clone(&settled));
                let (next, queries) = (Arc::clone(&next), Arc::clone(&queries));
                let client = client.clone();
                runtime.spawn("chaos lane", async move {
                    loop {
                        let index = next.fetch_add(1, Ordering::Relaxed);
                        let Some(term) = queries.get(index) else {
                            break;
                        };
                        record(&client, &history, term, increment(index)).await;
                        settled.fetch_add(1, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        Self {
            history,
            settled,
            lanes,
            total,
        }
    }

    /// How many Records have ended, and how many there will be.
    #[must_use]
    pub fn progress(&self) -> (usize, usize) {
        (self.settled.load(Ordering::Relaxed), self.total)
    }

    /// Waits for the lanes and returns the history.
    ///
    /// # Errors
    /// When a lane panicked.
    pub async fn finish(self) -> anyhow::Result<History> {
        for lane in self.lanes {
            lane.await?;
        }
        let history = self.history.lock().clone();
        Ok(history)
    }
}

fn increment(index: usize) -> u64 {
    if index.is_multiple_of(2) {
        1
    } else {
        2 + (index % 97) as u64
    }
}

async fn record(client: &Client, history: &Mutex<History>, term: &str, add: u64) {
    let operation = history.lock().begin(term.to_owned(), add);
    let request = v1::RecordRequest {
        term: term.to_owned(),
        count: add,
        ..v1::RecordRequest::default()
    };
    let outcome = match client.record(request).await {
        Ok(response) => Outcome::Acknowledged {
            count: response.count,
            repeated: response.repeated,
        },
        Err(error) => match error.outcome() {
            api::Outcome::NotApplied => Outcome::Refused,
            api::Outcome::Unknown => Outcome::Open,
        },
    };
    history.lock().end(operation, outcome);
}
