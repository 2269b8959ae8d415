//! What the clients do: records, batches, repeats and reads, each judged as it is answered.

use std::sync::Arc;
use std::time::Duration;

use api::Outcome;
use api::v1::{
    Consistency, GetCountRequest, GetTopKRequest, RecordBatchRequest, RecordItem, RecordRequest,
    RequestId,
};
use client::{Client, ClientError, ClientOptions};
use parking_lot::Mutex;
use runtime::{CancellationToken, Runtime};

use crate::dice::Dice;
use crate::mutant::Mutant;
use crate::oracle::{Ended, Oracle, Ticket};
use crate::trace;

/// The judge, shared by all clients.
pub(crate) type Judge = Arc<Mutex<Oracle>>;

/// First letters of terms, so that each of the two shards has some.
const LETTERS: [char; 4] = ['b', 'e', 'p', 'w'];
/// Terms that are written to at a time.
const OPEN_TERMS: u64 = 12;

/// One client: does one thing after the other until it is told to stop.
pub(crate) struct Worker {
    runtime: Runtime,
    client: Client,
    judge: Judge,
    dice: Dice,
    own_id: [u8; 16],
    own_sequence: u64,
    /// A bug that the client has.
    pub(crate) mutant: Option<Mutant>,
}

/// The options of every client.
pub(crate) fn options(coordinators: &[String], direct: bool) -> ClientOptions {
    ClientOptions {
        endpoints: coordinators.to_vec(),
        connections: 1,
        deadline: Duration::from_secs(4),
        attempt_timeout: Duration::from_secs(1),
        direct,
        ..ClientOptions::default()
    }
}

impl Worker {
    pub(crate) fn new(
        runtime: &Runtime,
        coordinators: &[String],
        judge: &Judge,
        mut dice: Dice,
    ) -> Result<Self, ClientError> {
        let direct = dice.percent(30);
        let client = Client::connect(runtime.clone(), options(coordinators, direct))?;
        Ok(Self {
            own_id: runtime.random_id(),
            runtime: runtime.clone(),
            client,
            judge: Arc::clone(judge),
            dice,
            own_sequence: 0,
            mutant: None,
        })
    }

