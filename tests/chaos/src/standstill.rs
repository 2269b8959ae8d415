//! The leader of a shard stands still for long, while everybody writes and reads, and wakes up as if nothing had happened.
//!
//! What is checked: others take over within what the design allows, for Records and for both strict levels; strict reads go on until the end;
//! the status says all the while which replica of which shard says nothing. Shortly before it wakes up, the leader is asked directly, so that
//! these questions are the first that it finds: they are in the history like all others, and whatever it answers is judged by what was
//! acknowledged before they were asked.
//!
//! What always holds: nobody ends the leader while it stands still, and one term is written by nobody else, in powers of four.

use std::time::Duration;

use anyhow::Context as _;
use api::Reason;
use api::admin::v1::{GetStatusResponse, ReplicaRole, ShardState};
use client::{Client, ClientError};
use runtime::{Instant, Task};
use serde::Serialize;

use crate::failover::leader_of;
use crate::faults::{LOOK_INTERVAL, Scene, restarted, running};
use crate::history::{Level, Question};
use crate::journal::COORDINATORS;
use crate::oracle::Violation;
use crate::workload::{hasty_client, power_of_four};

/// Until a Record, or a strict read, of the shard is answered. A coordinator waits a second for a silent leader, and an election takes
/// 600 ms, or 1.2 s at worst; the rest is for a machine that is too busy to do either for seconds.
const TAKEOVER_LIMIT: Duration = Duration::from_secs(8);
/// Until the status says that the leader is silent, whichever coordinator is asked: what one waits for a report, the time between two, and the
/// same for a busy machine.
const NAMED_LIMIT: Duration = Duration::from_secs(8);
/// Between two looks while it stands still.
const STEADY_INTERVAL: Duration = Duration::from_millis(250);
/// How long before it wakes up the leader is asked for the first time, how often, and how far apart. A connection on which nothing comes
/// back is given up after six seconds, and these are to stand when it wakes up.
const ASKED_BEFORE: Duration = Duration::from_secs(3);
const ASKED_TIMES: usize = 3;
const ASKED_APART: Duration = Duration::from_millis(900);
/// For an answer of the leader: the longest that a call may take.
const SLEEPER_PATIENCE: Duration = Duration::from_secs(10);
/// For a single read through the coordinators.
const READ_PATIENCE: Duration = Duration::from_secs(2);
/// Nobody took over at all.
const GIVEN_UP: Duration = Duration::from_secs(60);

/// The shortest that a leader can stand still here: it is noticed first, and asked then.
pub const STAND_MIN: Duration = Duration::from_secs(12);

/// How a shard got on without its leader, and how the leader came back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Standstill {
    /// The shard.
    pub shard: u64,
    /// The server that stood still.
    pub node: String,
    /// For how long.
    pub stood_ms: u64,
    /// From then until a Record was acknowledged.
    pub unwritten_ms: u64,
    /// From then until a LEADER read, and a LINEARIZABLE one, were answered.
    pub unread_ms: [u64; 2],
    /// From then until the status named it; `None` where it never did.
    pub named_after_ms: Option<u64>,
    /// Strict reads of the shard that were answered from then until shortly before it woke up, and those that were not.
    pub steady_reads: (usize, usize),
    /// Looks at the status that did not name it when every coordinator had had the time to notice.
    pub unnamed: usize,
    /// What the leader did with questions from before it woke up.
    pub woken: Woken,
    /// Whether its process was still the same a moment later.
    pub survived: bool,
}

/// Questions to a leader that stood still.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Woken {
    /// Answered; whether rightly is for the judge.
    pub answered: usize,
    /// Answered with an error.
    pub refused: usize,
    /// Not answered at all.
    pub unanswered: usize,
}

