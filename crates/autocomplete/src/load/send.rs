//! The sending side: batches over several streams, their answers into the report.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use api::{Reason, v1};
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
    #[error("{}", refused(.0))]
    Refused(#[source] ClientError),
    #[error("{}", not_taken(*batch, *reason))]
    NotTaken { batch: u64, reason: Reason },
    #[error("the file changed while it was loaded")]
    Changed,
    #[error(transparent)]
    Other(#[from] anyhow::Error),
}

fn refused(error: &ClientError) -> String {
    how_to_go_on(error.reason(), &error.to_string())
}

fn not_taken(batch: u64, reason: Reason) -> String {
    let problem = format!("batch {batch} was not taken wholly ({})", reason.as_str());
    how_to_go_on(Some(reason), &problem)
}

fn how_to_go_on(reason: Option<Reason>, problem: &str) -> String {
    match reason {
        // The same command would be answered the same.
        Some(Reason::SessionExpired) => {
            "the cluster no longer remembers whether a part of this file was loaded, so nothing more of it was sent \
             (--again would count the whole file once more)"
                .to_owned()
        }
        Some(Reason::RequestIdReused) => format!(
            "{problem}: under this number other lines were sent before; was the load begun with another --format or file?"
        ),
        Some(_) | None => format!("{problem}; the same command goes on from here"),
    }
}

/// Whether a line that was refused for this can never be recorded. Whatever else kept it out says nothing about the line, and may pass.
fn is_fault_of_line(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::BadTerm | Reason::BadCount | Reason::CountOverflow
    )
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
                Some(reason) if is_fault_of_line(reason) => {
                    self.report.bad_line(*line, reason.as_str());
                }
                // Of several reasons people must hear the one that the next run does not mend.
                Some(_) if open == Some(Reason::SessionExpired) => {}
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
    use api::ApiError;
    use api::error::item_error;

    use super::super::delivery::tests::begin;
    use super::*;

    /// A load whose only batch is answered like this: why it stopped, and the id that it sent the batch under.
    fn load(
        dir: &tempfile::TempDir,
        results: Vec<v1::ItemResult>,
    ) -> (Option<Stopped>, v1::RequestId) {
        let runtime = Runtime::real();
        let mut loader = Loader::new(&runtime, begin(dir), Report::quiet());
        let id = loader.delivery.request_id(&runtime, 0).unwrap();
        let batch = Batch {
            number: 0,
            items: Vec::new(),
            lines: (1..).take(results.len()).collect(),
        };
        let answer = v1::RecordBatchResponse {
            results,
            token: None,
        };
        loader.answered((batch, Ok(answer)));
        loader.delivery.finish().unwrap();
        (loader.stopped.take(), id)
    }

    #[test]
    fn what_was_not_taken_for_now_is_sent_again_by_the_next_run() {
        let runtime = Runtime::real();
        for &reason in Reason::ALL {
            let dir = tempfile::tempdir().unwrap();
            let results = vec![v1::ItemResult::default(), item_error(reason)];
            let (stopped, id) = load(&dir, results);
            let mut next = begin(&dir);
            let of_lines = [Reason::BadTerm, Reason::BadCount, Reason::CountOverflow];
            if of_lines.contains(&reason) {
                assert!(stopped.is_none() && next.is_done(0), "{reason:?}");
                continue;
            }
            assert!(
                matches!(stopped, Some(Stopped::NotTaken { batch: 0, reason: told }) if told == reason),
                "{reason:?}: {stopped:?}"
            );
            assert!(!next.is_done(0), "{reason:?}");
            assert_eq!(next.request_id(&runtime, 0).unwrap(), id, "{reason:?}");
        }
    }

    #[test]
    fn a_session_that_expired_is_told_of_before_all_else() {
        let dir = tempfile::tempdir().unwrap();
        let results = vec![
            item_error(Reason::BadTerm),
            item_error(Reason::DataLoss),
            item_error(Reason::SessionExpired),
            item_error(Reason::MemoryBudget),
        ];
        let (stopped, _) = load(&dir, results);
        let told = stopped.unwrap().to_string();
        assert!(told.contains("nothing more of it was sent"), "{told}");
        assert!(told.contains("--again"), "{told}");
        assert!(!told.contains("goes on from here"), "{told}");
        let error = ApiError::new(Reason::SessionExpired, "the request id was settled");
        let refused = Stopped::Refused(ClientError::Call { error, attempts: 1 });
        assert_eq!(refused.to_string(), told);

        let other = Stopped::NotTaken {
            batch: 7,
            reason: Reason::DataLoss,
        };
        assert_eq!(
            other.to_string(),
            "batch 7 was not taken wholly (DATA_LOSS); the same command goes on from here"
        );
    }
}
