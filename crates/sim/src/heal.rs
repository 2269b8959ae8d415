//! The second phase of a seed: the faults are over, and everything must come right.

use std::sync::Arc;
use std::time::Duration;

use api::admin::v1::{GetStatusResponse, ReplicaRole, ReplicaStatus, ShardState};
use api::v1::autocomplete_service_client::AutocompleteServiceClient;
use api::v1::{Consistency, GetCountRequest, RecordRequest};
use client::Client;
use parking_lot::Mutex;
use rpc::channel::{PoolConfig, connect};
use runtime::Runtime;

use crate::cast;
use crate::logs::Logs;
use crate::net::HostId;
use crate::oracle::Ended;
use crate::trace;
use crate::workload::{self, Judge};
use crate::world::World;

/// How long the cluster may take to heal.
const HEAL: Duration = Duration::from_secs(60);
/// How long one question may take.
const QUESTION: Duration = Duration::from_secs(20);
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

fn client(runtime: Runtime) -> Outcome<Client> {
    let options = workload::options(&cast::coordinators(), false);
    Client::connect(runtime, options).map_err(|error| error.to_string())
}

/// Waits until every replica of every shard serves and each shard has one leader.
pub(crate) fn until_serving(world: &mut World, limit: Duration) -> Outcome<()> {
    until(world, limit, sound)
}

fn until(
    world: &mut World,
    limit: Duration,
    holds: fn(&GetStatusResponse) -> Outcome<()>,
) -> Outcome<()> {
    let end = world.now + limit;
    loop {
        let status = ask(world, QUESTION, |runtime| async move {
            let status = client(runtime.clone())?.status().await;
            runtime.sleep(PAUSE).await;
            status.map_err(|error| error.to_string())
        })?;
        let problem = match status.and_then(|status| holds(&status)) {
            Ok(()) => return Ok(()),
            Err(problem) => problem,
        };
        if world.now >= end {
            return Err(format!("after {limit:?}: {problem}"));
        }
    }
}

/// Everything serves, and each shard has one leader.
fn sound(status: &GetStatusResponse) -> Outcome<()> {
    if status.shards.len() != cast::shards().len() {
        return Err(format!("{} shards", status.shards.len()));
    }
    for shard in &status.shards {
        let id = shard.shard_id;
        if shard.state() != ShardState::Serving {
            return Err(format!(
                "shard {id} is {:?}: {}",
                shard.state(),
                shard.reason
            ));
        }
        if shard.replicas.len() != cast::SHARD_SERVERS.len() {
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

/// All replicas of a shard have applied the same, and say the same of it.
fn equal(status: &GetStatusResponse) -> Outcome<()> {
    sound(status)?;
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
/// there, on each of them. The log of a machine that is `rotten` is left out: nobody need have met the damage.
pub(crate) fn completely(world: &mut World, judge: &Judge, rotten: Option<HostId>) -> Outcome<()> {
    let begun = world.now;
    until_serving(world, HEAL)?;
    let took = world.now - begun;
    world.trace.note(world.now, &format!("healed in {took:?}"));
    for letter in ['b', 'p'] {
        fresh_write(world, judge, &format!("{letter}-fresh"))?;
    }
    until(world, HEAL, equal)?;
    let terms = judge.lock().terms();
    let judge = Arc::clone(judge);
    let checked = ask(world, QUESTION * 6, move |runtime| async move {
        let client = client(runtime.clone())?;
        for term in terms {
            check_term(&runtime, &client, &judge, term).await?;
        }
        Ok::<_, String>(())
    })?;
    checked?;
    check_logs(world, rotten)
}

/// What the logs on the disks say of elections and commits.
fn check_logs(world: &World, rotten: Option<HostId>) -> Outcome<()> {
    let mut logs = Logs::default();
    for machine in &world.machines {
        if cast::SHARD_SERVERS.contains(&machine.host) && rotten != Some(machine.host) {
            logs.look(&machine.name, &machine.disk);
        }
    }
    let text = format!("{} committed entries compared", logs.entries);
    world.trace.note(world.now, &text);
    if logs.problems.is_empty() {
        Ok(())
    } else {
        Err(logs.problems.join("; "))
    }
}

fn fresh_write(world: &mut World, judge: &Judge, term: &str) -> Outcome<()> {
    let ticket = judge.lock().issue(term, world.now);
    let ticket = ticket.ok_or("no room for a fresh write")?;
    let (sent, began) = (ticket.clone(), world.now);
    let answer = ask(world, QUESTION, |runtime| async move {
        let request = RecordRequest {
            term: sent.term.clone(),
            count: sent.count(),
            ..RecordRequest::default()
        };
        let answer = client(runtime)?.record(request).await;
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

/// Reads a term through the coordinator, and from every replica by itself.
async fn check_term(
    runtime: &Runtime,
    client: &Client,
    judge: &Judge,
    term: String,
) -> Outcome<()> {
    let began = trace::now();
    let level = Consistency::Linearizable;
    let request = |level: Consistency| GetCountRequest {
        term: term.clone(),
        consistency: level.into(),
        ..GetCountRequest::default()
    };
    let found = client.count(request(level)).await;
    let count = found
        .map_err(|error| format!("reading {term}: {error}"))?
        .count;
    judge.lock().read(&term, count, level, began, trace::now());
    for host in cast::SHARD_SERVERS {
        let address = cast::shard_address(host);
        let channel = connect(runtime, &address, &PoolConfig::default());
        let channel = channel.map_err(|error| error.to_string())?;
        let mut replica = AutocompleteServiceClient::new(channel);
        let found = replica.get_count(request(Consistency::Stale)).await;
        let found = found.map_err(|error| format!("reading {term} at {address}: {error}"))?;
        let own = found.into_inner().count;
        if own != count {
            let text = format!("{term} is {own:#x} on {address} and {count:#x} in the cluster");
            judge.lock().violate(trace::now(), &text);
        }
    }
    Ok(())
}
