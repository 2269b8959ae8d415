//! The second phase of a seed: the faults are over, and everything must come right.

mod states;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use api::admin::v1::{GetStatusResponse, ReplicaRole, ReplicaStatus, ShardState};
use api::v1::autocomplete_service_client::AutocompleteServiceClient;
use api::v1::{Consistency, GetCountRequest, ListTermsRequest, RecordRequest};
use client::Client;
use parking_lot::Mutex;
use rpc::channel::{PoolConfig, connect};
use runtime::Runtime;
use tonic::transport::Channel;

use crate::cast::{self, Shape};
use crate::oracle::{Ended, Key};
use crate::trace;
use crate::workload::{self, Judge, NAMESPACES};
use crate::world::World;

/// How long the cluster may take to heal.
const HEAL: Duration = Duration::from_secs(60);
/// How long one question may take.
const QUESTION: Duration = Duration::from_secs(20);
/// For how long no machine must have gone down or come up before what the coordinators say of them is taken for true: they say
/// what they heard last.
const SETTLED: Duration = Duration::from_secs(4);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(200);

type Outcome<T> = Result<T, String>;

/// Runs a question on the clients' machine until it is answered.
fn ask<T: Send + 'static, F>(
    world: &mut World,
    limit: Duration,
    question: impl FnOnce(Runtime) -> F + 'static,
) -> Outcome<T>
where
    F: Future<Output = T> + Send + 'static,
{
    let clients = world.machine(cast::CLIENTS).ok_or("no clients")?;
    let answer: Arc<Mutex<Option<T>>> = clients.spawn(|runtime| Box::pin(question(runtime)));
    let end = world.now + limit;
    loop {
        if let Some(answer) = answer.lock().take() {
            return Ok(answer);
        }
        if world.now >= end {
            return Err(format!("no answer within {limit:?}"));
        }
        world.tick().map_err(|error| error.to_string())?;
    }
}

fn client(runtime: Runtime, shape: Shape) -> Outcome<Client> {
    let options = workload::options(&shape.endpoints(), false);
    Client::connect(runtime, options).map_err(|error| error.to_string())
}

/// What a cluster that has healed consists of.
#[derive(Debug, Clone, Copy)]
struct Wanted {
    shape: Shape,
    replicas_max: usize,
}

/// Waits until every replica of every shard serves and each shard has one leader.
pub(crate) fn until_serving(world: &mut World, limit: Duration) -> Outcome<()> {
    until(world, limit, sound).map(drop)
}

fn until(
    world: &mut World,
    limit: Duration,
    holds: fn(&GetStatusResponse, Wanted) -> Outcome<()>,
) -> Outcome<GetStatusResponse> {
    let (end, shape) = (world.now + limit, world.shape);
    let wanted = Wanted {
        shape,
        replicas_max: world.replicas_max,
    };
    loop {
        let status = ask(world, QUESTION, move |runtime| async move {
            let status = client(runtime.clone(), shape)?.status().await;
            runtime.sleep(PAUSE).await;
            status.map_err(|error| error.to_string())
        })?;
        let held = status.and_then(|status| holds(&status, wanted).map(|()| status));
        let problem = match held {
            Ok(status) => return Ok(status),
            Err(problem) => problem,
        };
        if world.now >= end {
            return Err(format!("after {limit:?}: {problem}"));
        }
    }
}

