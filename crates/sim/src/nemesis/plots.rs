//! Faults of several steps, aimed at what single ones meet once in thousands of seeds.
//!
//! A replica that has forgotten something does no harm while it is in the minority. So the plots let a machine be in one majority,
//! go down, and be in another one with a machine that never knew: whatever it should have remembered is gone then.

use std::time::Duration;

use super::effect::Effect;
use super::{Nemesis, Step};
use crate::cast::SHARD_SERVERS;
use crate::machine::{Crash, Machine};
use crate::net::HostId;
use crate::world::World;

/// How a machine goes down in the middle of a plot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fall {
    /// Its process is killed.
    Killed,
    /// It loses its power in the middle of one of its next writes.
    Power,
    /// A bit of what it wrote last flips, and its process is killed, so that it looks.
    Rotten,
}

/// What a cut between shard servers is known by.
fn between_servers(world: &World) -> Effect {
    let all = SHARD_SERVERS.into_iter();
    let pairs = all.flat_map(|one| SHARD_SERVERS.map(|other| (one, other)));
    Effect::hindered(world, pairs.collect())
}

/// How often machines went down, all together.
fn crashes(world: &mut World, hosts: &[HostId]) -> u64 {
    let crashes = |host: &HostId| world.machine(*host).map(|machine| machine.crashes);
    hosts.iter().filter_map(crashes).sum()
}

impl Nemesis {
    /// One shard server after another does not hear the others. A leader among them goes on for as long as its lease lasts, while the
    /// others elect another one; clients reach both.
    pub(super) fn apart(&mut self, world: &World) -> Effect {
        let mut begin = world.now;
        let first = self.dice.index(SHARD_SERVERS.len());
        for host in SHARD_SERVERS.into_iter().cycle().skip(first).take(3) {
            let end = begin + self.dice.millis(700..2_500);
            for other in SHARD_SERVERS.into_iter().filter(|other| *other != host) {
                self.part_at(begin, host, other);
                self.join_at(end, host, other);
            }
            begin = end + self.dice.millis(500..1_500);
        }
        between_servers(world)
    }

    /// One shard server after another stands still, mostly for longer than the others wait for a leader, and hears on waking what was sent
    /// to it meanwhile.
    pub(super) fn sleepers(&mut self, world: &World) -> Effect {
        let mut begin = world.now;
        let first = self.dice.index(SHARD_SERVERS.len());
        for host in SHARD_SERVERS.into_iter().cycle().skip(first).take(6) {
            let end = begin + self.dice.millis(300..2_500);
            self.later.push((begin, Step::Sleep(host)));
            self.later.push((end, Step::Wake(host)));
            begin = end + self.dice.millis(0..900);
        }
        Effect::AtOnce
    }

    /// Nothing is decided, for longer than clients wait, and what was under way then is decided after all.
    pub(super) fn standstill(&mut self, world: &World) -> Effect {
        let end = world.now + self.dice.millis(4_200..8_000);
        let [one, other, third] = SHARD_SERVERS;
        for (from, to) in [(one, other), (other, third), (third, one)] {
            self.part(world, from, to);
            self.join_at(end, from, to);
        }
        between_servers(world)
    }

    /// `both` decides with `first`, then with `second`, who heard nothing of that, then with `first` again, who heard nothing of
    /// that.
    pub(super) fn majorities(&mut self, world: &mut World) -> Effect {
        let mut hosts = SHARD_SERVERS.to_vec();
        let mut draw = || hosts.swap_remove(self.dice.index(hosts.len()));
        let (both, first, second) = (draw(), draw(), draw());
        if !self.all_up(world) {
            return Effect::None;
        }
        let falls = if world.damaged.is_none() {
            &[Fall::Killed, Fall::Power, Fall::Power, Fall::Rotten][..]
        } else {
            &[Fall::Killed, Fall::Power]
        };
        let how = self.dice.pick(falls).unwrap_or(Fall::Killed);
        let down = world.now + self.dice.millis(100..2_500);
        let change = down + self.dice.millis(0..400);
        let back = change + self.dice.millis(3_000..7_000);
        let end = back + self.dice.millis(1_000..4_000);
        self.part(world, both, second);
        self.part(world, first, second);
        self.later.push((down, Step::Down(both, how)));
        self.part_at(change, both, first);
        self.join_at(change, both, second);
        self.part_at(back, both, second);
        self.join_at(back, both, first);
        self.join_at(end, both, second);
        self.join_at(end, first, second);
        between_servers(world)
    }