impl Standstill {
    /// The promises that were broken, as far as they are about time.
    #[must_use]
    pub fn violations(&self) -> Vec<Violation> {
        let limit_ms = millis(TAKEOVER_LIMIT);
        let [leader, linearizable] = self.unread_ms;
        let waits = [
            ("a Record", self.unwritten_ms),
            ("a LEADER read", leader),
            ("a LINEARIZABLE read", linearizable),
        ];
        let slow = waits.into_iter().filter(|(_, after)| *after > limit_ms);
        let mut violations: Vec<Violation> = slow
            .map(|(what, after_ms)| Violation::SlowTakeover {
                node: self.node.clone(),
                what: what.to_owned(),
                after_ms,
                limit_ms,
            })
            .collect();
        let unnamed = |problem: String| Violation::Unnamed {
            node: self.node.clone(),
            problem,
        };
        if self.named_after_ms.is_none() {
            let problem = format!("nothing for {NAMED_LIMIT:?}");
            violations.push(unnamed(problem));
        } else if self.unnamed > 0 {
            violations.push(unnamed(format!("nothing in {} later looks", self.unnamed)));
        }
        violations
    }
}

/// A leader, and what it leads.
#[derive(Debug)]
struct Victim {
    shard: u64,
    /// A term of the shard that is used for nothing else.
    term: String,
    node: String,
    node_id: u64,
    address: String,
}

impl Victim {
    async fn find(scene: &Scene<'_>, number: usize) -> anyhow::Result<Self> {
        let status = scene.client.status().await?;
        let at = number.checked_rem(status.shards.len());
        let shard = at.and_then(|at| status.shards.get(at));
        let shard = shard.context("there are shards")?;
        let leader = leader_of(&status, shard).context("a whole shard has a leader")?;
        let servers = scene.deployment.shard_servers().iter();
        let mut known = servers.zip(scene.deployment.shard_addresses());
        let address = known.find(|(name, _)| **name == leader.name);
        let (_, address) =
            address.with_context(|| format!("{} is not reached from here", leader.name))?;
        Ok(Self {
            shard: shard.shard_id,
            term: format!("{}0 stands still {number}", shard.shard_key),
            node: leader.name.clone(),
            node_id: leader.node_id,
            address: address.clone(),
        })
    }

    /// Whether the status says of which replica of which shard nothing is heard, and that the shard serves all the same.
    fn is_named(&self, status: &GetStatusResponse) -> bool {
        let mut nodes = status.nodes.iter();
        let is_silent = nodes.any(|node| node.node_id == self.node_id && !node.alive);
        let mut shards = status.shards.iter();
        let shard = shards.find(|shard| shard.shard_id == self.shard);
        is_silent
            && shard.is_some_and(|shard| {
                let is_stopped = |at: &api::admin::v1::ReplicaStatus| {
                    at.node_id == self.node_id && !at.serving && !at.reason.is_empty()
                };
                let leads = |at: &api::admin::v1::ReplicaStatus| {
                    at.node_id != self.node_id && at.serving && at.role() == ReplicaRole::Leader
                };
                shard.state() == ShardState::Serving
                    && shard.replicas.iter().any(is_stopped)
                    && shard.replicas.iter().any(leads)
            })
    }
}

/// Lets the leader of the shard of this number stand still, and returns when it is awake, or started again.
///
/// # Errors
/// When it did not hit, nobody took over at all, or the leader said nothing after it woke up.
pub(crate) async fn strike(scene: &Scene<'_>, number: usize) -> anyhow::Result<Standstill> {
    let stand = scene.standstill;
    anyhow::ensure!(
        stand >= STAND_MIN,
        "{stand:?} is too short for a standstill"
    );
    let victim = Victim::find(scene, number).await?;
    // Whoever answers from the past has this one, and not the next.
    write(scene, &victim, 0).await?;
    let pid = running(scene.deployment, &victim.node)?;
    scene.deployment.guard(&victim.node, true)?;
    pid.pause()?;
    let stopped = scene.runtime.now();
    let wakes = stopped + stand;
    let (unwritten, leader, linearizable, named_after) = tokio::join!(
        async {
            write(scene, &victim, 1).await?;
            anyhow::Ok(scene.runtime.now().saturating_since(stopped))
        },
        until_read(scene, &victim, Level::Leader, stopped),
        until_read(scene, &victim, Level::Linearizable, stopped),
        until_named(scene, &victim, stopped),
    );
    let mut steady = Steady::default();
    let until = stopped + (stand - ASKED_BEFORE);
    tokio::select! {
        () = scene.runtime.sleep_until(until) => {}
        failed = steady.watch(scene, &victim, stopped + NAMED_LIMIT) => failed?,
    }
    anyhow::ensure!(steady.reads.0 > 0, "no strict read was answered meanwhile");
    let asked = ask_sleeper(scene, &victim, wakes).await?;
    scene.runtime.sleep_until(wakes).await;
    let survived = pid.resume().is_ok();
    let mut woken = Woken::default();
    for task in asked {
        woken.count(&task.await?);
    }
    let survived = survived && pid.is_alive();
    scene.deployment.guard(&victim.node, false)?;
    if !survived {
        restarted(scene.runtime, scene.deployment, &victim.node, pid).await?;
    }
    anyhow::ensure!(
        woken.answered + woken.refused > 0,
        "{} said nothing after it woke up: {woken:?}",
        victim.node
    );
    Ok(Standstill {
        shard: victim.shard,
        node: victim.node,
        stood_ms: millis(stand),
        unwritten_ms: millis(unwritten?),
        unread_ms: [millis(leader?), millis(linearizable?)],
        named_after_ms: named_after.map(millis),
        steady_reads: steady.reads,
        unnamed: steady.unnamed,
        woken,
        survived,
    })
}

