//! Paging through the terms of a namespace.

use std::sync::Arc;

use api::v1;

use crate::ClientError;
use crate::call::{Answer, Caller, Service};
use crate::retry::Kind;
use crate::routing::Route;

/// The pages of a listing, fetched one after another. A failed page can be asked for again.
#[derive(Debug)]
pub struct TermPages {
    caller: Arc<Caller>,
    request: v1::ListTermsRequest,
    ended: bool,
}

impl TermPages {
    pub(crate) fn new(caller: Arc<Caller>, request: v1::ListTermsRequest) -> Self {
        Self {
            caller,
            request,
            ended: false,
        }
    }

    /// The next page; `None` after the last. A page may be empty without being the last.
    ///
    /// # Errors
    /// When no try was answered.
    pub async fn next(&mut self) -> Result<Option<Vec<v1::Suggestion>>, ClientError> {
        if self.ended {
            return Ok(None);
        }
        let request = &self.request;
        let response = self
            .caller
            .run(Kind::Read, Route::Coordinator, |channel, limit| {
                let request = rpc::request(request.clone(), limit);
                async move {
                    Service::new(channel)
                        .list_terms(request)
                        .await
                        .map(Answer::whole)
                }
            })
            .await?;
        check(&self.request.page_token, &response)?;
        self.ended = response.next_page_token.is_empty();
        self.request.page_token = response.next_page_token;
        Ok(Some(response.terms))
    }
}

/// Whether a listing gets on with the page that came for a token.
pub(crate) fn check(token: &str, response: &v1::ListTermsResponse) -> Result<(), ClientError> {
    if !response.next_page_token.is_empty() && response.next_page_token == token {
        return Err(ClientError::Protocol {
            problem: "a page names itself as the next".to_owned(),
        });
    }
    Ok(())
}
