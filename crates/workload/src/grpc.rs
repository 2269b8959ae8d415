//! A cluster of ours as a target.

use std::time::Duration;

use api::v1;
use client::{Client, ClientError, RecordStream, TypingSession};
use futures::future::try_join_all;

use crate::Target;

/// How a cluster is asked.
#[derive(Debug, Clone)]
pub struct GrpcOptions {
    /// The dictionary.
    pub namespace: String,
    /// Suggestions to ask for.
    pub k: u32,
    /// Send over streams instead of one call after the other.
    pub stream: bool,
}

/// One request in flight to a cluster.
#[derive(Debug)]
pub struct Grpc {
    client: Client,
    options: GrpcOptions,
    streams: Option<Streams>,
    retry_after: Option<Duration>,
}

#[derive(Debug)]
struct Streams {
    reads: TypingSession,
    records: RecordStream,
}

impl Grpc {
    /// A target of its own over a client that others may use too.
    #[must_use]
    pub fn new(client: &Client, options: GrpcOptions) -> Self {
        let streams = options
            .stream
            .then(|| client.record_stream(1).ok())
            .flatten();
        Self {
            client: client.clone(),
            options,
            streams: streams.map(|records| Streams {
                reads: client.top_k_stream(),
                records,
            }),
            retry_after: None,
        }
    }

    async fn ask(&mut self, prefixes: &[&str]) -> Result<(), ClientError> {
        let requests = prefixes.iter().map(|prefix| v1::GetTopKRequest {
            prefix: (*prefix).to_owned(),
            k: self.options.k,
            namespace: self.options.namespace.clone(),
            ..Default::default()
        });
        match &mut self.streams {
            Some(streams) => {
                streams.reads.ask_all(requests.collect()).await?;
            }
            None => {
                try_join_all(requests.map(|request| self.client.top_k(request))).await?;
            }
        }
        Ok(())
    }

    async fn count(&mut self, terms: &[&str]) -> Result<(), ClientError> {
        if let ([term], None) = (terms, &self.streams) {
            let request = v1::RecordRequest {
                term: (*term).to_owned(),
                namespace: self.options.namespace.clone(),
                ..Default::default()
            };
            self.client.record(request).await?;
            return Ok(());
        }
        let items = terms.iter().map(|term| v1::RecordItem {
            term: (*term).to_owned(),
            count: 1,
        });
        let request = v1::RecordBatchRequest {
            items: items.collect(),
            namespace: self.options.namespace.clone(),
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

    /// Keeps what a refusal says of when to come back, and names the reason.
    fn note(&mut self, result: Result<(), ClientError>) -> Result<(), String> {
        result.map_err(|error| {
            self.retry_after = error.retry_after();
            let reason = error.reason().map_or("CLIENT", api::Reason::as_str);
            reason.to_owned()
        })
    }
}

impl Target for Grpc {
    async fn read(&mut self, prefixes: &[&str]) -> Result<(), String> {
        let result = self.ask(prefixes).await;
        self.note(result)
    }

    async fn record(&mut self, terms: &[&str]) -> Result<(), String> {
        let result = self.count(terms).await;
        self.note(result)
    }

    fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }
}