/// Adds a power of four through the coordinators.
async fn write(scene: &Scene<'_>, victim: &Victim, place: usize) -> anyhow::Result<()> {
    let add = power_of_four(place);
    let written = scene
        .journal
        .record(scene.client, COORDINATORS, &victim.term, add)
        .await;
    written.context("a Record failed")
}

fn coordinators(scene: &Scene<'_>) -> anyhow::Result<Client> {
    hasty_client(scene.runtime, scene.deployment.addresses(), READ_PATIENCE)
}

async fn read(
    scene: &Scene<'_>,
    victim: &Victim,
    reader: &Client,
    level: Level,
) -> Result<(), ClientError> {
    let question = Question::Count {
        term: victim.term.clone(),
    };
    scene
        .journal
        .read(reader, COORDINATORS, question, level, None)
        .await
}

/// How long the shard was not read at a level.
async fn until_read(
    scene: &Scene<'_>,
    victim: &Victim,
    level: Level,
    stopped: Instant,
) -> anyhow::Result<Duration> {
    let reader = coordinators(scene)?;
    while read(scene, victim, &reader, level).await.is_err() {
        let passed = scene.runtime.now().saturating_since(stopped);
        anyhow::ensure!(passed < GIVEN_UP, "nobody answers {level:?} reads");
        scene.runtime.sleep(LOOK_INTERVAL).await;
    }
    Ok(scene.runtime.now().saturating_since(stopped))
}

async fn until_named(scene: &Scene<'_>, victim: &Victim, stopped: Instant) -> Option<Duration> {
    loop {
        let status = scene.client.status().await;
        let passed = scene.runtime.now().saturating_since(stopped);
        if status.is_ok_and(|status| victim.is_named(&status)) {
            return Some(passed);
        }
        if passed >= NAMED_LIMIT {
            return None;
        }
        scene.runtime.sleep(LOOK_INTERVAL).await;
    }
}

/// What is seen of a shard while its leader stands still.
#[derive(Debug, Default)]
struct Steady {
    /// Strict reads that were answered, and those that were not.
    reads: (usize, usize),
    /// Looks at the status that did not name the leader.
    unnamed: usize,
}

impl Steady {
    /// Reads and looks at the status until it is dropped or cannot. Looks count from `named` on.
    async fn watch(
        &mut self,
        scene: &Scene<'_>,
        victim: &Victim,
        named: Instant,
    ) -> anyhow::Result<()> {
        let reader = coordinators(scene)?;
        loop {
            for level in [Level::Leader, Level::Linearizable] {
                match read(scene, victim, &reader, level).await {
                    Ok(()) => self.reads.0 += 1,
                    Err(_) => self.reads.1 += 1,
                }
            }
            let counts = scene.runtime.now() >= named;
            let status = scene.client.status().await?;
            self.unnamed += usize::from(counts && !victim.is_named(&status));
            scene.runtime.sleep(STEADY_INTERVAL).await;
        }
    }
}

