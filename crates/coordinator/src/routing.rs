//! Where a request goes, and what to do when it was sent to the wrong place.
//!
//! A request works in rounds. Each looks at the newest map, sends what is still open to who should have it, and keeps what was
//! answered. What came back as *route again* (a stale map, another leader) is open in the next round, after a short pause, as
//! long as there is time. So is, of a shard with several replicas, what one of them did not answer: by the time the others have
//! elected a leader, it can be asked. Nothing else is tried again here: the caller retries, with its request id.
//!
//! What always holds:
//! - A write that may have been applied is sent again only under the same request id, which every write has: its second
//!   arrival has no effect. Once a try may have been applied, no later failure says that nothing was.
//! - No round begins after the deadline.

mod at_once;
mod choice;
mod hedges;
mod hedging;
mod lead;
mod leaders;
pub(crate) mod list;
mod reads;
mod rounds;
pub(crate) mod scatter;
pub(crate) mod writes;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use api::shard::v1::Route;
use api::{ApiError, Consistency, Outcome, Reason};
use cluster::{Incarnation, Namespace, NodeId, SessionToken, Shard, ShardId, ShardMap};
use rpc::Trace;
use runtime::{Instant, Runtime};
use term::NamespaceName;

use crate::lanes::Lanes;
use crate::meta::{Meta, unexpected};
use crate::metadata::{Command, Response};
use crate::nodes::{Link, Nodes};

use choice::{Candidate, Failure};
pub(crate) use hedges::Hedges;
use leaders::Leaders;
use rounds::{Failed, Rounds, kind_of};

/// What of the time that is left is kept for the way back to the caller: one part in this many, at most [`RETURN_MAX`].
const RETURN_PARTS: u32 = 10;
const RETURN_MAX: Duration = Duration::from_millis(50);

/// How long one of several replicas is waited for: half of what is left, but so long at least and at most. An election takes
/// about as long, so that a silent leader costs a request of two seconds the first half of them and no more.
const TRY_MIN: Duration = Duration::from_millis(500);
const TRY_MAX: Duration = Duration::from_secs(1);

/// Routes requests to shards.
#[derive(Debug)]
pub(crate) struct Router {
    runtime: Runtime,
    meta: Arc<Meta>,
    nodes: Nodes,
    lanes: Lanes,
    leaders: Leaders,
    hedges: Hedges,
    /// Reads that any replica may answer, so that they are spread.
    turn: AtomicUsize,
}

/// One try of a request: for which shard, by which map, and what the tries before it have shown.
#[derive(Debug)]
struct Ask<'a> {
    map: &'a ShardMap,
    shard: ShardId,
    /// `None` for what only a leader does.
    consistency: Option<Consistency>,
    rounds: &'a Rounds,
}

/// Where one try of a request goes.
#[derive(Debug)]
struct Target {
    node: NodeId,
    link: Arc<Link>,
    route: Route,
    /// How long its answer is waited for.
    limit: Duration,
}

/// A try that is on its way.
#[derive(Debug)]
struct Sent {
    node: NodeId,
    link: Arc<Link>,
    /// Replicas that the shard has.
    replicas: usize,
}

impl Router {
    pub(crate) fn new(runtime: &Runtime, meta: Arc<Meta>, nodes: Nodes, hedges: Hedges) -> Self {
        Self {
            runtime: runtime.clone(),
            meta,
            nodes,
            lanes: Lanes::new(runtime.clone()),
            leaders: Leaders::new(runtime),
            hedges,
            turn: AtomicUsize::new(0),
        }
    }

    /// The link to a node, by its identity.
    pub(crate) fn link(&self, node: NodeId) -> Result<Arc<Link>, ApiError> {
        let map = self.map()?;
        let found = map.nodes.get(&node).filter(|node| !node.lost);
        let found = found.ok_or_else(|| {
            ApiError::new(Reason::NotFound, format!("node {node} is not in the map"))
        })?;
        self.nodes.link(found)
    }

    /// Forgets what the map has given up. Called when the map has changed.
    pub(crate) fn map_changed(&self) {
        if let Some(map) = self.meta.map() {
            self.nodes.keep(&map);
            self.leaders.keep(&map);
        }
    }

    /// A replica reported whom it follows, and in which life of the shard and term. Of what is not in the map nothing is noted.
    pub(crate) fn learn_leader(&self, shard: ShardId, leader: NodeId, from: (Incarnation, u64)) {
        let is_present = |map: Arc<ShardMap>| {
            let shard = map.shards.get(&shard);
            shard.is_some_and(|at| at.incarnation == from.0)
        };
        if self.meta.map().is_some_and(is_present) {
            self.leaders.report(shard, leader, from);
        }
    }

