//! The sending side: batches over several streams, their answers into the report.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use api::{Reason, Retry, v1};
use client::{Client, ClientError, RecordStream};
use futures::stream::{FuturesUnordered, StreamExt as _};
use runtime::{Runtime, Task};
use tokio::sync::mpsc;

use super::args::{Format, OnError};
use super::batch::Batch;
use super::delivery::Delivery;
use super::read::{Found, read};
use super::report::Report;
use super::source::{Meter, Source};
use crate::signals::Signals;

/// How long batches in flight may still take after Ctrl-C.
const LAST_ANSWERS: Duration = Duration::from_secs(10);

const PROGRESS_EVERY: Duration = Duration::from_millis(250);

/// How to load.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(super) format: Format,
    pub(super) on_error: OnError,
    pub(super) namespace: String,
    pub(super) streams: usize,
    pub(super) window: usize,
}

/// Why a load ended before its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Stopped {
    #[error("interrupted; the same command goes on from here")]
    Interrupted,
    #[error("{reason}; the same command goes on from here", reason = reason_of(.0))]
    Refused(#[source] ClientError),
    #[error("batch {batch} was not taken wholly ({}); the same command goes on from here", reason.as_str())]
    NotTaken { batch: u64, reason: Reason },
    #[error("the file changed while it was loaded")]
    Changed,
    #[error(transparent)]
    Other(#[from] anyhow::Error),
}

fn reason_of(error: &ClientError) -> String {
    match error.reason() {
        Some(Reason::SessionExpired) => {
            "the cluster no longer remembers whether a part of this file was loaded, so nothing more of it was sent \
             (--again would count the whole file once more)"
                .to_owned()
        }
        Some(_) | None => error.to_string(),
    }
}

type Answer = (Batch, Result<v1::RecordBatchResponse, ClientError>);
type Answers = FuturesUnordered<Pin<Box<dyn Future<Output = Answer> + Send>>>;

/// One load.
#[derive(Debug)]
pub(crate) struct Loader {
    runtime: Runtime,
    delivery: Delivery,
    report: Report,
    /// The first reason to stop.
    stopped: Option<Stopped>,
}

impl Loader {
    pub(crate) fn new(runtime: &Runtime, delivery: Delivery, report: Report) -> Self {
        Self {
            runtime: runtime.clone(),
            delivery,
            report,
            stopped: None,
        }
    }

    pub(crate) fn into_report(self) -> Report {
        self.report
    }

    /// Loads the source; returns when everything that was sent is answered and the state is on disk.
    pub(crate) async fn run(
        &mut self,
        client: &Client,
        source: Source,
        plan: &Plan,
    ) -> Result<(), Stopped> {
        self.report.begin(&self.runtime);
        let streams = (0..plan.streams)
            .map(|_| client.record_stream(plan.window))
            .collect::<Result<Vec<_>, _>>()
            .map_err(Stopped::Refused)?;
        let opened = source.open()?;
        let meter = Arc::clone(&opened.meter);
        let (sender, found) = mpsc::channel(2 * plan.streams);
        let (format, on_error) = (plan.format, plan.on_error);
        let reader = self
            .runtime
            .spawn_blocking("reader", move || read(opened, format, on_error, &sender));
        self.pump(&streams, found, plan, &meter).await;
        // With nothing left to answer, dropping the streams closes them.
        drop(streams);
        self.delivery.finish()?;
        match self.stopped.take() {
            Some(stopped) => Err(stopped),
            None => self.check_reader(reader).await,
        }
    }

    /// Sends what is found and takes answers, until all is done or something stops the load.
    async fn pump(
        &mut self,
        streams: &[RecordStream],
        mut found: mpsc::Receiver<Found>,
        plan: &Plan,
        meter: &Meter,
    ) {
        let mut answers = Answers::new();
        let mut is_read = false;
        let in_flight_max = plan.streams * plan.window;
        let mut signals = Signals::new().ok();
        let mut progress_at = self.runtime.now();
        while self.stopped.is_none() && !(is_read && answers.is_empty()) {
            let wants_more = !is_read && answers.len() < in_flight_max;
            tokio::select! {
                biased;
                () = interrupted(&mut signals) => self.stopped = Some(Stopped::Interrupted),
                Some(answer) = answers.next() => self.answered(answer),
                next = found.recv(), if wants_more => match next {
                    None => is_read = true,
                    Some(Found::Bad { line, problem }) => self.report.bad_line(line, &problem),
                    Some(Found::Batch(batch)) => {
                        // A full window can hold this up for long; Ctrl-C must not wait for it.
                        tokio::select! {
                            biased;
                            () = self.send(streams, batch, plan, &mut answers) => {}
                            () = interrupted(&mut signals) => self.stopped = Some(Stopped::Interrupted),
                        }
                    }
                },
            }
            if self.runtime.now() >= progress_at {
                self.report.progress(&self.runtime, meter.bytes());
                progress_at = self.runtime.now() + PROGRESS_EVERY;
            }
        }
        drop(found);
        self.drain(answers).await;
    }

    async fn send(
        &mut self,
        streams: &[RecordStream],
        mut batch: Batch,
        plan: &Plan,
        answers: &mut Answers,
    ) {
        if self.delivery.is_done(batch.number) {
            self.report.skipped(batch.items.len() as u64);
            return;
        }
        let request_id = match self.delivery.request_id(&self.runtime, batch.number) {
            Ok(id) => id,
            Err(error) => {
                self.stopped = Some(error.into());
                return;
            }
        };
        let request = v1::RecordBatchRequest {
            items: std::mem::take(&mut batch.items),
            namespace: plan.namespace.clone(),
            request_id: Some(request_id),
        };
        let turn = usize::try_from(batch.number).unwrap_or_default() % streams.len().max(1);
        let Some(stream) = streams.get(turn) else {
            return;
        };
        match stream.send(request).await {
            Ok(pending) => answers.push(Box::pin(async move { (batch, pending.await) })),
            Err(error) => self.stopped = Some(Stopped::Refused(error)),
        }
    }

    fn answered(&mut self, (batch, answer): Answer) {
        let response = match answer {
            Ok(response) => response,
            Err(error) => {
                self.stopped.get_or_insert(Stopped::Refused(error));
                return;
            }
        };
        let (mut new, mut repeated) = (0, 0);
        let mut open = None;
        for (result, line) in response.results.iter().zip(&batch.lines) {
            match result.error() {
                None if result.repeated => repeated += 1,
                None => new += 1,
                Some(reason) if reason.retry() == Retry::Never => {
                    self.report.bad_line(*line, reason.as_str());
                }
                Some(reason) => open = Some(reason),
            }
        }
        self.report.applied(new, repeated);
        match open {
            None => self.delivery.settle(batch.number),
            Some(reason) => {
                let batch = batch.number;
                self.stopped
                    .get_or_insert(Stopped::NotTaken { batch, reason });
            }
        }
    }

    /// Takes the answers that still come, for a while.
    async fn drain(&mut self, mut answers: Answers) {
        let runtime = self.runtime.clone();
        let all = async {
            while let Some(answer) = answers.next().await {
                self.answered(answer);
            }
        };
        // Whatever is not answered by then stays unsettled and is sent again by the next run.
        let _ = runtime.timeout(LAST_ANSWERS, all).await;
    }

    async fn check_reader(
        &self,
        reader: Task<Result<Arc<Meter>, anyhow::Error>>,
    ) -> Result<(), Stopped> {
        let meter = reader.await.map_err(anyhow::Error::from)??;
        if !self.delivery.is_same_file(meter.hash()) {
            return Err(Stopped::Changed);
        }
        Ok(())
    }
}

/// Without a handler Ctrl-C ends the process, which a load survives as well.
async fn interrupted(signals: &mut Option<Signals>) {
    match signals {
        Some(signals) => signals.next().await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use api::error::item_error;
    use term::NamespaceName;
    use vfs::RealDisk;

    use super::super::name::LoadName;
    use super::super::state::LoadState;
    use super::*;

    #[test]
    fn what_was_not_taken_for_now_is_sent_again_by_the_next_run() {
        let (runtime, dir) = (Runtime::real(), tempfile::tempdir().unwrap());
        let begin = || {
            let file = blake3::hash(b"a file");
            let name = LoadName::new(b"cluster", file, &NamespaceName::default(), 1.into());
            let path = dir.path().join("load.json");
            let state = LoadState::open(&RealDisk::new(), &path, Path::new("terms.tsv"));
            Delivery::repeatable(file, &name, state.unwrap())
        };
        let mut loader = Loader::new(&runtime, begin(), Report::quiet());
        loader.delivery.request_id(&runtime, 0).unwrap();
        let results = vec![v1::ItemResult::default(), item_error(Reason::MemoryBudget)];
        let batch = Batch {
            number: 0,
            items: Vec::new(),
            lines: vec![1, 2],
        };
        let answer = v1::RecordBatchResponse {
            results,
            token: None,
        };
        loader.answered((batch, Ok(answer)));
        let stopped = loader.stopped.take();
        assert!(matches!(stopped, Some(Stopped::NotTaken { batch: 0, .. })));
        loader.delivery.finish().unwrap();
        drop(loader);
        assert!(!begin().is_done(0));
    }
}
