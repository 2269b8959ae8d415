//! The client itself.

use std::sync::Arc;
use std::time::Duration;

use api::admin::v1::cluster_admin_service_client::ClusterAdminServiceClient;
use api::admin::v1::{GetMapRequest, GetStatusRequest, GetStatusResponse};
use api::{ApiError, Retry, v1};
use cluster::ShardMap;
use runtime::Runtime;

use crate::call::{Answer, Caller, Service};
use crate::ids::{IssuedId, RequestIds};
use crate::record_stream::RecordStream;
use crate::retry::Kind;
use crate::routing::Route;
use crate::typing::TypingSession;
use crate::{ClientError, ClientOptions, TermPages};

/// When to send a batch again of which some items found their shard overloaded: items carry no delay of their own.
const OVERLOADED_ITEM_DELAY: Duration = Duration::from_millis(100);

/// A client of one cluster; cheap to clone, the same ids and session for every clone. See the crate's documentation.
#[derive(Debug, Clone)]
pub struct Client {
    caller: Arc<Caller>,
    ids: Arc<RequestIds>,
}

impl Client {
    /// A client of the cluster behind `options.endpoints`. Connections are made when first used, so this succeeds without a cluster.
    ///
    /// # Errors
    /// [`ClientError::Options`] for an option out of its range.
    pub fn connect(runtime: Runtime, options: ClientOptions) -> Result<Self, ClientError> {
        let ids = RequestIds::new(runtime.random_id());
        let caller = Caller::new(runtime, options)?;
        Ok(Self { caller, ids })
    }

    /// Adds to the count of a term.
    ///
    /// # Errors
    /// See [`ClientError::outcome`] for whether it may have been applied.
    pub async fn record(
        &self,
        mut request: v1::RecordRequest,
    ) -> Result<v1::RecordResponse, ClientError> {
        let _issued = self.identify(&mut request.request_id);
        let route = Route::Term {
            namespace: &request.namespace,
            term: &request.term,
        };
        let response = self
            .caller
            .run(Kind::Write, route, |channel, limit| {
                let request = rpc::request(request.clone(), limit);
                async move {
                    Service::new(channel)
                        .record(request)
                        .await
                        .map(Answer::whole)
                }
            })
            .await?;
        self.caller.session.see(response.token.as_ref());
        Ok(response)
    }

    /// Adds to the counts of up to 1,000 terms. Items that could not be applied in time say so in their result.
    ///
    /// # Errors
    /// When the batch was refused as a whole, or got no answer at all.
    pub async fn record_batch(
        &self,
        mut request: v1::RecordBatchRequest,
    ) -> Result<v1::RecordBatchResponse, ClientError> {
        let _issued = self.identify(&mut request.request_id);
        let items = request.items.len();
        let response = self
            .caller
            .run(Kind::Write, Route::Coordinator, |channel, limit| {
                let request = rpc::request(request.clone(), limit);
                async move {
                    let response = Service::new(channel).record_batch(request).await?;
                    let value = response.into_inner();
                    Ok(Answer {
                        unfinished: unfinished(&value),
                        value,
                        items: results,
                    })
                }
            })
            .await?;
        answers_all(&response, items)?;
        self.caller.session.see(response.token.as_ref());
        Ok(response)
    }

    /// A stream of batches with at most `window` of them in flight (1 to 1,024).
    ///
    /// # Errors
    /// [`ClientError::Options`] for a window out of its range.
    pub fn record_stream(&self, window: usize) -> Result<RecordStream, ClientError> {
        RecordStream::start(Arc::clone(&self.caller), Arc::clone(&self.ids), window)
    }

    /// The terms with the highest counts below a prefix.
    ///
    /// # Errors
    /// When no try was answered, or with `require_complete` when a part is missing.
    pub async fn top_k(
        &self,
        mut request: v1::GetTopKRequest,
    ) -> Result<v1::GetTopKResponse, ClientError> {
        self.carry_token(&mut request.token);
        let route = Route::Prefix {
            namespace: &request.namespace,
            prefix: &request.prefix,
        };
        let response = self
            .caller
            .run(Kind::Read, route, |channel, limit| {
                let request = rpc::request(request.clone(), limit);
                async move {
                    Service::new(channel)
                        .get_top_k(request)
                        .await
                        .map(Answer::whole)
                }
            })
            .await?;
        self.caller.session.see(response.token.as_ref());
        Ok(response)
    }

    /// A typing session: one stream, a request a keystroke.
    #[must_use]
    pub fn top_k_stream(&self) -> TypingSession {
        TypingSession::new(Arc::clone(&self.caller))
    }

    /// The count of a term.
    ///
    /// # Errors
    /// When no try was answered.
    pub async fn count(
        &self,
        mut request: v1::GetCountRequest,
    ) -> Result<v1::GetCountResponse, ClientError> {
        self.carry_token(&mut request.token);
        let route = Route::Term {
            namespace: &request.namespace,
            term: &request.term,
        };
        self.caller
            .run(Kind::Read, route, |channel, limit| {
                let request = rpc::request(request.clone(), limit);
                async move {
                    Service::new(channel)
                        .get_count(request)
                        .await
                        .map(Answer::whole)
                }
            })
            .await
    }