    fn map(&self) -> Result<Arc<ShardMap>, ApiError> {
        self.meta.map().ok_or_else(|| {
            ApiError::new(Reason::Starting, "the metadata is not readable yet")
                .with_outcome(Outcome::NotApplied)
        })
    }

    /// The map for a read or a delete. What is missing in it (a namespace, a life that a token names) does not exist: before anybody
    /// is told so, this coordinator catches up with the one that leads. Only a STALE read does without, and only one without a token: who
    /// brings one has seen something, and an empty answer would be from before that.
    async fn map_for(
        &self,
        name: &NamespaceName,
        token: Option<&SessionToken>,
        consistency: Option<Consistency>,
        deadline: Instant,
    ) -> Result<Arc<ShardMap>, ApiError> {
        let map = self.map()?;
        let knows_token = token.is_none_or(|token| knows(&map, token));
        if knows_token && map.namespaces.contains_key(name) {
            return Ok(map);
        }
        let takes_any =
            consistency == Some(Consistency::Stale) && token.is_none_or(SessionToken::is_empty);
        // In a box, for hardly any request comes here and all carry it.
        let caught_up = Box::pin(self.meta.catch_up());
        match self.until(deadline, caught_up).await {
            Err(error) if !takes_any => Err(error),
            Ok(()) | Err(_) => self.map(),
        }
    }

    /// Waits for the metadata before a shard is asked, for no longer than the request may take.
    async fn until<T>(
        &self,
        deadline: Instant,
        work: impl Future<Output = Result<T, ApiError>>,
    ) -> Result<T, ApiError> {
        let left = deadline.saturating_since(self.runtime.now());
        let ended = self.runtime.timeout(left, work).await;
        ended.unwrap_or_else(|_| {
            let message = "the metadata did not answer before the deadline";
            Err(ApiError::deadline(message).with_outcome(Outcome::NotApplied))
        })
    }

    /// How long an answer from a shard may be waited for.
    fn left(&self, deadline: Instant) -> Result<Duration, ApiError> {
        let left = deadline.saturating_since(self.runtime.now());
        if left.is_zero() {
            let error = ApiError::deadline("the deadline passed before a shard was asked");
            return Err(error.with_outcome(Outcome::NotApplied));
        }
        Ok(left - (left / RETURN_PARTS).min(RETURN_MAX))
    }

    /// The namespace of a write, which creates it where it does not exist.
    pub(crate) async fn namespace_of_write(
        &self,
        name: &NamespaceName,
        deadline: Instant,
    ) -> Result<(Arc<ShardMap>, Namespace), ApiError> {
        let map = self.map()?;
        if let Some(found) = map.namespaces.get(name) {
            let found = found.clone();
            return Ok((map, found));
        }
        let created = Box::pin(self.create_namespace(name));
        self.until(deadline, created).await?;
        let map = self.map()?;
        match map.namespaces.get(name).cloned() {
            Some(found) => Ok((map, found)),
            None => Err(
                ApiError::new(Reason::Starting, "the new namespace is not in the map yet")
                    .with_outcome(Outcome::NotApplied),
            ),
        }
    }

    /// Creates a namespace where it does not exist.
    pub(crate) async fn create_namespace(&self, name: &NamespaceName) -> Result<(), ApiError> {
        let command = Command::CreateNamespace {
            name: name.as_str().to_owned(),
            normaliser_version: term::NORMALISER_VERSION,
            unicode_version: term::UNICODE_VERSION.to_owned(),
        };
        // Creating is idempotent and the record itself was not sent yet, whatever became of the creation.
        let created = self.meta.propose(&command).await;
        match created.map_err(|error| error.with_outcome(Outcome::NotApplied))? {
            Response::Namespace => Ok(()),
            other @ (Response::Done
            | Response::Node { .. }
            | Response::Generation { .. }
            | Response::Incarnation { .. }
            | Response::Turn(_)
            | Response::Refused(_)) => Err(unexpected(&other)),
        }
    }

    /// Asks one replica of a shard, and learns from how it answers.
    async fn ask<T, F, Fut>(&self, ask: Ask<'_>, call: F) -> Result<(NodeId, T), Failed>
    where
        F: FnOnce(Target) -> Fut,
        Fut: Future<Output = Result<T, ApiError>>,
    {
        let (sent, target) = self.begin(&ask)?;
        let answer = call(target).await;
        let answer = self.settle(&ask, &sent, answer)?;
        Ok((sent.node, answer))
    }

    /// Chooses whom to ask, and makes it ready to be called.
    fn begin(&self, ask: &Ask<'_>) -> Result<(Sent, Target), Failed> {
        let (shard, node, left) = self.choose(ask)?;
        self.send(ask, shard, node, left)
    }

    /// Whom to ask for which shard, and how long its answer may be waited for.
    fn choose<'a>(&self, ask: &Ask<'a>) -> Result<(&'a Shard, NodeId, Duration), ApiError> {
        let shard = found(ask.map, ask.shard)?;
        let left = self.left(ask.rounds.deadline())?;
        Ok((shard, self.pick(ask, shard)?, left))
    }

