//! ListTerms: one shard after another, in byte order.

use api::shard::v1::{ListRequest, ListResponse};
use api::v1::{ListTermsResponse, Suggestion};
use api::validate::{ListTerms, PageToken};
use api::{ApiError, Reason};
use cluster::{ShardId, limits};
use runtime::Instant;
use term::Term;

use super::rounds::{Kind, Rounds};
use super::{Ask, Router, Target};

/// A page while it is filled.
#[derive(Debug, Default)]
pub(crate) struct Page {
    terms: Vec<Suggestion>,
    bytes: usize,
}

/// What a shard has to offer.
#[derive(Debug)]
pub(crate) struct Offer {
    terms: Vec<Suggestion>,
    more: bool,
}

impl From<ListResponse> for Offer {
    fn from(answer: ListResponse) -> Self {
        Self {
            terms: answer.terms,
            more: answer.more,
        }
    }
}

/// What becomes of a page with what one more shard has to offer.
#[derive(Debug)]
pub(crate) enum Filled {
    /// It has room for what the next shard has.
    GoesOn(Page),
    Ends(ListTermsResponse),
}

impl Router {
    /// ListTerms.
    pub(crate) async fn list(
        &self,
        ask: ListTerms,
        deadline: Instant,
    ) -> Result<ListTermsResponse, ApiError> {
        let size = usize::try_from(ask.page_size).unwrap_or(usize::MAX);
        let after = ask.page_token.as_ref().map(|token| &token.after);
        // Everything before this was listed, here or on the pages before.
        let mut reached = after.map(|term| term.as_str().to_owned());
        let mut page = Page::default();
        loop {
            // The map may change between two shards: what is left to list is worked out anew each time.
            let map = self.map()?;
            let cover = map.cover(&ask.namespace, ask.prefix.as_str());
            let is_open = |end: Option<&str>| match (&reached, end) {
                (Some(reached), Some(end)) => end > reached.as_str(),
                (None, _) | (_, None) => true,
            };
            let mut open = cover.iter().filter(|(range, _)| is_open(range.end()));
            let Some((range, shard)) = open.next() else {
                return Ok(page.last());
            };
            let room = (size - page.terms.len(), limits::PAGE_BYTES_MAX - page.bytes);
            let offer = self.offer(&ask, *shard, after, room, deadline).await?;
            let is_last = open.next().is_none();
            page = match page.take(*shard, offer, size, is_last)? {
                Filled::GoesOn(page) => page,
                Filled::Ends(answer) => return Ok(answer),
            };
            reached = range.end().map(str::to_owned);
        }
    }

    async fn offer(
        &self,
        ask: &ListTerms,
        first: ShardId,
        after: Option<&Term>,
        (terms, bytes): (usize, usize),
        deadline: Instant,
    ) -> Result<Offer, ApiError> {
        let mut rounds = Rounds::new(Kind::Read, deadline);
        loop {
            let map = self.map_for(&ask.namespace, None, None, deadline).await?;
            let Some(namespace) = map.namespaces.get(&ask.namespace) else {
                return Ok(Offer {
                    terms: Vec::new(),
                    more: false,
                });
            };
            let to = Ask {
                map: &map,
                shard: first,
                consistency: None,
                rounds: &rounds,
            };
            let call = |target: Target| {
                let request = ListRequest {
                    route: Some(target.route),
                    namespace_id: namespace.id.0,
                    generation: namespace.generation.0,
                    prefix: ask.prefix.as_str().to_owned(),
                    after: after
                        .map(|term| term.as_str().to_owned())
                        .unwrap_or_default(),
                    limit: u32::try_from(terms).unwrap_or(u32::MAX),
                    limit_bytes: u32::try_from(bytes).unwrap_or(u32::MAX),
                };
                async move { target.link.list(request, target.limit).await }
            };
            match self.ask(to, call).await {
                Ok((_, answer)) => return Ok(answer.into()),
                Err(failed) => {
                    let again = rounds.may_follow(first, &failed);
                    if !again || !rounds.next(&self.runtime, &self.leaders).await {
                        return Err(rounds.conclude(first, failed));
                    }
                }
            }
        }
    }
}

impl Page {
    /// Takes what a shard has to offer; `is_last` says that no other shard has more. A page of `size` terms is full.
    pub(crate) fn take(
        mut self,
        shard: ShardId,
        offer: Offer,
        size: usize,
        is_last: bool,
    ) -> Result<Filled, ApiError> {
        let is_empty = offer.terms.is_empty();
        self.add(offer.terms);
        let is_full = self.terms.len() >= size || self.bytes >= limits::PAGE_BYTES_MAX;
        if offer.more && is_empty {
            let message = format!("shard {shard} has more terms and lists none");
            return Err(ApiError::new(Reason::Internal, message));
        }
        if !offer.more && is_last {
            return Ok(Filled::Ends(self.last()));
        }
        if is_full || offer.more {
            return self.with_more().map(Filled::Ends);
        }
        Ok(Filled::GoesOn(self))
    }

    fn add(&mut self, terms: Vec<Suggestion>) {
        let bytes = terms.iter().map(|at| at.term.len() + at.display.len());
        self.bytes += bytes.sum::<usize>();
        self.terms.extend(terms);
    }

    fn last(self) -> ListTermsResponse {
        ListTermsResponse {
            terms: self.terms,
            next_page_token: String::new(),
        }
    }

    fn with_more(self) -> Result<ListTermsResponse, ApiError> {
        let last = self.terms.last().map(|at| Term::new(&at.term));
        let Some(Ok(after)) = last else {
            let message = "a shard listed something that is no term";
            return Err(ApiError::new(Reason::Internal, message));
        };
        Ok(ListTermsResponse {
            terms: self.terms,
            next_page_token: PageToken { after }.encode(),
        })
    }
}
