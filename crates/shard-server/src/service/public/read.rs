//! Reads of clients that come directly.

use api::v1 as wire;
use api::validate::{self, PageToken};
use api::{ApiError, Consistency, Reason};
use cluster::{KeyRange, SessionToken, ShardId, limits};
use rpc::Deadline;
use term::{NamespaceName, Term};
use trie_core::Entry;

use crate::node::{Freshness, Seen, View};
use crate::service::{Services, convert};
use crate::state::{DictionaryState, Page, Scope};

impl Services {
    pub(super) async fn get_top_k(
        &self,
        read: validate::GetTopK,
        deadline: Deadline,
    ) -> Result<wire::GetTopKResponse, ApiError> {
        let view = self.node.view();
        let prefix = read.prefix.as_str();
        let cover = cover(&view, &read.namespace, prefix)?;
        let (here, elsewhere) = self.divide(&cover);
        if here.is_empty() {
            return Err(self.not_here(&view, &cover));
        }
        if read.require_complete && !elsewhere.is_empty() {
            let message = "parts of the prefix are owned by other nodes";
            return Err(ApiError::new(Reason::Incomplete, message));
        }
        check_token(&view, &read.token)?;
        let scope = self.node.resolve(&read.namespace, false, deadline).await?;
        let mut merged: Vec<Entry> = Vec::new();
        let mut token = read.token.clone();
        let mut age_ms = 0;
        for (range, shard) in &here {
            let Some(scope) = scope else {
                continue;
            };
            let several = here.iter().filter(|(_, other)| other == shard).count() > 1;
            let within = several.then_some(range);
            let fresh = Freshness {
                consistency: read.consistency,
                min_index: min_index(&view, &read.token, *shard),
                deadline,
            };
            let look_up =
                |state: &DictionaryState| state.top_k(scope, prefix, read.k as usize, within);
            let seen = self.look_up(*shard, scope, fresh, look_up).await?;
            self.node.replica(*shard)?.metrics().top_k.increment();
            merged.extend(seen.value);
            token.see(seen.position);
            age_ms = age_ms.max(seen.age_ms);
        }
        merged.sort_unstable_by(Entry::cmp_rank);
        merged.truncate(read.k as usize);
        Ok(wire::GetTopKResponse {
            suggestions: convert::suggestions(merged),
            k_served: read.k,
            completeness: Some(completeness(&cover, &elsewhere)),
            token: Some(token.into()),
            age_ms,
        })
    }

    pub(super) async fn get_count(
        &self,
        read: validate::GetCount,
        deadline: Deadline,
    ) -> Result<wire::GetCountResponse, ApiError> {
        let view = self.node.view();
        let term = read.term.as_str();
        let shard = self.owner(&read.namespace, term)?;
        // Before anything is looked up, so that a stranger's question is answered with the map.
        let metrics = self.node.replica(shard)?.metrics().clone();
        check_token(&view, &read.token)?;
        let Some(scope) = self.node.resolve(&read.namespace, false, deadline).await? else {
            return Ok(wire::GetCountResponse::default());
        };
        let fresh = Freshness {
            consistency: read.consistency,
            min_index: min_index(&view, &read.token, shard),
            deadline,
        };
        let seen = self
            .look_up(shard, scope, fresh, |state: &DictionaryState| {
                state.get(scope, term)
            })
            .await?;
        metrics.count.increment();
        let (count, display) = seen
            .value
            .map_or((0, None), |entry| (entry.count, entry.display));
        Ok(wire::GetCountResponse {
            count,
            display: display.map(convert::text).unwrap_or_default(),
        })
    }

    pub(super) async fn list_terms(
        &self,
        list: validate::ListTerms,
        deadline: Deadline,
    ) -> Result<wire::ListTermsResponse, ApiError> {
        let view = self.node.view();
        let prefix = list.prefix.as_str();
        let cover = cover(&view, &list.namespace, prefix)?;
        let (here, elsewhere) = self.divide(&cover);
        if !elsewhere.is_empty() {
            return Err(self.not_here(&view, &cover));
        }
        let Some(scope) = self.node.resolve(&list.namespace, false, deadline).await? else {
            return Ok(wire::ListTermsResponse::default());
        };
        let mut after = list
            .page_token
            .map_or(String::new(), |token| token.after.into_string());
        let size = list.page_size as usize;
        let mut entries: Vec<Entry> = Vec::new();
        let mut bytes = 0;
        let mut more = false;
        for (range, shard) in &here {
            if range.end().is_some_and(|end| end <= after.as_str()) {
                continue;
            }
            // The limits are those of the answer: a shard may add what those before it have left.
            let room = (size - entries.len(), limits::PAGE_BYTES_MAX - bytes);
            let page = self
                .page(*shard, scope, prefix, &after, room, deadline)
                .await?;
            more = page.more;
            bytes += page.bytes;
            entries.extend(page.entries);
            if let Some(last) = entries.last() {
                after = convert::text(last.term.clone());
            }
            let is_full = entries.len() >= size || bytes >= limits::PAGE_BYTES_MAX;
            if more || is_full {
                more |= Some(range) != here.last().map(|(range, _)| range);
                break;
            }
        }
        let next_page_token = if more {
            next_token(&after)?
        } else {
            String::new()
        };
        Ok(wire::ListTermsResponse {
            terms: convert::suggestions(entries),
            next_page_token,
        })
    }

