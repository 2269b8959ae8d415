//! One request in flight.

use std::sync::Arc;

use api::v1;
use client::{Client, ClientError, RecordStream, TypingSession};
use runtime::{Instant, Runtime};

use super::args::BenchArgs;
use super::measure::Measured;
use super::terms::Choice;

#[derive(Debug)]
pub(super) struct Worker {
    runtime: Runtime,
    client: Client,
    terms: Arc<Vec<String>>,
    choice: Choice,
    namespace: String,
    k: u32,
    batch: u16,
    record_percent: u64,
    streams: Option<Streams>,
}

#[derive(Debug)]
struct Streams {
    reads: TypingSession,
    records: RecordStream,
}

impl Worker {
    pub(super) fn new(
        runtime: &Runtime,
        client: &Client,
        arguments: &BenchArgs,
        terms: &Arc<Vec<String>>,
        number: u16,
    ) -> Self {
        let streams = arguments
            .stream
            .then(|| client.record_stream(1).ok())
            .flatten();
        Self {
            runtime: runtime.clone(),
            client: client.clone(),
            terms: Arc::clone(terms),
            // Far apart, so that no two workers walk the same choices.
            choice: Choice::new(arguments.seed.wrapping_add(u64::from(number) << 32)),
            namespace: arguments.namespace(),
            k: arguments.k,
            batch: arguments.batch,
            record_percent: arguments.record_percent(),
            streams: streams.map(|records| Streams {
                reads: client.top_k_stream(),
                records,
            }),
        }
    }

    /// Sends until `end`; what began before `start` does not count.
    pub(super) async fn run(
        mut self,
        start: Instant,
        end: Instant,
    ) -> Result<Measured, anyhow::Error> {
        let mut measured = Measured::new()?;
        loop {
            let begun = self.runtime.now();
            if begun >= end {
                return Ok(measured);
            }
            let is_record = self.choice.below(100) < self.record_percent;
            let result = if is_record {
                self.record().await
            } else {
                self.read().await
            };
            let time = self.runtime.now().saturating_since(begun);
            if begun < start {
                continue;
            }
            match result {
                Ok(()) if is_record => measured.record(time, u64::from(self.batch)),
                Ok(()) => measured.read(time),
                Err(error) => {
                    let reason = error.reason().map_or("CLIENT", api::Reason::as_str);
                    measured.error(reason);
                }
            }
        }
    }

    async fn read(&mut self) -> Result<(), ClientError> {
        let request = v1::GetTopKRequest {
            prefix: self.choice.prefix(&self.terms).to_owned(),
            k: self.k,
            namespace: self.namespace.clone(),
            ..Default::default()
        };
        match &mut self.streams {
            Some(streams) => streams.reads.ask(request).await?,
            None => self.client.top_k(request).await?,
        };
        Ok(())
    }

    async fn record(&mut self) -> Result<(), ClientError> {
        if self.batch == 1 && self.streams.is_none() {
            let request = v1::RecordRequest {
                term: self.choice.term(&self.terms).to_owned(),
                namespace: self.namespace.clone(),
                ..Default::default()
            };
            self.client.record(request).await?;
            return Ok(());
        }
        let items = (0..self.batch).map(|_| v1::RecordItem {
            term: self.choice.term(&self.terms).to_owned(),
            count: 1,
        });
        let request = v1::RecordBatchRequest {
            items: items.collect(),
            namespace: self.namespace.clone(),
            request_id: None,
        };
        let response = match &self.streams {
            Some(streams) => streams.records.send(request).await?.await?,
            None => self.client.record_batch(request).await?,
        };
        let failed = response.results.iter().find_map(v1::ItemResult::error);
        match failed {
            None => Ok(()),
            Some(reason) => Err(ClientError::Call {
                error: api::ApiError::new(reason, "an item was not applied"),
                attempts: 1,
            }),
        }
    }
}
