//! The calls of the shard service that go over long-lived streams.

use api::ApiError;
use api::shard::v1::shard_service_client::ShardServiceClient;
use api::shard::v1::{TopKRequest, TopKResponse, WriteRequest, WriteResponse};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use tonic::transport::Channel;
use tonic::{Response, Status, Streaming};

use super::ANSWER_BYTES_MAX;
use super::mux::{Protocol, Requests};

/// `ShardService.WriteStream`.
#[derive(Debug)]
pub(crate) struct Writes;

/// `ShardService.TopKStream`.
#[derive(Debug)]
pub(crate) struct TopKs;

impl Writes {
    /// An answer, unless it says why there is none.
    pub(crate) fn answered(response: WriteResponse) -> Result<WriteResponse, ApiError> {
        match response.error {
            Some(error) => Err(error.into()),
            None => Ok(response),
        }
    }
}

impl TopKs {
    /// An answer, unless it says why there is none.
    pub(crate) fn answered(response: TopKResponse) -> Result<TopKResponse, ApiError> {
        match response.error {
            Some(error) => Err(error.into()),
            None => Ok(response),
        }
    }
}

impl Protocol for Writes {
    type Request = WriteRequest;
    type Response = WriteResponse;

    fn number(request: &mut WriteRequest, correlation: u64) {
        request.correlation = correlation;
    }

    fn correlation(response: &WriteResponse) -> u64 {
        response.correlation
    }

    fn open(
        channel: Channel,
        requests: Requests<Self>,
    ) -> BoxFuture<'static, Result<Streaming<WriteResponse>, Status>> {
        let mut client =
            ShardServiceClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX);
        async move {
            client
                .write_stream(requests)
                .await
                .map(Response::into_inner)
        }
        .boxed()
    }
}

impl Protocol for TopKs {
    type Request = TopKRequest;
    type Response = TopKResponse;

    fn number(request: &mut TopKRequest, correlation: u64) {
        request.correlation = correlation;
    }

    fn correlation(response: &TopKResponse) -> u64 {
        response.correlation
    }

    fn open(
        channel: Channel,
        requests: Requests<Self>,
    ) -> BoxFuture<'static, Result<Streaming<TopKResponse>, Status>> {
        let mut client =
            ShardServiceClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX);
        async move {
            client
                .top_k_stream(requests)
                .await
                .map(Response::into_inner)
        }
        .boxed()
    }
}
