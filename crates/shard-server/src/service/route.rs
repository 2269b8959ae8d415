//! Whether a request has come to the right place.

use std::sync::Arc;

use api::shard::v1::Route;
use api::{ApiError, Reason};
use cluster::{Epoch, Incarnation, KeyRange, NamespaceId, ShardId};

use crate::node::{Node, Replica, View};

/// A request's place, found.
#[derive(Debug)]
pub(super) struct Routed {
    pub(super) replica: Arc<Replica>,
    pub(super) view: Arc<View>,
    /// By which map the caller came here.
    pub(super) epoch: Epoch,
}

/// Finds the replica that a route means. An epoch other than ours is no error by itself: what counts is whether
/// the shard still owns what is asked for.
pub(super) fn find(node: &Node, route: Option<&Route>) -> Result<Routed, ApiError> {
    let Some(route) = route else {
        return Err(ApiError::field(Reason::BadArgument, "route", "must be set"));
    };
    let replica = node.replica(ShardId(route.shard_id))?;
    let view = node.view();
    if replica.incarnation() != Incarnation(route.incarnation) {
        let message = format!(
            "shard {} is in its incarnation {}, not {}",
            replica.shard(),
            replica.incarnation(),
            route.incarnation
        );
        let error = ApiError::new(Reason::StaleIncarnation, message);
        return Err(error.with_epoch(view.epoch()));
    }
    let epoch = Epoch(route.epoch);
    if epoch > view.epoch() {
        node.sync_now.notify_one();
    }
    Ok(Routed {
        replica,
        view,
        epoch,
    })
}

impl Routed {
    /// The error of something that this shard does not own.
    pub(super) fn not_owned(&self, node: &Node, what: &str) -> ApiError {
        if self.epoch != self.view.epoch() {
            return ApiError::stale_epoch(self.epoch, self.view.epoch());
        }
        let message = format!("shard {} does not own {what}", self.replica.shard());
        node.elsewhere(&self.view, self.replica.shard(), message)
    }

    /// Checks that the shard owns a term.
    pub(super) fn check_term(
        &self,
        node: &Node,
        namespace: NamespaceId,
        term: &str,
    ) -> Result<(), ApiError> {
        if self.view.owns(self.replica.shard(), namespace, term) {
            return Ok(());
        }
        Err(self.not_owned(node, "the term"))
    }

    /// The part of a prefix to search, and whether terms beside it must be left out.
    pub(super) fn part(
        &self,
        node: &Node,
        namespace: NamespaceId,
        prefix: &str,
        wanted: Option<KeyRange>,
    ) -> Result<(KeyRange, bool), ApiError> {
        let shard = self.replica.shard();
        // Nearly every prefix lies in one range, and who asks knows it: then no list of parts is needed to see that.
        let is_whole = |wanted: &KeyRange| {
            wanted.is_of_prefix(prefix) && self.view.owns_all(shard, namespace, wanted)
        };
        let wanted = match wanted {
            Some(wanted) if is_whole(&wanted) => return Ok((wanted, false)),
            Some(_) | None => wanted,
        };
        let mut parts = self.view.parts(shard, namespace, prefix);
        match (wanted, parts.len()) {
            (None, 1) => {}
            (None, 0) => return Err(self.not_owned(node, "terms of this prefix")),
            (None, _) => {
                let problem = "must be set, for the shard owns several parts of this prefix";
                return Err(ApiError::field(Reason::BadArgument, "range", problem));
            }
            (Some(wanted), _) => {
                if parts.as_slice() == std::slice::from_ref(&wanted) {
                    return Ok((wanted, false));
                }
                let inside = |part: &KeyRange| part.intersection(&wanted).as_ref() == Some(&wanted);
                if parts.iter().any(inside) {
                    return Ok((wanted, true));
                }
                return Err(self.not_owned(node, "the range"));
            }
        }
        parts
            .pop()
            .map(|part| (part, false))
            .ok_or_else(|| self.not_owned(node, "terms of this prefix"))
    }
}