    /// Removes a term.
    ///
    /// # Errors
    /// See [`ClientError::outcome`] for whether it may have been applied.
    pub async fn delete(
        &self,
        mut request: v1::DeleteRequest,
    ) -> Result<v1::DeleteResponse, ClientError> {
        let _issued = self.identify(&mut request.request_id);
        let route = Route::Term {
            namespace: &request.namespace,
            term: &request.term,
        };
        let response = self
            .caller
            .run(Kind::Write, route, |channel, limit| {
                let request = rpc::request(request.clone(), limit);
                async move {
                    Service::new(channel)
                        .delete(request)
                        .await
                        .map(Answer::whole)
                }
            })
            .await?;
        self.caller.session.see(response.token.as_ref());
        Ok(response)
    }

    /// Removes every term of a namespace.
    ///
    /// # Errors
    /// See [`ClientError::outcome`] for whether it may have been applied.
    pub async fn clear(
        &self,
        mut request: v1::ClearNamespaceRequest,
    ) -> Result<v1::ClearNamespaceResponse, ClientError> {
        let _issued = self.identify(&mut request.request_id);
        self.caller
            .run(Kind::Write, Route::Coordinator, |channel, limit| {
                let request = rpc::request(request.clone(), limit);
                async move {
                    Service::new(channel)
                        .clear_namespace(request)
                        .await
                        .map(Answer::whole)
                }
            })
            .await
    }

    /// The terms of a namespace in byte order, page by page from `request.page_token` on.
    #[must_use]
    pub fn list_terms(&self, request: v1::ListTermsRequest) -> TermPages {
        TermPages::new(Arc::clone(&self.caller), request)
    }

    /// The state of the cluster, as the coordinator sees it.
    ///
    /// # Errors
    /// When no try was answered.
    pub async fn status(&self) -> Result<GetStatusResponse, ClientError> {
        self.caller
            .run(
                Kind::Read,
                Route::Coordinator,
                |channel, limit| async move {
                    ClusterAdminServiceClient::new(channel)
                        .get_status(rpc::request(GetStatusRequest::default(), limit))
                        .await
                        .map(Answer::whole)
                },
            )
            .await
    }

    /// The shard map, fetched now.
    ///
    /// # Errors
    /// When no try was answered; [`ClientError::Protocol`] for a map that breaks a rule.
    pub async fn map(&self) -> Result<ShardMap, ClientError> {
        let response = self
            .caller
            .run(
                Kind::Read,
                Route::Coordinator,
                |channel, limit| async move {
                    ClusterAdminServiceClient::new(channel)
                        .get_map(rpc::request(GetMapRequest {}, limit))
                        .await
                        .map(Answer::whole)
                },
            )
            .await?;
        let protocol = |problem: String| ClientError::Protocol { problem };
        let map = response
            .map
            .ok_or_else(|| protocol("an answer without a map".to_owned()))?;
        ShardMap::try_from(map).map_err(|error| protocol(format!("its map: {error}")))
    }

    /// What this client has seen so far, to be handed to another one. `None` while it has seen nothing.
    #[must_use]
    pub fn session_token(&self) -> Option<v1::SessionToken> {
        self.caller.session.token()
    }

    /// Adds what somebody else has seen, so that later reads here see it too.
    pub fn merge_session_token(&self, token: &v1::SessionToken) {
        self.caller.session.see(Some(token));
    }

    /// Forgets what was seen. Needed after `UNKNOWN_INCARNATION`: what the session had seen is gone for good.
    pub fn forget_session(&self) {
        self.caller.session.forget();
    }

    /// Sets the id of a write that has none. It is settled when the guard is dropped.
    fn identify(&self, id: &mut Option<v1::RequestId>) -> Option<IssuedId> {
        if id.is_some() {
            return None;
        }
        let issued = self.ids.issue(self.caller.runtime.wall_ms());
        *id = Some(issued.id());
        Some(issued)
    }

    fn carry_token(&self, token: &mut Option<v1::SessionToken>) {
        if token.is_none() {
            *token = self.caller.session.token();
        }
    }
}

fn results(response: &mut v1::RecordBatchResponse) -> &mut [v1::ItemResult] {
    &mut response.results
}

/// Why a batch should be sent again: the first item whose failure may pass.
pub(crate) fn unfinished(response: &v1::RecordBatchResponse) -> Option<ApiError> {
    let mut reasons = response.results.iter().filter_map(v1::ItemResult::error);
    let reason = reasons.find(|reason| reason.retry() != Retry::Never)?;
    let error = ApiError::new(reason, "some items of the batch were not applied");
    Some(if reason.retry() == Retry::AfterDelay {
        error.with_retry_after(OVERLOADED_ITEM_DELAY)
    } else {
        error
    })
}

/// Checks that an answer to a batch speaks of each of its items.
pub(crate) fn answers_all(
    response: &v1::RecordBatchResponse,
    items: usize,
) -> Result<(), ClientError> {
    if response.results.len() == items {
        return Ok(());
    }
    Err(ClientError::Protocol {
        problem: format!("{} results for {items} items", response.results.len()),
    })
}