/// Asks the leader, which stands still, over connections of their own.
async fn ask_sleeper(
    scene: &Scene<'_>,
    victim: &Victim,
    wakes: Instant,
) -> anyhow::Result<Vec<Task<Result<(), ClientError>>>> {
    let mut tasks = Vec::new();
    for time in 0..ASKED_TIMES {
        if scene.runtime.now() >= wakes {
            break;
        }
        let address = std::slice::from_ref(&victim.address);
        for level in [Level::Leader, Level::Linearizable] {
            let client = hasty_client(scene.runtime, address, SLEEPER_PATIENCE)?;
            let (journal, node) = (scene.journal.clone(), victim.node.clone());
            let question = Question::Count {
                term: victim.term.clone(),
            };
            tasks.push(scene.runtime.spawn("chaos sleeper", async move {
                journal.read(&client, &node, question, level, None).await
            }));
        }
        let client = hasty_client(scene.runtime, address, SLEEPER_PATIENCE)?;
        let (journal, node) = (scene.journal.clone(), victim.node.clone());
        let (term, add) = (victim.term.clone(), power_of_four(2 + time));
        tasks.push(scene.runtime.spawn("chaos sleeper", async move {
            journal.record(&client, &node, &term, add).await
        }));
        scene.runtime.sleep(ASKED_APART).await;
    }
    anyhow::ensure!(!tasks.is_empty(), "too late to ask the leader");
    Ok(tasks)
}

impl Woken {
    fn count(&mut self, answer: &Result<(), ClientError>) {
        let Err(error) = answer else {
            self.answered += 1;
            return;
        };
        match error.reason() {
            None | Some(Reason::Deadline | Reason::Disconnected) => self.unanswered += 1,
            Some(_) => self.refused += 1,
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use api::admin::v1::{NodeStatus, ReplicaStatus, ShardStatus};

    use super::*;

    fn standstill() -> Standstill {
        Standstill {
            shard: 1,
            node: "shard-1".to_owned(),
            stood_ms: 60_000,
            unwritten_ms: 1_100,
            unread_ms: [1_000, 1_000],
            named_after_ms: Some(3_200),
            steady_reads: (200, 0),
            unnamed: 0,
            woken: Woken::default(),
            survived: true,
        }
    }

    #[test]
    fn what_takes_too_long_or_is_not_said_is_a_violation() {
        assert_eq!(standstill().violations(), vec![]);
        let slow = Standstill {
            unwritten_ms: 8_001,
            unread_ms: [8_000, 9_000],
            ..standstill()
        };
        assert_eq!(slow.violations().len(), 2);
        let never = Standstill {
            named_after_ms: None,
            unnamed: 7,
            ..standstill()
        };
        assert_eq!(never.violations().len(), 1);
        let forgotten = Standstill {
            unnamed: 1,
            ..standstill()
        };
        assert_eq!(forgotten.violations().len(), 1);
    }

    #[test]
    fn a_status_names_the_silent_replica_of_a_shard_that_serves() {
        let victim = Victim {
            shard: 1,
            term: "0".to_owned(),
            node: "shard-1".to_owned(),
            node_id: 1,
            address: "127.0.0.1:1".to_owned(),
        };
        let status = |alive, reason: &str, role: ReplicaRole| GetStatusResponse {
            nodes: vec![NodeStatus {
                node_id: 1,
                alive,
                ..NodeStatus::default()
            }],
            shards: vec![ShardStatus {
                shard_id: 1,
                state: ShardState::Serving.into(),
                replicas: vec![
                    ReplicaStatus {
                        node_id: 1,
                        reason: reason.to_owned(),
                        ..ReplicaStatus::default()
                    },
                    ReplicaStatus {
                        node_id: 2,
                        serving: true,
                        role: role.into(),
                        ..ReplicaStatus::default()
                    },
                ],
                ..ShardStatus::default()
            }],
            ..GetStatusResponse::default()
        };
        assert!(victim.is_named(&status(false, "no word", ReplicaRole::Leader)));
        assert!(!victim.is_named(&status(true, "no word", ReplicaRole::Leader)));
        assert!(!victim.is_named(&status(false, "", ReplicaRole::Leader)));
        assert!(!victim.is_named(&status(false, "no word", ReplicaRole::Follower)));
    }
}
