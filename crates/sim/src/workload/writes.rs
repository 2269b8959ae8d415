//! Records: one by one, in batches, over streams, and the same ones again.

use std::sync::Arc;
use std::time::Duration;

use api::Outcome;
use api::v1::autocomplete_service_client::AutocompleteServiceClient;
use api::v1::{RecordBatchRequest, RecordBatchResponse, RecordItem, RecordRequest, RequestId};
use client::ClientError;
use rpc::Deadline;
use tonic::transport::Channel;

use super::Worker;
use crate::oracle::{Ended, Ticket};
use crate::trace;

/// Batches that wait to be sent again.
const LATE_MAX: usize = 3;
/// How long a caller waits for a record that it sends once.
const BARE_PATIENCE: Duration = Duration::from_secs(4);
/// Batches of a stream that are on their way at a time.
const WINDOW: usize = 4;

type Answer = Result<RecordBatchResponse, ClientError>;

/// A batch and its increments.
#[derive(Debug)]
struct Batch {
    request: RecordBatchRequest,
    tickets: Vec<Ticket>,
    began: Duration,
}

/// A batch that is sent again and again, long after it was answered.
#[derive(Debug)]
pub(super) struct Late {
    batch: Batch,
    /// Nothing but refusals so far.
    is_refused: bool,
}

fn request_of(ticket: &Ticket) -> RecordRequest {
    RecordRequest {
        term: ticket.key.term.clone(),
        namespace: ticket.key.namespace.to_owned(),
        count: ticket.count(),
        ..RecordRequest::default()
    }
}

impl Worker {
    pub(super) async fn record(&mut self) {
        if let Some(bare) = self.bare.clone()
            && self.dice.percent(20)
        {
            return self.record_bare(bare).await;
        }
        let (ticket, began) = (self.issue(), trace::now());
        let answer = self.client.record(request_of(&ticket)).await;
        self.note_error(answer.as_ref().err());
        let ended = match answer {
            Ok(done) => acked(done.count, done.repeated),
            Err(error) => self.failed(&error),
        };
        self.note_acked(&ticket, ended);
        self.judge
            .lock()
            .written(&ticket, ended, began, trace::now());
    }

    /// A record without a request id, as a caller sends it who has no client of ours: whatever happens to it behind the coordinator, it
    /// counts at most once.
    async fn record_bare(&mut self, mut bare: AutocompleteServiceClient<Channel>) {
        let (ticket, began) = (self.issue(), trace::now());
        let deadline = Deadline::after(&self.runtime, BARE_PATIENCE);
        let call = bare.record(rpc::request(request_of(&ticket), BARE_PATIENCE));
        let ended = match deadline.call(&self.runtime, call).await {
            // The coordinator may have had to send it twice, and answers with the count of the second time.
            Ok(done) => Ended::Repeated(done.into_inner().count),
            Err(error) => {
                let error = ClientError::Call { error, attempts: 1 };
                self.note_error(Some(&error));
                self.failed(&error)
            }
        };
        self.judge
            .lock()
            .written(&ticket, ended, began, trace::now());
    }

    fn new_batch(&mut self, id: Option<RequestId>) -> Batch {
        let (count, began) = (self.dice.below(1..9), trace::now());
        let (namespace, _) = self.place();
        let mut tickets: Vec<Ticket> = Vec::new();
        for _ in 0..count {
            let mut name = self.place();
            while name.0 != namespace {
                name = self.place();
            }
            tickets.push(self.issue_in(namespace, &name.1));
        }
        let item = |ticket: &Ticket| RecordItem {
            term: ticket.key.term.clone(),
            count: ticket.count(),
        };
        Batch {
            request: RecordBatchRequest {
                items: tickets.iter().map(item).collect(),
                namespace: namespace.to_owned(),
                request_id: id,
            },
            tickets,
            began,
        }
    }

