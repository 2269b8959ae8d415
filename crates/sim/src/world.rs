//! All machines and the network between them, moved forward together.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::cast::{self, Shape, Wishes};
use crate::dice::Dice;
use crate::logs::Logs;
use crate::machine::{Crash, Machine, TICK};
use crate::net::{HostId, Net};
use crate::trace::Trace;

/// The machines, the network and the time.
pub(crate) struct World {
    pub(crate) now: Duration,
    pub(crate) net: Net,
    pub(crate) machines: Vec<Machine>,
    pub(crate) trace: Trace,
    pub(crate) dice: Dice,
    pub(crate) shape: Shape,
    /// What stands in the logs of all servers.
    pub(crate) logs: Arc<Mutex<Logs>>,
    /// What the watchdogs want restarted.
    pub(crate) wishes: Wishes,
    /// When machines that are down start again.
    restarts: Vec<(Duration, HostId)>,
    /// From when on machines that are down can be started by a watchdog.
    startable: BTreeMap<HostId, Duration>,
    /// When a machine last went down or came up.
    changed: Duration,
    /// Programs that ended by themselves, and why.
    pub(crate) exits: u64,
    /// The shard server whose disk was lost or damaged, or whose log ended in doubt. What was acknowledged is promised to outlive one
    /// of three, so that there is no second.
    pub(crate) damaged: Option<HostId>,
    /// The coordinator whose disk was lost or damaged, or whose log ended in doubt.
    pub(crate) lost_coordinator: Option<HostId>,
    /// How many replicas a shard may have in the end: one more where an operator asked for one.
    pub(crate) replicas_max: usize,
}

impl World {
    pub(crate) fn new(mut dice: Dice, trace: Trace, shape: Shape) -> Self {
        Self {
            now: Duration::ZERO,
            net: Net::new(dice.fork()),
            machines: Vec::new(),
            trace,
            dice,
            shape,
            logs: Arc::default(),
            wishes: Wishes::default(),
            restarts: Vec::new(),
            startable: BTreeMap::new(),
            changed: Duration::ZERO,
            exits: 0,
            damaged: None,
            lost_coordinator: None,
            replicas_max: cast::SHARD_SERVERS.len(),
        }
    }

    pub(crate) fn machine(&mut self, host: HostId) -> Option<&mut Machine> {
        self.machines
            .iter_mut()
            .find(|machine| machine.host == host)
    }

    /// Lets one tick pass.
    pub(crate) fn tick(&mut self) -> anyhow::Result<()> {
        self.now += TICK;
        crate::trace::set_now(self.now);
        self.heed_wishes();
        self.start_due()?;
        self.net.deliver(self.now);
        // Nobody is always first.
        let count = self.machines.len();
        let first = usize::try_from(self.now.as_millis()).unwrap_or_default() % count.max(1);
        let (front, back) = self.machines.split_at_mut(first);
        for machine in back.iter_mut().chain(front) {
            machine.run(self.now);
        }
        self.bury()
    }

    /// Takes note of programs that ended, and of disks that lost their power in the middle of something.
    fn bury(&mut self) -> anyhow::Result<()> {
        let mut down = Vec::new();
        for machine in &mut self.machines {
            if machine.is_up() && machine.disk.is_halted() {
                let seed = self.dice.number();
                let serves_shards = cast::serves_shards(machine.host);
                let harmed = if serves_shards {
                    &mut self.damaged
                } else {
                    &mut self.lost_coordinator
                };
                let without_doubt = harmed.is_some_and(|host| host != machine.host);
                let pending = machine.crash(Crash::Power {
                    seed,
                    without_doubt,
                });
                let text = format!("{} lost its power, {pending} pending", machine.name);
                self.trace.note(self.now, &text);
                let is_one_of_several = serves_shards || self.shape.coordinators().len() > 1;
                if is_one_of_several && machine.is_in_doubt() {
                    *harmed = Some(machine.host);
                }
                down.push((machine.host, self.now + self.dice.millis(200..3_000)));
            }
            if let Some(how) = machine.ended() {
                self.exits += 1;
                let text = match how {
                    Ok(()) => "ended well".to_owned(),
                    Err(reason) => reason,
                };
                self.trace
                    .note(self.now, &format!("{} ended: {text}", machine.name));
                down.push((machine.host, self.now + self.dice.millis(200..3_000)));
            }
        }
        for (host, again) in down {
            self.starts_again(host, again);
        }
        Ok(())
    }

    /// A machine has gone down, and comes back at a time; one that a watchdog watches can be brought back from then on.
    fn starts_again(&mut self, host: HostId, again: Duration) {
        self.changed = self.now;
        if !self.shape.watchdogs().is_empty() && cast::serves_shards(host) {
            self.startable.insert(host, again);
        } else {
            self.restarts.push((again, host));
        }
    }

    /// Does what the watchdogs want: a process that is there and hangs is ended first. A machine without power stays down.
    fn heed_wishes(&mut self) {
        for host in self.wishes.take() {
            let again = self.now + self.dice.millis(50..200);
            self.trace
                .note(self.now, &format!("a watchdog has {host} restarted"));
            self.crash(host, Crash::Process, again);
            if self.startable.get(&host).is_some_and(|from| *from <= again) {
                self.startable.remove(&host);
                self.restarts.push((again, host));
            }
        }
    }

    /// Why what is heard of the machines may not be true: one is down, or was a short while ago.
    pub(crate) fn unsettled(&self, length: Duration) -> Option<String> {
        if let Some(down) = self.machines.iter().find(|machine| !machine.is_up()) {
            return Some(format!("{} is down", down.name));
        }
        (self.now < self.changed + length).then(|| format!("changed at {:?}", self.changed))
    }

    fn start_due(&mut self) -> anyhow::Result<()> {
        if self.restarts.is_empty() {
            return Ok(());
        }
        let now = self.now;
        let (due, later) = std::mem::take(&mut self.restarts)
            .into_iter()
            .partition(|(at, _)| *at <= now);
        self.restarts = later;
        let due: Vec<(Duration, HostId)> = due;
        for (_, host) in due {
            self.start(host)?;
        }
        Ok(())
    }

    /// Starts a machine that is down.
    pub(crate) fn start(&mut self, host: HostId) -> anyhow::Result<()> {
        let now = self.now;
        let Some(machine) = self.machine(host) else {
            return Ok(());
        };
        if !machine.is_up() {
            machine.start(now)?;
            let text = format!("{} starts", machine.name);
            self.trace.note(now, &text);
            self.changed = now;
        }
        Ok(())
    }

    /// Takes a machine down now, to start again at a given time.
    pub(crate) fn crash(&mut self, host: HostId, how: Crash, again: Duration) {
        let now = self.now;
        let Some(machine) = self.machine(host) else {
            return;
        };
        if machine.is_up() {
            let pending = machine.crash(how);
            let text = format!("{} is killed: {how:?}, {pending} pending", machine.name);
            self.trace.note(now, &text);
            self.starts_again(host, again);
        }
    }
}