    pub(crate) async fn run(mut self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            let pause = self.dice.millis(2..60);
            self.runtime.sleep(pause).await;
            match self.dice.below(0..100) {
                0..45 => self.record().await,
                45..60 => self.batch().await,
                60..70 => self.repeat().await,
                70..93 => self.count().await,
                _ => self.top().await,
            }
        }
    }

    /// A term with room for another increment.
    fn term(&mut self) -> String {
        let letter = self.dice.pick(&LETTERS).unwrap_or('a');
        format!("{letter}{}", self.dice.below(0..OPEN_TERMS))
    }

    fn issue(&mut self) -> Ticket {
        let name = self.term();
        for generation in 0_u64.. {
            let term = format!("{name}-{generation}");
            if let Some(ticket) = self.judge.lock().issue(&term, trace::now()) {
                return ticket;
            }
        }
        unreachable!("generations do not end")
    }

    async fn record(&mut self) {
        let (ticket, began) = (self.issue(), trace::now());
        let request = RecordRequest {
            term: ticket.term.clone(),
            count: ticket.count(),
            ..RecordRequest::default()
        };
        let answer = self.client.record(request).await;
        self.note_error(answer.as_ref().err());
        let ended =
            answer.map_or_else(|error| self.failed(&error), |done| Ended::Acked(done.count));
        self.judge
            .lock()
            .written(&ticket, ended, began, trace::now());
    }

    /// The same write several times, one after the other or at once.
    async fn repeat(&mut self) {
        let (ticket, began) = (self.issue(), trace::now());
        self.own_sequence += 1;
        let request = RecordRequest {
            term: ticket.term.clone(),
            count: ticket.count(),
            request_id: Some(RequestId {
                client_id: self.own_id.to_vec().into(),
                sequence: self.own_sequence,
                issued_at_ms: self.runtime.wall_ms(),
                acked_below: self.own_sequence,
            }),
            ..RecordRequest::default()
        };
        let answers = if self.dice.percent(50) {
            let (one, other) = (request.clone(), self.again(request));
            let (one, other) = tokio::join!(self.client.record(one), self.client.record(other));
            [one, other]
        } else {
            let one = self.client.record(request.clone()).await;
            let pause = self.dice.millis(0..1_500);
            self.runtime.sleep(pause).await;
            let request = self.again(request);
            [one, self.client.record(request).await]
        };
        let mut judge = self.judge.lock();
        let mut refused = 0;
        for answer in answers {
            match answer {
                Ok(done) => {
                    judge.counts.repeats += u64::from(done.repeated);
                    let ended = Ended::Acked(done.count);
                    judge.written(&ticket, ended, began, trace::now());
                }
                Err(error) => refused += u64::from(self.failed(&error) == Ended::Refused),
            }
        }
        if refused == 2 {
            judge.written(&ticket, Ended::Refused, began, trace::now());
        }
    }

    async fn batch(&mut self) {
        let count = self.dice.below(2..9);
        let began = trace::now();
        let tickets: Vec<Ticket> = (0..count).map(|_| self.issue()).collect();
        let item = |ticket: &Ticket| RecordItem {
            term: ticket.term.clone(),
            count: ticket.count(),
        };
        let request = RecordBatchRequest {
            items: tickets.iter().map(item).collect(),
            ..RecordBatchRequest::default()
        };
        let answer = self.client.record_batch(request).await;
        self.note_error(answer.as_ref().err());
        let mut judge = self.judge.lock();
        match answer {
            Ok(done) => {
                for (ticket, result) in tickets.iter().zip(done.results) {
                    let ended = if result.code == 0 {
                        Ended::Acked(result.count)
                    } else {
                        Ended::Unknown
                    };
                    judge.written(ticket, ended, began, trace::now());
                }
            }
            Err(error) => {
                for ticket in &tickets {
                    judge.written(ticket, self.failed(&error), began, trace::now());
                }
            }
        }
    }

    fn level(&mut self) -> Consistency {
        let levels = [
            Consistency::Leader,
            Consistency::Linearizable,
            Consistency::Stale,
        ];
        self.dice.pick(&levels).unwrap_or(Consistency::Leader)
    }

    async fn count(&mut self) {
        let (name, level) = (self.term(), self.level());
        let term = format!("{name}-0");
        let began = trace::now();
        let mut request = GetCountRequest {
            term: term.clone(),
            consistency: level.into(),
            ..GetCountRequest::default()
        };
        if self.mutant == Some(Mutant::StaleForStrict) {
            request.set_consistency(Consistency::Stale);
            request.token = Some(api::v1::SessionToken::default());
        }
        let answer = self.client.count(request).await;
        self.note_error(answer.as_ref().err());
        let mut judge = self.judge.lock();
        match answer {
            Ok(found) => judge.read(&term, found.count, level, began, trace::now()),
            Err(_) => judge.counts.failed_reads += 1,
        }
    }

    async fn top(&mut self) {
        let level = self.level();
        let letter = self.dice.pick(&LETTERS).unwrap_or('a');
        let prefix = if self.dice.percent(30) {
            String::new()
        } else {
            letter.to_string()
        };
        let began = trace::now();
        let request = GetTopKRequest {
            prefix,
            k: 1_000,
            consistency: level.into(),
            ..GetTopKRequest::default()
        };
        let answer = self.client.top_k(request).await;
        self.note_error(answer.as_ref().err());
        let mut judge = self.judge.lock();
        let Ok(found) = answer else {
            judge.counts.failed_reads += 1;
            return;
        };
        let now = trace::now();
        let key =
            |found: &api::v1::Suggestion| (std::cmp::Reverse(found.count), found.term.clone());
        if !found.suggestions.is_sorted_by_key(key) {
            judge.violate(now, "completions are not in order");
        }
        for found in found.suggestions {
            judge.read(&found.term, found.count, level, began, now);
        }
    }

    fn failed(&self, error: &ClientError) -> Ended {
        match (error.outcome(), self.mutant) {
            (Outcome::Unknown, Some(Mutant::UnknownIsRefused)) => Ended::Refused,
            (Outcome::Unknown, Some(Mutant::UnknownIsAcked)) => Ended::Claimed,
            (Outcome::NotApplied, _) => Ended::Refused,
            (Outcome::Unknown, _) => Ended::Unknown,
        }
    }

    /// The same request, to be sent again.
    fn again(&mut self, mut request: RecordRequest) -> RecordRequest {
        if self.mutant == Some(Mutant::FreshIdOnRetry)
            && let Some(id) = &mut request.request_id
        {
            self.own_sequence += 1;
            id.sequence = self.own_sequence;
        }
        request
    }

    fn note_error(&self, error: Option<&ClientError>) {
        if let Some(error) = error {
            let now = trace::now();
            self.judge.lock().note(now, &format!("failed: {error}"));
        }
    }
}