    /// Judges the answer to a batch. Says whether it was refused, which counts only where no other sending of it was not.
    fn judge_batch(&mut self, batch: &Batch, answer: Answer) -> bool {
        self.note_error(answer.as_ref().err());
        let (now, judge) = (trace::now(), Arc::clone(&self.judge));
        match answer {
            Ok(done) => {
                for (ticket, result) in batch.tickets.iter().zip(done.results) {
                    let ended = if result.code == 0 {
                        acked(result.count, result.repeated)
                    } else {
                        Ended::Unknown
                    };
                    self.note_acked(ticket, ended);
                    judge.lock().written(ticket, ended, batch.began, now);
                }
                false
            }
            Err(error) if self.outcome(&error) == Outcome::NotApplied => true,
            Err(error) => {
                for ticket in &batch.tickets {
                    let ended = self.failed(&error);
                    judge.lock().written(ticket, ended, batch.began, now);
                }
                false
            }
        }
    }

    fn refuse(&self, batch: &Batch) {
        let mut judge = self.judge.lock();
        for ticket in &batch.tickets {
            judge.written(ticket, Ended::Refused, batch.began, trace::now());
        }
    }

    pub(super) async fn batch(&mut self) {
        let batch = self.new_batch(None);
        let answer = self.client.record_batch(batch.request.clone()).await;
        if self.judge_batch(&batch, answer) {
            self.refuse(&batch);
        }
    }

    /// The same batch twice, one after the other or at once.
    pub(super) async fn repeat(&mut self) {
        let id = self.own_request_id();
        let batch = self.new_batch(Some(id));
        let mut second = batch.request.clone();
        let first = batch.request.clone();
        let (one, other) = if self.dice.percent(50) {
            self.again(&mut second.request_id);
            tokio::join!(
                self.client.record_batch(first),
                self.client.record_batch(second)
            )
        } else {
            let one = self.client.record_batch(first).await;
            let pause = self.dice.millis(0..1_500);
            self.runtime.sleep(pause).await;
            self.again(&mut second.request_id);
            (one, self.client.record_batch(second).await)
        };
        let refused = [one, other].map(|answer| self.judge_batch(&batch, answer));
        if refused == [true, true] {
            self.refuse(&batch);
        }
    }

    /// A batch that will be sent again, or one that was sent long ago: its leader, its process and the log behind it may be gone.
    pub(super) async fn late(&mut self) {
        let mut late = if self.late.len() < LATE_MAX {
            self.late_sequence += 1;
            let oldest = self.late.first().and_then(|late| late.id());
            let id = RequestId {
                client_id: self.late_id.to_vec().into(),
                sequence: self.late_sequence,
                issued_at_ms: self.runtime.wall_ms(),
                acked_below: oldest.unwrap_or(self.late_sequence),
            };
            Late {
                batch: self.new_batch(Some(id)),
                is_refused: true,
            }
        } else {
            let chosen = self.dice.index(self.late.len());
            self.late.remove(chosen)
        };
        let mut request = late.batch.request.clone();
        if !self.late.is_empty() {
            self.again(&mut request.request_id);
        }
        let answer = self.client.record_batch(request).await;
        late.is_refused &= self.judge_batch(&late.batch, answer);
        if self.late.len() + 1 == LATE_MAX && self.dice.percent(20) {
            self.settle(&late);
        } else {
            let place = self.late.partition_point(|other| other.id() < late.id());
            self.late.insert(place, late);
        }
    }

    fn settle(&self, late: &Late) {
        if late.is_refused {
            self.refuse(&late.batch);
        }
    }

    pub(super) fn settle_late(&mut self) {
        for late in std::mem::take(&mut self.late) {
            self.settle(&late);
        }
    }

    /// Batches over one stream.
    pub(super) async fn stream(&mut self) {
        let Ok(stream) = self.client.record_stream(WINDOW) else {
            return;
        };
        let mut pending = Vec::new();
        for _ in 0..self.dice.below(2..6) {
            let batch = self.new_batch(None);
            match stream.send(batch.request.clone()).await {
                Ok(answer) => pending.push((batch, answer)),
                Err(error) => {
                    self.judge_batch(&batch, Err(error));
                }
            }
        }
        for (batch, answer) in pending {
            let answer = answer.await;
            if self.judge_batch(&batch, answer) {
                self.refuse(&batch);
            }
        }
        let closed = stream.close().await;
        self.note_error(closed.as_ref().err());
    }
}

impl Late {
    fn id(&self) -> Option<u64> {
        let id = self.batch.request.request_id.as_ref();
        id.map(|id| id.sequence)
    }
}

fn acked(count: u64, is_repeat: bool) -> Ended {
    if is_repeat {
        Ended::Repeated(count)
    } else {
        Ended::Acked(count)
    }
}