    /// A shard server's disk is remembered, and comes back as it was then some seconds later. Only who has heard that server since can
    /// tell it, and knows it from memory alone: so nothing else happens until it was told.
    pub(super) fn set_back(&mut self, world: &mut World) -> Effect {
        if !self.later.is_empty() || world.damaged.is_some() || !self.all_up(world) {
            return Effect::None;
        }
        for machine in &mut world.machines {
            machine.disk.halt_after(None);
            machine.take_back_faults();
        }
        let mut hosts = SHARD_SERVERS.to_vec();
        let mut draw = || hosts.swap_remove(self.dice.index(hosts.len()));
        let (host, witness, other) = (draw(), draw(), draw());
        let all: Vec<HostId> = self.shape.shard_servers().to_vec();
        let falls = crashes(world, &all);
        let Some(machine) = world.machine(host) else {
            return Effect::None;
        };
        machine.remember_disk();
        // Who moves replicas to a spare server may give the witness one that has heard nothing yet.
        let is_apart = all.len() == SHARD_SERVERS.len() && self.dice.percent(60);
        let at = if is_apart {
            self.decide_without(world, host, witness, other)
        } else {
            world.now + self.dice.millis(800..4_000)
        };
        self.later.push((at, Step::SetBack(host, falls)));
        self.next = at + self.dice.millis(6_000..9_000);
        Effect::down(world, &[host])
    }

    /// What `host` decides with `other` before its disk is set back is unknown to `witness`, with whom it decides afterwards; but
    /// `witness` has heard of it after the moment that it is set back to. Says when to set it back.
    fn decide_without(
        &mut self,
        world: &World,
        host: HostId,
        witness: HostId,
        other: HostId,
    ) -> Duration {
        let alone = world.now + self.dice.millis(2_500..4_000);
        let at = alone + self.dice.millis(500..2_500);
        let end = at + self.dice.millis(3_000..5_000);
        self.part_at(alone, witness, host);
        self.part_at(alone, witness, other);
        self.part_at(at, host, other);
        self.join_at(at, host, witness);
        self.join_at(end, host, other);
        self.join_at(end, witness, other);
        at
    }

    /// Brings a shard server's disk back, if whoever heard it is still there.
    pub(super) fn bring_back(&mut self, world: &mut World, host: HostId, falls: u64) {
        let all = self.shape.shard_servers();
        if world.damaged.is_some() || !self.all_up(world) || crashes(world, all) != falls {
            return;
        }
        let again = world.now + self.dice.millis(50..1_500);
        let without_log = self.dice.percent(30);
        world.damaged = Some(host);
        world.crash(host, Crash::SetBack { without_log }, again);
    }

    fn all_up(&self, world: &mut World) -> bool {
        self.shape.shard_servers().iter().all(|host| {
            let machine = world.machine(*host);
            machine.is_some_and(|machine| machine.is_up())
        })
    }

    /// Lets a machine fall in the middle of a plot.
    pub(super) fn fall(&mut self, world: &mut World, host: HostId, how: Fall) {
        let again = world.now + self.dice.millis(50..1_500);
        let is_damaged = world.damaged.is_some();
        let Some(machine) = world.machine(host).filter(|machine| machine.is_up()) else {
            return;
        };
        match how {
            Fall::Killed => world.crash(host, Crash::Process, again),
            Fall::Power => machine.disk.halt_after(Some(self.dice.below(0..4))),
            Fall::Rotten if is_damaged => {}
            Fall::Rotten => {
                if self.spoil(world, host, Machine::rot_at_the_end) {
                    world.damaged = Some(host);
                    world.crash(host, Crash::Process, again);
                }
            }
        }
    }

    /// Cuts a link both ways.
    fn part(&self, world: &World, one: HostId, other: HostId) {
        world.net.cut(one, other, true);
        world.net.cut(other, one, true);
    }

    pub(super) fn part_at(&mut self, at: Duration, one: HostId, other: HostId) {
        self.later.push((at, Step::Part(one, other)));
        self.later.push((at, Step::Part(other, one)));
    }

    pub(super) fn join_at(&mut self, at: Duration, one: HostId, other: HostId) {
        self.later.push((at, Step::Link(one, other)));
        self.later.push((at, Step::Link(other, one)));
    }
}