    /// What a shard has behind `after`: at most so many terms, and no more once their texts reach so many bytes.
    async fn page(
        &self,
        shard: ShardId,
        scope: Scope,
        prefix: &str,
        after: &str,
        (terms, bytes): (usize, usize),
        deadline: Deadline,
    ) -> Result<Page, ApiError> {
        let fresh = Freshness {
            consistency: Consistency::Leader,
            min_index: 0,
            deadline,
        };
        let look_up = |state: &DictionaryState| state.list(scope, prefix, after, terms, bytes);
        let page = self.look_up(shard, scope, fresh, look_up).await?.value;
        self.node.replica(shard)?.metrics().list.increment();
        Ok(page)
    }

    async fn look_up<T>(
        &self,
        shard: ShardId,
        scope: Scope,
        fresh: Freshness,
        look_up: impl FnOnce(
            &DictionaryState,
        ) -> Result<crate::state::Reading<T>, crate::state::StaleGeneration>,
    ) -> Result<Seen<T>, ApiError> {
        let replica = self.node.replica(shard)?;
        replica.read_in(scope, fresh, look_up).await
    }

    /// The parts that are hosted here, and those that are not.
    fn divide(&self, cover: &[Part]) -> (Vec<Part>, Vec<Part>) {
        self.node.look_at_slots(|slots| {
            let parts = cover.iter().cloned();
            parts.partition(|(_, shard)| slots.contains_key(shard))
        })
    }

    /// The error of a prefix of which too little is owned here.
    fn not_here(&self, view: &View, cover: &[Part]) -> ApiError {
        if let Some(damage) = self.node.damage() {
            let message = format!("the data of this node is damaged: {damage}");
            return ApiError::new(Reason::DataLoss, message);
        }
        let slots = self.node.slots();
        let stranger = cover.iter().find(|(_, shard)| !slots.contains_key(shard));
        let shard = stranger.map_or(ShardId(0), |(_, shard)| *shard);
        let message = "this node does not own all terms of the prefix".to_owned();
        self.node.elsewhere(view, shard, message)
    }
}

/// A part of a prefix's range, and its owner.
type Part = (KeyRange, ShardId);

fn cover(view: &View, namespace: &NamespaceName, prefix: &str) -> Result<Vec<Part>, ApiError> {
    let map = view
        .map()
        .ok_or_else(|| ApiError::new(Reason::Starting, "this node has no map yet"))?;
    Ok(map.cover(namespace, prefix))
}

fn completeness(cover: &[Part], missing: &[Part]) -> wire::Completeness {
    let count = |parts: &[Part]| u32::try_from(parts.len()).unwrap_or(u32::MAX);
    wire::Completeness {
        shards_attempted: count(cover),
        shards_succeeded: count(cover) - count(missing),
        shards_failed: count(missing),
        missing: missing.iter().map(|(range, _)| range.into()).collect(),
    }
}

/// Refuses a token with a position that nobody knows, or that was lost.
fn check_token(view: &View, token: &SessionToken) -> Result<(), ApiError> {
    let Some(map) = view.map() else {
        return Ok(());
    };
    match token
        .iter()
        .find(|position| map.translate(*position).is_none())
    {
        None => Ok(()),
        Some(position) => Err(ApiError::field(
            Reason::UnknownIncarnation,
            "token",
            format_args!(
                "index {} of incarnation {} of shard {} is not known, or was lost",
                position.index, position.incarnation, position.shard
            ),
        )),
    }
}

/// The index that a token asks of a shard.
fn min_index(view: &View, token: &SessionToken, shard: ShardId) -> u64 {
    let Some(map) = view.map() else {
        return 0;
    };
    token
        .iter()
        .filter(|position| position.shard == shard)
        .filter_map(|position| map.translate(position).flatten())
        .map(|position| position.index)
        .max()
        .unwrap_or(0)
}

fn next_token(after: &str) -> Result<String, ApiError> {
    let after = Term::new(after)
        .map_err(|error| ApiError::internal(format!("a listed term is none: {error}")))?;
    Ok(PageToken { after }.encode())
}