/// Everything serves, each shard has one leader, no coordinator is left out, and nobody is about to leave or to come.
fn sound(status: &GetStatusResponse, wanted: Wanted) -> Outcome<()> {
    if status.shards.len() != cast::shards().len() {
        return Err(format!("{} shards", status.shards.len()));
    }
    let (coordinators, of) = (status.coordinators.len(), wanted.shape.coordinators().len());
    if coordinators != of {
        return Err(format!("{coordinators} coordinators, not {of}"));
    }
    if let Some(node) = status.nodes.iter().find(|node| node.draining && !node.lost) {
        return Err(format!("{} is drained", node.name));
    }
    for shard in &status.shards {
        let id = shard.shard_id;
        if let Some(change) = &shard.change {
            return Err(format!("shard {id} changes its members: {change:?}"));
        }
        if shard.state() != ShardState::Serving {
            return Err(format!(
                "shard {id} is {:?}: {}",
                shard.state(),
                shard.reason
            ));
        }
        let replicas = cast::SHARD_SERVERS.len()..=wanted.replicas_max;
        if !replicas.contains(&shard.replicas.len()) {
            return Err(format!("shard {id} has {} replicas", shard.replicas.len()));
        }
        if let Some(bad) = shard.replicas.iter().find(|replica| !replica.serving) {
            let (node, reason) = (bad.node_id, &bad.reason);
            return Err(format!(
                "shard {id} does not serve on node {node}: {reason}"
            ));
        }
        let is_leader = |replica: &&ReplicaStatus| replica.role() == ReplicaRole::Leader;
        let leaders = shard.replicas.iter().filter(is_leader).count();
        if leaders != 1 {
            return Err(format!("shard {id} has {leaders} leaders"));
        }
    }
    Ok(())
}

