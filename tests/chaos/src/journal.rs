//! Asks the cluster, and notes in the history what was asked and answered.
//!
//! What always holds: a Record is noted before it is sent. A read is noted with the positions that it demanded and no others: the token that
//! a client collects by itself is not sent along.

use std::sync::Arc;
use std::time::Duration;

use api::v1;
use client::{Client, ClientError};
use parking_lot::Mutex;
use runtime::{Instant, Runtime};

use crate::history::{Answer, History, Level, Outcome, Position, Question, Read};

/// Who is asked, where it is no single server.
pub const COORDINATORS: &str = "coordinators";

/// The history of a run that goes on. Cheap to clone; all clones are one history.
#[derive(Debug, Clone)]
pub struct Journal {
    history: Arc<Mutex<History>>,
    runtime: Runtime,
    begun: Instant,
}

impl Journal {
    /// An empty history, whose clock begins now.
    #[must_use]
    pub fn begin(runtime: &Runtime) -> Self {
        Self {
            history: Arc::default(),
            runtime: runtime.clone(),
            begun: runtime.now(),
        }
    }

    /// The time now by the clock of the history.
    #[must_use]
    pub fn now_us(&self) -> u64 {
        micros(self.runtime.now().saturating_since(self.begun))
    }

    /// What has happened so far.
    #[must_use]
    pub fn history(&self) -> History {
        self.history.lock().clone()
    }

    /// Adds to a term.
    ///
    /// # Errors
    /// What the client was told; the history has it, too.
    pub async fn record(
        &self,
        client: &Client,
        via: &str,
        term: &str,
        add: u64,
    ) -> Result<(), ClientError> {
        let began_us = self.now_us();
        let id = {
            let mut history = self.history.lock();
            history.begin(via.to_owned(), term.to_owned(), add, began_us)
        };
        let request = v1::RecordRequest {
            term: term.to_owned(),
            count: add,
            ..v1::RecordRequest::default()
        };
        let answer = client.record(request).await;
        let outcome = match &answer {
            Ok(response) => Outcome::Acknowledged {
                count: response.count,
                repeated: response.repeated,
                position: Position::all(response.token.as_ref()).first().copied(),
            },
            Err(error) => match error.outcome() {
                api::Outcome::NotApplied => Outcome::Refused,
                api::Outcome::Unknown => Outcome::Open,
            },
        };
        let ended_us = self.now_us();
        self.history.lock().end(id, outcome, ended_us);
        answer.map(drop)
    }

    /// Asks for a count or a list.
    ///
    /// # Errors
    /// As [`Journal::record`].
    pub async fn read(
        &self,
        client: &Client,
        via: &str,
        question: Question,
        level: Level,
        token: Option<v1::SessionToken>,
    ) -> Result<(), ClientError> {
        let demanded = Position::all(token.as_ref());
        // Without one, the client would send its own.
        let token = Some(token.unwrap_or_default());
        let began_us = self.now_us();
        let answer = match &question {
            Question::Count { term } => count(client, term, level, token).await,
            Question::TopK { prefix, k } => top_k(client, (prefix, *k), level, token).await,
        };
        let ended_us = self.now_us();
        let (answer, error) = match answer {
            Ok(answer) => (answer, None),
            Err(error) => {
                let reason = error.reason().map_or("", api::Reason::as_str).to_owned();
                (Answer::Failed { reason }, Some(error))
            }
        };
        self.history.lock().read(Read {
            via: via.to_owned(),
            level,
            question,
            token: demanded,
            began_us,
            ended_us,
            answer,
        });
        error.map_or(Ok(()), Err)
    }
}

async fn count(
    client: &Client,
    term: &str,
    level: Level,
    token: Option<v1::SessionToken>,
) -> Result<Answer, ClientError> {
    let request = v1::GetCountRequest {
        term: term.to_owned(),
        consistency: v1::Consistency::from(level).into(),
        token,
        ..v1::GetCountRequest::default()
    };
    let response = client.count(request).await?;
    let count = response.count;
    Ok(Answer::Count { count })
}

async fn top_k(
    client: &Client,
    (prefix, k): (&str, u32),
    level: Level,
    token: Option<v1::SessionToken>,
) -> Result<Answer, ClientError> {
    let request = v1::GetTopKRequest {
        prefix: prefix.to_owned(),
        k,
        consistency: v1::Consistency::from(level).into(),
        token,
        ..v1::GetTopKRequest::default()
    };
    let response = client.top_k(request).await?;
    let listed = response.suggestions.into_iter();
    let ranges = response.completeness.into_iter().flat_map(|of| of.missing);
    Ok(Answer::TopK {
        list: listed.map(|at| (at.term, at.count)).collect(),
        missing: ranges.map(|range| (range.start, range.end)).collect(),
        positions: Position::all(response.token.as_ref()),
    })
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
