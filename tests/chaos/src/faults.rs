//! What is done to the servers of a running cluster.
//!
//! Each fault ends with every server started again, by whoever restarts them in that deployment; whether the cluster
//! is whole again is for the scenario to find out.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use clap::ValueEnum;
use client::Client;
use runtime::Runtime;
use serde::Serialize;

use crate::deployment::{self, Deployment, Pid};
use crate::journal::Journal;
use crate::proxy::Link;
use crate::scenario::RECOVERY_LIMIT;
use crate::spoil;
use crate::standstill::{self, Standstill};
use crate::whole::until_coordinators_changed;

/// How long a process stands still, a link is cut or a disk is full: longer than any lease and any election.
const PAUSE: Duration = Duration::from_secs(10);
/// For a process to be gone, or to be started again by whoever does that.
const RESTART_LIMIT: Duration = Duration::from_secs(60);
/// For a server to notice that its data are gone, and to end: it looks four times a second; the rest is for a busy machine.
const NOTICED_LIMIT: Duration = Duration::from_secs(10);
/// For a flipped bit to be found under a running server, which pauses for a minute between two passes over its log and reads 4 MiB a second. A
/// segment that is deleted before its turn takes the bit with it, and another one gets one.
const FOUND_LIMIT: Duration = Duration::from_secs(300);
/// Between two looks at a condition.
pub(crate) const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// A shard server is killed.
    Kill,
    /// Everything is killed at once: coordinators, shard servers and watchdogs.
    KillAll,
    /// A shard server stands still for ten seconds, and goes on as if nothing had happened, unless a watchdog has it ended before.
    Pause,
    /// A shard server stands still until a watchdog has it restarted.
    Hang,
    /// The leader of a shard stands still for a minute, or as long as the run is told to, and nobody ends it. Needs three replicas.
    StopLeader,
    /// The shard servers are stopped and started in an orderly way, one after another.
    Roll,
    /// A shard server comes back with an empty disk. Needs three replicas.
    Wipe,
    /// The data of a running shard server are removed: it has to end by itself, and comes back with an empty disk. Needs three replicas.
    WipeLive,
    /// A shard server comes back with a flipped bit in the middle of its log. Needs three replicas.
    FlipMiddle,
    /// A shard server comes back with a flipped bit in what it wrote last. Needs three replicas.
    FlipEnd,
    /// A bit flips in the log of a running shard server: it has to find that by itself, which takes minutes. Needs three replicas.
    FlipLive,
    /// A coordinator is killed, and comes back.
    Coordinator,
    /// A coordinator stands still for ten seconds, and goes on as if nothing had happened.
    CoordinatorPause,
    /// A coordinator comes back with an empty disk, and is taken in as another. Needs three coordinators.
    CoordinatorWipe,
    /// For ten seconds nobody reaches a shard server, and it reaches neither another one nor a coordinator.
    Cut,
    /// For ten seconds what is asked of a shard server arrives, and none of its answers.
    OneWay,
    /// For ten seconds nothing passes on the connections to a shard server, which stand.
    HalfOpen,
    /// The disk of a shard server is full for ten seconds. Needs a disk of its own for each.
    FullDisk,
    /// At once a shard server is killed, and comes back with an empty disk where there are three replicas, another one is cut off for ten
    /// seconds and a coordinator is killed.
    Everything,
}

/// What faults need of the processes that they strike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Needs {
    /// A proxy in front of each shard server.
    pub proxies: bool,
    /// A small disk for each shard server.
    pub small_disks: bool,
    /// Somebody who restarts a shard server that hangs.
    pub restarts: bool,
    /// Shard servers that are reached from here, each by itself.
    pub reach: bool,
}

impl Needs {
    /// What all of these need.
    #[must_use]
    pub fn of(faults: &[Fault]) -> Self {
        Self {
            proxies: faults.iter().any(|fault| fault.link().is_some()),
            small_disks: faults.contains(&Fault::FullDisk),
            restarts: faults.contains(&Fault::Hang),
            reach: faults.contains(&Fault::StopLeader),
        }
    }
}

/// What a fault is done to.
#[derive(Debug, Clone, Copy)]
pub struct Scene<'a> {
    /// Whose time it takes.
    pub runtime: &'a Runtime,
    /// The cluster.
    pub deployment: &'a dyn Deployment,
    /// A client that is patient.
    pub client: &'a Client,
    /// Where what is asked is noted.
    pub journal: &'a Journal,
    /// How long a leader stands still.
    pub standstill: Duration,
}

/// What was hit.
#[derive(Debug)]
pub struct Hit {
    /// The servers.
    pub nodes: Vec<String>,
    /// What only a leader that stood still tells.
    pub standstill: Option<Standstill>,
}