    /// Makes a replica ready to be called, and notes that it is.
    fn send(
        &self,
        ask: &Ask<'_>,
        shard: &Shard,
        node: NodeId,
        left: Duration,
    ) -> Result<(Sent, Target), Failed> {
        let replicas = shard.replicas.len();
        match self.target(ask, shard, node, left) {
            Ok(target) => {
                let link = Arc::clone(&target.link);
                let sent = Sent {
                    node,
                    link,
                    replicas,
                };
                Ok((sent, target))
            }
            Err(error) => Err(self.failed(ask, node, replicas, error)),
        }
    }

    /// Learns from how a replica answered.
    fn settle<T>(
        &self,
        ask: &Ask<'_>,
        sent: &Sent,
        answer: Result<T, ApiError>,
    ) -> Result<T, Failed> {
        let Sent {
            node,
            link,
            replicas,
        } = sent;
        let is_silence = |error: &ApiError| matches!(kind_of(error), Failure::Silent);
        if answer.as_ref().is_err_and(is_silence) {
            self.nodes.doubt(*node, link);
        }
        let answer = answer.map_err(|error| self.failed(ask, *node, *replicas, error))?;
        self.answered(ask, *node);
        Ok(answer)
    }

    /// Learns from an answer.
    fn answered(&self, ask: &Ask<'_>, node: NodeId) {
        self.leaders.answered(node);
        if ask.consistency != Some(Consistency::Stale) {
            self.leaders.learn(ask.shard, node);
        }
    }

    fn failed(&self, ask: &Ask<'_>, node: NodeId, replicas: usize, error: ApiError) -> Failed {
        self.leaders.heed(ask.shard, node, &error);
        Failed {
            error,
            node: Some(node),
            replicas,
            beside: None,
        }
    }

    fn target(
        &self,
        ask: &Ask<'_>,
        shard: &Shard,
        node: NodeId,
        left: Duration,
    ) -> Result<Target, ApiError> {
        let map = ask.map;
        let found = map
            .nodes
            .get(&node)
            .ok_or_else(|| ApiError::internal(format!("node {node} is not in the map")))?;
        let limit = match shard.replicas.len() {
            0 | 1 => left,
            _ => left.min((left / 2).clamp(TRY_MIN, TRY_MAX)),
        };
        let (trace_high, trace_low) = Trace::current().map_or((0, 0), Trace::halves);
        Ok(Target {
            node,
            link: self.nodes.link(found)?,
            route: Route {
                shard_id: shard.id.0,
                incarnation: shard.incarnation.0,
                epoch: map.epoch.0,
                trace_high,
                trace_low,
            },
            limit,
        })
    }

    fn pick(&self, ask: &Ask<'_>, shard: &Shard) -> Result<NodeId, ApiError> {
        if shard.replicas.is_empty() {
            let message = format!("shard {} waits for enough nodes", shard.id);
            return Err(ApiError::new(Reason::Starting, message).with_outcome(Outcome::NotApplied));
        }
        let there = self.candidates(ask, shard);
        let tries = ask.rounds.tries(shard.id);
        let picked = if ask.consistency == Some(Consistency::Stale) {
            tries.any(&there, self.turn.fetch_add(1, Ordering::Relaxed))
        } else {
            tries.leader(&there, self.leaders.of(shard.id))
        };
        picked.ok_or_else(|| {
            let message = format!("the disks that held shard {} are lost", shard.id);
            ApiError::new(Reason::DataLoss, message).with_outcome(Outcome::NotApplied)
        })
    }

    /// The replicas of a shard whose disks are not lost.
    fn candidates(&self, ask: &Ask<'_>, shard: &Shard) -> Vec<Candidate> {
        let is_there = |node: &NodeId| ask.map.nodes.get(node).is_some_and(|at| !at.lost);
        let replicas = shard.replicas.iter();
        let there = replicas.filter(|replica| is_there(&replica.node));
        there
            .map(|replica| Candidate {
                node: replica.node,
                voter: replica.voter,
                suspect: self.leaders.is_suspect(replica.node),
            })
            .collect()
    }
}

/// Whether no life that a token names is missing in a map.
fn knows(map: &ShardMap, token: &SessionToken) -> bool {
    token
        .iter()
        .all(|position| map.translate(position).is_some())
}

fn found(map: &ShardMap, id: ShardId) -> Result<&Shard, ApiError> {
    map.shards.get(&id).ok_or_else(|| {
        let message = format!("shard {id} is not in the map");
        ApiError::new(Reason::UnknownShard, message)
    })
}