/// Waits until nothing has gone down or come up for a while.
fn until_settled(world: &mut World, limit: Duration) -> Outcome<()> {
    let end = world.now + limit;
    while let Some(problem) = world.unsettled(SETTLED) {
        if world.now >= end {
            return Err(format!("after {limit:?}: {problem}"));
        }
        world.tick().map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// All replicas of a shard have applied the same, and say the same of it.
fn equal(status: &GetStatusResponse, wanted: Wanted) -> Outcome<()> {
    sound(status, wanted)?;
    for shard in &status.shards {
        let of = |replica: &ReplicaStatus| {
            (
                replica.raft_term,
                replica.applied_index,
                replica.terms,
                replica.total_count,
                replica.memory_bytes,
                replica.repeat_table_bytes,
            )
        };
        let mut states: Vec<_> = shard.replicas.iter().map(of).collect();
        states.dedup();
        if states.len() != 1 {
            return Err(format!(
                "replicas of shard {} differ: {states:?}",
                shard.shard_id
            ));
        }
    }
    Ok(())
}

/// Checks that the cluster comes back whole: it serves, takes writes, its replicas are equal, and every acknowledged increment is
/// there, on each of them.
pub(crate) fn completely(world: &mut World, judge: &Judge) -> Outcome<()> {
    let begun = world.now;
    until_settled(world, HEAL)?;
    until_serving(world, HEAL)?;
    let took = world.now - begun;
    world.trace.note(world.now, &format!("healed in {took:?}"));
    for namespace in NAMESPACES {
        for letter in ['b', 'p'] {
            let term = format!("{letter}-fresh");
            fresh_write(world, judge, &Key { namespace, term })?;
        }
    }
    let places = places(&until(world, HEAL, equal)?);
    let addresses = places.clone();
    let (keys, judging, shape) = (judge.lock().keys(), Arc::clone(judge), world.shape);
    let checked = ask(world, QUESTION * 6, move |runtime| async move {
        let client = client(runtime.clone(), shape)?;
        let mut replicas = replicas(&runtime, &addresses)?;
        for key in keys {
            let shard = cast::shard_of(&key.term).0;
            let of_shard = replicas.get_mut(&shard).ok_or("a shard without replicas")?;
            check_term(&client, of_shard, &judging, key).await?;
        }
        for namespace in NAMESPACES {
            check_list(&client, &judging, namespace).await?;
        }
        Ok::<_, String>(())
    })?;
    checked?;
    let same = ask(world, QUESTION * 2, |runtime| async move {
        states::all_equal(&runtime, &places).await
    })?;
    world.trace.note(world.now, &same?);
    Ok(())
}

/// A whole namespace has what every term of it by itself has.
async fn check_list(client: &Client, judge: &Judge, namespace: &'static str) -> Outcome<()> {
    let began = trace::now();
    let level = Consistency::Linearizable;
    let mut pages = client.list_terms(ListTermsRequest {
        namespace: namespace.to_owned(),
        ..ListTermsRequest::default()
    });
    let mut terms = Vec::new();
    while let Some(page) = pages.next().await.map_err(|error| error.to_string())? {
        for found in page {
            terms.push(found.term.clone());
            let term = found.term;
            let key = Key { namespace, term };
            let now = trace::now();
            judge.lock().read(&key, found.count, level, began, now);
        }
    }
    let now = trace::now();
    let mut judge = judge.lock();
    judge.absent((namespace, ""), &terms, level, began, now);
    Ok(())
}

/// A write of its own must be acknowledged.
fn fresh_write(world: &mut World, judge: &Judge, key: &Key) -> Outcome<()> {
    let ticket = judge.lock().issue(key, world.now);
    let ticket = ticket.ok_or("no room for a fresh write")?;
    let (sent, began, shape) = (ticket.clone(), world.now, world.shape);
    let answer = ask(world, QUESTION, move |runtime| async move {
        let request = RecordRequest {
            term: sent.key.term.clone(),
            namespace: sent.key.namespace.to_owned(),
            count: sent.count(),
            ..RecordRequest::default()
        };
        let answer = client(runtime, shape)?.record(request).await;
        answer.map_err(|error| error.to_string())
    })?;
    let count = answer
        .map_err(|error| format!("a fresh write fails: {error}"))?
        .count;
    judge
        .lock()
        .written(&ticket, Ended::Acked(count), began, world.now);
    Ok(())
}

/// Where the replicas of each shard are reached.
type Places = BTreeMap<u64, Vec<String>>;
/// The replicas of a shard, each by itself, and where they are.
type Replicas = Vec<(String, AutocompleteServiceClient<Channel>)>;

fn places(status: &GetStatusResponse) -> Places {
    let place = |replica: &ReplicaStatus| {
        let mut nodes = status.nodes.iter();
        let node = nodes.find(|node| node.node_id == replica.node_id)?;
        Some(node.address.clone())
    };
    let shards = status.shards.iter();
    shards
        .map(|shard| {
            let places = shard.replicas.iter().filter_map(place);
            (shard.shard_id, places.collect())
        })
        .collect()
}

fn replicas(runtime: &Runtime, places: &Places) -> Outcome<BTreeMap<u64, Replicas>> {
    let connected = |address: &String| {
        let channel = connect(runtime, address, &PoolConfig::default());
        let channel = channel.map_err(|error| error.to_string())?;
        Ok((address.clone(), AutocompleteServiceClient::new(channel)))
    };
    let shards = places.iter();
    shards
        .map(|(shard, addresses)| {
            let replicas: Outcome<Replicas> = addresses.iter().map(connected).collect();
            Ok((*shard, replicas?))
        })
        .collect()
}

/// Reads a term through the coordinator, and from every replica by itself.
async fn check_term(
    client: &Client,
    replicas: &mut [(String, AutocompleteServiceClient<Channel>)],
    judge: &Judge,
    key: Key,
) -> Outcome<()> {
    let began = trace::now();
    let level = Consistency::Linearizable;
    let request = |level: Consistency| GetCountRequest {
        term: key.term.clone(),
        namespace: key.namespace.to_owned(),
        consistency: level.into(),
        ..GetCountRequest::default()
    };
    let found = client.count(request(level)).await;
    let count = found
        .map_err(|error| format!("reading {key}: {error}"))?
        .count;
    judge.lock().read(&key, count, level, began, trace::now());
    for (address, replica) in replicas {
        let found = replica.get_count(request(Consistency::Stale)).await;
        let found = found.map_err(|error| format!("reading {key} at {address}: {error}"))?;
        let own = found.into_inner().count;
        if own != count {
            let text = format!("{key} is {own:#x} on {address} and {count:#x} in the cluster");
            judge.lock().violate(trace::now(), &text);
        }
    }
    Ok(())
}