impl Fault {
    /// Its name on the command line.
    pub(crate) fn name(self) -> String {
        let value = self.to_possible_value();
        value.map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// Whether a shard with a single replica, or a coordinator without others, cannot come back from it by itself, or cannot do what is
    /// expected meanwhile.
    #[must_use]
    pub const fn needs_replicas(self) -> bool {
        match self {
            Self::Wipe
            | Self::WipeLive
            | Self::FlipMiddle
            | Self::FlipEnd
            | Self::FlipLive
            | Self::StopLeader
            | Self::CoordinatorWipe => true,
            Self::Kill
            | Self::KillAll
            | Self::Pause
            | Self::Hang
            | Self::Roll
            | Self::Coordinator
            | Self::CoordinatorPause
            | Self::Cut
            | Self::OneWay
            | Self::HalfOpen
            | Self::FullDisk
            | Self::Everything => false,
        }
    }

    /// What it makes of the connections to a shard server.
    fn link(self) -> Option<Link> {
        match self {
            Self::Cut | Self::Everything => Some(Link::Cut),
            Self::OneWay => Some(Link::OneWay),
            Self::HalfOpen => Some(Link::HalfOpen),
            Self::Kill
            | Self::KillAll
            | Self::Pause
            | Self::Hang
            | Self::StopLeader
            | Self::Roll
            | Self::Wipe
            | Self::WipeLive
            | Self::FlipMiddle
            | Self::FlipEnd
            | Self::FlipLive
            | Self::Coordinator
            | Self::CoordinatorPause
            | Self::CoordinatorWipe
            | Self::FullDisk => None,
        }
    }

    /// Lets it happen to the server of this number, and returns when every process that it ended is there again.
    ///
    /// # Errors
    /// When it did not hit, or a process did not come back in time.
    pub async fn strike(self, scene: &Scene<'_>, number: usize) -> anyhow::Result<Hit> {
        let Scene {
            runtime,
            deployment,
            ..
        } = *scene;
        let server = one_of(deployment.shard_servers(), number)?;
        let coordinator = one_of(deployment.coordinators(), number)?;
        let mut nodes = vec![server.clone()];
        match self {
            Self::Kill => replaced(runtime, deployment, server, Pid::kill).await?,
            Self::KillAll => nodes = kill_all(runtime, deployment).await?,
            Self::Pause => paused(runtime, deployment, server).await?,
            Self::Hang => replaced(runtime, deployment, server, Pid::pause).await?,
            Self::StopLeader => {
                let standstill = Box::pin(standstill::strike(scene, number)).await?;
                return Ok(Hit {
                    nodes: vec![standstill.node.clone()],
                    standstill: Some(standstill),
                });
            }
            // One at a time; the caller goes on to the next when the cluster is whole again.
            Self::Roll => replaced(runtime, deployment, server, Pid::terminate).await?,
            Self::Wipe | Self::FlipMiddle | Self::FlipEnd => {
                held_down(runtime, deployment, server).await?;
                self.spoil(&deployment.data_dir(server)?)?;
                deployment.release(server)?;
            }
            Self::WipeLive => wiped_live(runtime, deployment, server).await?,
            Self::FlipLive => flipped_live(runtime, deployment, server).await?,
            Self::Coordinator => {
                held_down(runtime, deployment, coordinator).await?;
                deployment.release(coordinator)?;
                nodes = vec![coordinator.clone()];
            }
            Self::CoordinatorPause => {
                paused(runtime, deployment, coordinator).await?;
                nodes = vec![coordinator.clone()];
            }
            Self::CoordinatorWipe => {
                Box::pin(coordinator_wiped(runtime, deployment, coordinator)).await?;
                nodes = vec![coordinator.clone()];
            }
            Self::Cut | Self::OneWay | Self::HalfOpen => {
                let link = self.link().context("a fault of the network")?;
                deployment.set_link(server, link)?;
                runtime.sleep(PAUSE).await;
                deployment.set_link(server, Link::Whole)?;
            }
            Self::FullDisk => {
                let filler = spoil::fill(&deployment.own_disk(server)?)?;
                runtime.sleep(PAUSE).await;
                spoil::unfill(&filler)?;
            }
            Self::Everything => nodes = everything(runtime, deployment, number).await?,
        }
        Ok(Hit {
            nodes,
            standstill: None,
        })
    }

    /// What becomes of the data of a server that is down.
    fn spoil(self, data: &Path) -> anyhow::Result<()> {
        if self == Self::Wipe {
            return spoil::wipe(data);
        }
        spoil::flip(&data.join("wal"), self == Self::FlipEnd).map(drop)
    }

    /// Whether the watchdogs are started anew, and with them what they count.
    #[must_use]
    pub fn ends_watchdogs(self) -> bool {
        self == Self::KillAll
    }

    /// How often it is to strike in a row, each time at the next server.
    #[must_use]
    pub fn blows(self, servers: usize) -> usize {
        if self == Self::Roll { servers } else { 1 }
    }
}

/// Does something to a server after which whoever restarts it puts another process in its place.
async fn replaced(
    runtime: &Runtime,
    deployment: &dyn Deployment,
    server: &str,
    strike: fn(Pid) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let pid = running(deployment, server)?;
    strike(pid)?;
    restarted(runtime, deployment, server, pid).await
}

async fn kill_all(runtime: &Runtime, deployment: &dyn Deployment) -> anyhow::Result<Vec<String>> {
    let (servers, coordinators) = (deployment.shard_servers(), deployment.coordinators());
    let all = coordinators
        .iter()
        .chain(servers)
        .chain(deployment.watchdogs());
    let nodes: Vec<String> = all.cloned().collect();
    let find = |node: &String| running(deployment, node);
    let pids: Vec<Pid> = nodes.iter().map(find).collect::<anyhow::Result<_>>()?;
    pids.iter().try_for_each(|pid| pid.kill())?;
    for (node, pid) in nodes.iter().zip(pids) {
        restarted(runtime, deployment, node, pid).await?;
    }
    // Nobody else looks whether the watchdogs came back for good.
    watchdogs_answer(runtime, deployment, RESTART_LIMIT).await?;
    Ok(nodes)
}

/// Waits until every watchdog that was started tells what it counted.
pub(crate) async fn watchdogs_answer(
    runtime: &Runtime,
    deployment: &dyn Deployment,
    limit: Duration,
) -> anyhow::Result<()> {
    let answer = || Ok(deployment::recovery_attempts(deployment).is_ok());
    let answered = wait_for(runtime, limit, answer).await;
    answered.context("a watchdog that was started does not answer")
}

async fn paused(
    runtime: &Runtime,
    deployment: &dyn Deployment,
    server: &str,
) -> anyhow::Result<()> {
    let pid = running(deployment, server)?;
    pid.pause()?;
    runtime.sleep(PAUSE).await;
    // A watchdog may have had it ended, and ends it after the look as well.
    if pid.resume().is_err() || !pid.is_alive() {
        restarted(runtime, deployment, server, pid).await?;
    }
    Ok(())
}

/// Removes the data of a server that runs. It acknowledges into files that no directory names until it notices, and so has to end, with nobody's help.
async fn wiped_live(
    runtime: &Runtime,
    deployment: &dyn Deployment,
    server: &str,
) -> anyhow::Result<()> {
    let pid = running(deployment, server)?;
    let data = deployment.data_dir(server)?;
    anyhow::ensure!(data.exists(), "{} is not there", data.display());
    // Whoever restarts servers would end one that hangs, too.
    deployment.guard(server, true)?;
    let gone = wait_for(runtime, RESTART_LIMIT, || spoil::wipe_live(&data)).await;
    let ended = wait_for(runtime, NOTICED_LIMIT, || Ok(!pid.is_alive())).await;
    deployment.guard(server, false)?;
    gone.with_context(|| format!("{} is not removed", data.display()))?;
    ended.with_context(|| format!("{server} goes on without its data"))?;
    restarted(runtime, deployment, server, pid).await
}

/// Flips a bit in the log of a server that runs, and returns when it has found it, and was started again.
async fn flipped_live(
    runtime: &Runtime,
    deployment: &dyn Deployment,
    server: &str,
) -> anyhow::Result<()> {
    let pid = running(deployment, server)?;
    let log = deployment.data_dir(server)?.join("wal");
    let mut flipped: Option<PathBuf> = None;
    let found = wait_for(runtime, FOUND_LIMIT, || {
        if !pid.is_alive() {
            return Ok(true);
        }
        // What nobody needs any more is deleted, and the bit with it; so may be the segment that is just being looked at.
        if !flipped.as_deref().is_some_and(Path::exists) {
            flipped = spoil::flip(&log, false).ok();
        }
        Ok(false)
    });
    let found = found.await;
    found.with_context(|| format!("{server} has not found the flipped bit in {flipped:?}"))?;
    anyhow::ensure!(flipped.is_some(), "{server} ended before a bit was flipped");
    restarted(runtime, deployment, server, pid).await
}

/// Has a coordinator come back with an empty disk, and waits until the others have taken it in: it counts then, so that another one may go.
async fn coordinator_wiped(
    runtime: &Runtime,
    deployment: &dyn Deployment,
    coordinator: &str,
) -> anyhow::Result<()> {
    let mut numbered = (1..).zip(deployment.coordinators());
    let number = numbered.find(|(_, name)| *name == coordinator);
    let (number, _) = number.context("a coordinator has a number")?;
    let changed = |at_least| {
        until_coordinators_changed(runtime, deployment, (number, at_least), RECOVERY_LIMIT)
    };
    let before = changed(0).await?;
    held_down(runtime, deployment, coordinator).await?;
    spoil::wipe(&deployment.data_dir(coordinator)?)?;
    deployment.release(coordinator)?;
    // The old one goes, and the new one comes.
    changed(before + 2)
        .await
        .with_context(|| format!("{coordinator} was not taken in"))?;
    Ok(())
}

async fn everything(
    runtime: &Runtime,
    deployment: &dyn Deployment,
    number: usize,
) -> anyhow::Result<Vec<String>> {
    let servers = deployment.shard_servers();
    let (killed, cut) = (one_of(servers, number)?, one_of(servers, number + 1)?);
    let coordinator = one_of(deployment.coordinators(), number)?;
    let pid = running(deployment, killed)?;
    deployment.set_link(cut, Link::Cut)?;
    if deployment.shape().replicas > 1 {
        // No other disk is lost, so that whatever was acknowledged is on one that is left, and its owner is elected once it is reached.
        held_down(runtime, deployment, killed).await?;
        spoil::wipe(&deployment.data_dir(killed)?)?;
        deployment.release(killed)?;
    } else {
        pid.kill()?;
    }
    held_down(runtime, deployment, coordinator).await?;
    runtime.sleep(PAUSE).await;
    deployment.release(coordinator)?;
    deployment.set_link(cut, Link::Whole)?;
    restarted(runtime, deployment, killed, pid).await?;
    Ok(vec![killed.clone(), cut.clone(), coordinator.clone()])
}

fn one_of(names: &[String], number: usize) -> anyhow::Result<&String> {
    let index = number
        .checked_rem(names.len())
        .context("there are servers")?;
    names.get(index).context("there are servers")
}

/// The process of a server that must be there.
pub(crate) fn running(deployment: &dyn Deployment, server: &str) -> anyhow::Result<Pid> {
    let pid = deployment.pid(server)?;
    pid.with_context(|| format!("{server} is not running"))
}

/// Kills a server, and returns when it is gone and stays so.
async fn held_down(
    runtime: &Runtime,
    deployment: &dyn Deployment,
    server: &str,
) -> anyhow::Result<()> {
    running(deployment, server)?;
    deployment.hold(server)?;
    wait_for(runtime, RESTART_LIMIT, || {
        let found = deployment.pid(server)?;
        // One that was just about to be restarted is killed, too. It may be gone before the signal comes.
        found.map(Pid::kill).transpose().ok();
        Ok(found.is_none())
    })
    .await
    .with_context(|| format!("{server} does not end"))
}

/// Waits until a process that was ended is gone.
async fn gone(runtime: &Runtime, server: &str, pid: Pid) -> anyhow::Result<()> {
    wait_for(runtime, RESTART_LIMIT, || Ok(!pid.is_alive()))
        .await
        .with_context(|| format!("{server} does not end"))
}

/// Waits until another process has taken the place of the one that was ended.
pub(crate) async fn restarted(
    runtime: &Runtime,
    deployment: &dyn Deployment,
    server: &str,
    old: Pid,
) -> anyhow::Result<()> {
    // Until it is gone, the old process could be taken for the new one.
    gone(runtime, server, old).await?;
    wait_for(runtime, RESTART_LIMIT, || {
        Ok(deployment.pid(server)?.is_some_and(|new| new != old))
    })
    .await
    .with_context(|| format!("nobody restarted {server}"))
}

/// Waits for a condition; the interval only bounds how late it is noticed.
///
/// # Errors
/// When it does not come to hold within the limit, or cannot be looked at.
pub async fn wait_for(
    runtime: &Runtime,
    limit: Duration,
    mut condition: impl FnMut() -> anyhow::Result<bool>,
) -> anyhow::Result<()> {
    let deadline = runtime.now() + limit;
    while !condition()? {
        anyhow::ensure!(runtime.now() < deadline, "not within {limit:?}");
        runtime.sleep(LOOK_INTERVAL).await;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_has_a_name_that_is_understood() {
        for fault in Fault::value_variants() {
            assert_eq!(Fault::from_str(&fault.name(), false), Ok(*fault));
        }
    }

    #[test]
    fn a_leader_that_is_to_stand_still_has_to_be_reached() {
        assert_eq!(Needs::of(&[Fault::Kill]), Needs::default());
        let needs = Needs::of(&[Fault::StopLeader]);
        assert!(needs.reach && !needs.proxies && !needs.small_disks);
        assert!(Needs::of(&[Fault::Kill, Fault::Everything]).proxies);
    }
}
