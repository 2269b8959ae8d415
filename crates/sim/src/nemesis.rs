//! What goes wrong, and when.
//!
//! A seed chooses some kinds of faults, so that seeds differ in kind and not only in time. What was acknowledged is promised to
//! outlive the disks of a minority only, so at most one machine of the shard servers is damaged for good, once in a seed, and at most one of several
//! coordinators; all else may overlap.

mod clocks;
mod disk;
mod effect;
mod kind;
mod operator;
mod plots;
mod replay;

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::cast::{self, Shape};
use crate::dice::Dice;
use crate::machine::{Crash, Machine};
use crate::net::HostId;
use crate::world::World;
use clocks::SlowClock;
use effect::{Awaited, Effect};
use kind::{KINDS, Kind, OF_SOME};
use plots::Fall;

/// What one machine suffers from.
#[derive(Debug, Clone, Copy)]
enum Ailment {
    Pause,
    SlowDisk,
    FullDisk,
    Clock,
}

/// Something that happens later: mostly that a fault is undone.
#[derive(Debug, Clone, Copy)]
enum Step {
    Link(HostId, HostId),
    Slow(HostId, HostId),
    Sleep(HostId),
    Wake(HostId),
    Disk(HostId),
    RightClock(HostId),
    /// Cuts the link again, or heals it, so many times more.
    Flap(HostId, HostId, u8),
    /// Cuts the link.
    Part(HostId, HostId),
    /// Takes a machine down.
    Down(HostId, Fall),
    /// Brings a machine's disk back to what is remembered of it, if servers went down no more often than this since.
    SetBack(HostId, u64),
}

/// The names of all kinds of faults, as reports have them.
pub fn fault_kinds() -> impl Iterator<Item = &'static str> {
    KINDS.iter().chain(&OF_SOME).map(|kind| kind.name())
}

/// Chooses faults and lets them happen.
pub(crate) struct Nemesis {
    dice: Dice,
    shape: Shape,
    kinds: Vec<Kind>,
    next: Duration,
    /// What happens by itself, and when.
    later: Vec<(Duration, Step)>,
    fired: BTreeMap<Kind, u64>,
    awaited: Awaited,
    /// Clocks that are too slow, or were.
    slow_clocks: Vec<SlowClock>,
    /// Clients' requests that were first sent until then may have been delivered once more.
    pub(crate) sent_again: Duration,
}

impl Nemesis {
    pub(crate) fn new(mut dice: Dice, shape: Shape) -> Self {
        let mut kinds: Vec<Kind> = KINDS.into_iter().filter(|_| dice.percent(45)).collect();
        if kinds.len() < 3 {
            kinds = KINDS.to_vec();
        }
        if shape.coordinators().len() > 1 {
            let own = [Kind::LostCoordinator, Kind::CoordinatorRot];
            kinds.extend(own.into_iter().filter(|_| dice.percent(45)));
        }
        if !shape.watchdogs().is_empty() && dice.percent(60) {
            kinds.push(Kind::Watchdog);
        }
        Self {
            dice,
            shape,
            kinds,
            next: Duration::ZERO,
            later: Vec::new(),
            fired: BTreeMap::new(),
            awaited: Awaited::default(),
            slow_clocks: Vec::new(),
            sent_again: Duration::ZERO,
        }
    }

    /// Whether the network delivers requests again.
    pub(crate) fn delivers_again(&self) -> bool {
        self.kinds.contains(&Kind::Replay)
    }

    /// Whether processes stand still or clocks jump.
    pub(crate) fn bends_clocks(&self) -> bool {
        let bends = |kind: &Kind| matches!(kind, Kind::Pause | Kind::Sleepers | Kind::Clock);
        self.kinds.iter().any(bends)
    }

    /// The faults that had an effect, by kind.
    pub(crate) fn fired(&self) -> Vec<(String, u64)> {
        let fired = self.fired.iter();
        fired
            .map(|(kind, count)| (kind.name().to_owned(), *count))
            .collect()
    }

    /// How many faults had an effect.
    pub(crate) fn struck(&self) -> u64 {
        self.fired.values().sum()
    }

    /// Lets happen what is due.
    pub(crate) fn act(&mut self, world: &mut World) -> anyhow::Result<()> {
        self.steps_due(world);
        self.look(world);
        if self.next.is_zero() {
            self.next = world.now + self.dice.millis(500..2_500);
        }
        if world.now < self.next {
            return Ok(());
        }
        self.next = world.now + self.dice.millis(300..3_500);
        if let Some(kind) = self.dice.pick(&self.kinds) {
            let effect = self.strike(world, kind);
            self.awaited.push(kind, effect, world.now);
        }
        Ok(())
    }

    /// Counts the faults whose effect is seen now.
    fn look(&mut self, world: &mut World) {
        for kind in self.awaited.seen(world) {
            let text = format!("took effect: {}", kind.name());
            world.trace.note(world.now, &text);
            *self.fired.entry(kind).or_default() += 1;
        }
    }

    /// Ends all that is wrong.
    pub(crate) fn end(&mut self, world: &mut World) -> anyhow::Result<()> {
        world.trace.note(world.now, "the faults end");
        self.later.clear();
        self.look(world);
        world.net.heal();
        self.right_clocks(world, |_| true);
        for machine in &mut world.machines {
            machine.pause(false);
            machine.heal_disk();
            machine.disk.halt_after(None);
            // A sync that was to fail, and did not come yet, would fail while the cluster heals.
            machine.take_back_faults();
        }
        self.end_replays(world);
        self.tidy_up(world);
        Ok(())
    }

    fn steps_due(&mut self, world: &mut World) {
        let now = world.now;
        let (due, later) = std::mem::take(&mut self.later)
            .into_iter()
            .partition(|(at, _)| *at <= now);
        self.later = later;
        let due: Vec<(Duration, Step)> = due;
        for (_, step) in due {
            world.trace.note(now, &format!("then: {step:?}"));
            match step {
                Step::Link(from, to) => world.net.cut(from, to, false),
                Step::Slow(from, to) => world.net.slow(from, to, Duration::ZERO),
                Step::Sleep(host) | Step::Wake(host) => {
                    if let Some(machine) = world.machine(host) {
                        machine.pause(matches!(step, Step::Sleep(_)));
                    }
                }
                Step::Disk(host) => {
                    if let Some(machine) = world.machine(host) {
                        machine.heal_disk();
                    }
                }
                Step::RightClock(host) => self.right_clocks(world, |slow| slow == host),
                Step::Flap(from, to, more) => {
                    world.net.cut(from, to, more % 2 == 1);
                    world.net.cut(to, from, more % 2 == 1);
                    if more > 0 {
                        let at = now + self.dice.millis(50..700);
                        self.later.push((at, Step::Flap(from, to, more - 1)));
                    }
                }
                Step::Part(from, to) => world.net.cut(from, to, true),
                Step::Down(host, how) => self.fall(world, host, how),
                Step::SetBack(host, falls) => self.bring_back(world, host, falls),
            }
        }
    }

    fn server(&mut self) -> HostId {
        let host = self.dice.pick(self.shape.shard_servers());
        host.unwrap_or_default()
    }

    /// Any machine of the cluster, mostly a shard server.
    fn any(&mut self) -> HostId {
        let coordinators = self.shape.coordinators();
        let share = if coordinators.len() > 1 { 30 } else { 15 };
        if self.dice.percent(share) {
            self.coordinator()
        } else {
            self.server()
        }
    }

    fn coordinator(&mut self) -> HostId {
        let host = self.dice.pick(self.shape.coordinators());
        host.unwrap_or_default()
    }

    /// A machine and another one that it talks to.
    fn pair(&mut self) -> (HostId, HostId) {
        let between_coordinators = self.shape.coordinators().len() > 1 && self.dice.percent(20);
        let one = if between_coordinators {
            self.coordinator()
        } else {
            self.server()
        };
        loop {
            let other = if between_coordinators {
                self.coordinator()
            } else {
                self.any()
            };
            if other != one {
                return (one, other);
            }
        }
    }

    /// Brings a fault about, and says what it is known by.
    fn strike(&mut self, world: &mut World, kind: Kind) -> Effect {
        let now = world.now;
        let length = self.dice.millis(300..6_000);
        let host = self.any();
        world.trace.note(now, &format!("strikes: {kind:?}"));
        match kind {
            Kind::Kill | Kind::Power => self.take_down(world, host, kind),
            Kind::Blackout => self.black_out(world),
            Kind::OneWay => {
                let (from, to) = self.pair();
                self.cut(world, vec![(from, to)], length)
            }
            Kind::Cut => {
                let (one, other) = self.pair();
                self.cut_off(world, one, |host| host == other, length)
            }
            Kind::Isolate => self.cut_off(world, host, |other| other != host, length),
            Kind::OutOfReach => {
                let (host, length) = (self.server(), self.dice.millis(2_000..9_000));
                let is_stranger = |other| !cast::serves_shards(other);
                self.cut_off(world, host, is_stranger, length)
            }
            Kind::Flap => {
                let (from, to) = self.pair();
                self.later.push((now, Step::Flap(from, to, 9)));
                Effect::hindered(world, vec![(from, to), (to, from)])
            }
            Kind::HalfOpen => {
                let (from, to) = self.pair();
                let effect = Effect::hindered(world, vec![(from, to), (to, from)]);
                world.net.lose(from, to);
                effect
            }
            Kind::Delay => {
                let (from, to) = self.pair();
                let by = self.dice.millis(20..900);
                let ways = vec![(from, to), (to, from)];
                for (from, to) in ways.iter().copied() {
                    world.net.slow(from, to, by);
                    self.later.push((now + length, Step::Slow(from, to)));
                }
                Effect::hindered(world, ways)
            }
            Kind::Pause => self.ail(world, host, Ailment::Pause, length),
            Kind::SlowDisk => self.ail(world, host, Ailment::SlowDisk, length),
            Kind::FullDisk => self.ail(world, host, Ailment::FullDisk, length),
            Kind::Clock => self.ail(world, host, Ailment::Clock, length),
            Kind::SlowClock => self.slow_clock(world, host),
            Kind::SyncError | Kind::DiskError => self.fail_disk(world, host, kind),
            Kind::LostDisk | Kind::Rot | Kind::SnapshotRot => self.damage(world, kind),
            Kind::LostCoordinator | Kind::CoordinatorRot => self.harm_coordinator(world, kind),
            Kind::Watchdog => self.blind(world, length),
            Kind::Replay => self.replay(world),
            Kind::Operator => self.give_order(world),
            Kind::SetBack => self.set_back(world),
            Kind::Apart => self.apart(world),
            Kind::Standstill => self.standstill(world),
            Kind::Sleepers => self.sleepers(world),
            Kind::Majorities => self.majorities(world),
        }
    }

    /// Takes the power of all shard servers, or of all machines that keep anything.
    fn black_out(&mut self, world: &mut World) -> Effect {
        let mut hosts = self.shape.shard_servers().to_vec();
        if self.dice.percent(50) {
            hosts.extend(self.shape.coordinators());
        }
        let effect = Effect::down(world, &hosts);
        for host in hosts {
            self.take_down(world, host, Kind::Power);
        }
        effect
    }

    /// Takes or damages a coordinator's disk, where the others are a majority without it.
    fn harm_coordinator(&mut self, world: &mut World, kind: Kind) -> Effect {
        let host = self.coordinator();
        let again = world.now + self.dice.millis(100..4_000);
        let is_one_of_several = self.shape.coordinators().len() > 1;
        if !is_one_of_several || world.lost_coordinator.is_some() {
            return Effect::None;
        }
        if world.machine(host).is_none_or(|machine| !machine.is_up()) {
            return Effect::None;
        }
        if kind == Kind::LostCoordinator {
            world.crash(host, Crash::Disk, again);
        } else {
            let spoil = if self.dice.percent(70) {
                Machine::rot
            } else {
                Machine::rot_of_snapshots
            };
            if !self.spoil(world, host, spoil) {
                return Effect::None;
            }
        }
        world.lost_coordinator = Some(host);
        Effect::AtOnce
    }

    /// Something befalls a watchdog.
    fn blind(&mut self, world: &mut World, length: Duration) -> Effect {
        let Some(host) = self.dice.pick(self.shape.watchdogs()) else {
            return Effect::None;
        };
        let again = world.now + length;
        if world.machine(host).is_none_or(|machine| !machine.is_up()) {
            return Effect::None;
        }
        match self.dice.below(0..4) {
            0 => world.crash(host, Crash::Process, again),
            1 => {
                let power = Crash::Power {
                    seed: self.dice.number(),
                    without_doubt: false,
                };
                world.crash(host, power, again);
            }
            2 => return self.ail(world, host, Ailment::Pause, length),
            _ => return self.cut_off(world, host, |other| other != host, length),
        }
        Effect::AtOnce
    }

    /// Damages a disk for good.
    fn damage(&mut self, world: &mut World, kind: Kind) -> Effect {
        let (host, now) = (self.server(), world.now);
        let again = now + self.dice.millis(100..4_000);
        if world.damaged.is_some() {
            return Effect::None;
        }
        if world.machine(host).is_none_or(|machine| !machine.is_up()) {
            return Effect::None;
        }
        if kind == Kind::LostDisk {
            world.crash(host, Crash::Disk, again);
        } else {
            let spoil = if kind == Kind::Rot {
                Machine::rot
            } else {
                Machine::rot_of_snapshots
            };
            if !self.spoil(world, host, spoil) {
                return Effect::None;
            }
        }
        world.damaged = Some(host);
        Effect::AtOnce
    }

    /// Flips a bit of a machine's disk by a way that there is to choose one. Says whether there was one to flip.
    fn spoil(
        &mut self,
        world: &mut World,
        host: HostId,
        rot: fn(&Machine, &mut Dice) -> Option<String>,
    ) -> bool {
        let Some(machine) = world.machine(host) else {
            return false;
        };
        let Some(place) = rot(machine, &mut self.dice) else {
            return false;
        };
        let text = format!("{} rots: {place}", machine.name);
        world.trace.note(world.now, &text);
        true
    }

    /// Cuts a machine off from some others, both ways.
    fn cut_off(
        &mut self,
        world: &World,
        host: HostId,
        is_cut: impl Fn(HostId) -> bool,
        length: Duration,
    ) -> Effect {
        let others = world.machines.iter().map(|found| found.host);
        let others = others.filter(|other| is_cut(*other));
        let ways = others.flat_map(|other| [(host, other), (other, host)]);
        self.cut(world, ways.collect(), length)
    }

    /// Cuts some ways.
    fn cut(&mut self, world: &World, ways: Vec<(HostId, HostId)>, length: Duration) -> Effect {
        for (from, to) in ways.iter().copied() {
            let text = format!("cut {from} to {to} for {length:?}");
            world.trace.note(world.now, &text);
            world.net.cut(from, to, true);
            self.later.push((world.now + length, Step::Link(from, to)));
        }
        Effect::hindered(world, ways)
    }

    fn take_down(&mut self, world: &mut World, host: HostId, kind: Kind) -> Effect {
        let again = world.now + self.dice.millis(100..4_000);
        let effect = Effect::down(world, &[host]);
        let Some(machine) = world.machine(host).filter(|machine| machine.is_up()) else {
            return Effect::None;
        };
        if kind == Kind::Kill {
            world.crash(host, Crash::Process, again);
            return effect;
        }
        // Mostly in the middle of whatever it writes next.
        let operations = match self.dice.percent(70) {
            true => self.dice.below(0..6),
            false => 0,
        };
        machine.disk.halt_after(Some(operations));
        effect
    }

    /// Lets a machine suffer for a while.
    fn ail(&mut self, world: &mut World, host: HostId, kind: Ailment, length: Duration) -> Effect {
        let now = world.now;
        let dice = &mut self.dice;
        let Some(machine) = world.machine(host).filter(|machine| machine.is_up()) else {
            return Effect::None;
        };
        let name = machine.name.clone();
        let (text, cure) = match kind {
            Ailment::Pause => {
                machine.pause(true);
                (format!("for {length:?}"), Some(Step::Wake(host)))
            }
            Ailment::SlowDisk => {
                let takes = dice.below(5_000..800_000);
                machine.knobs.disk_us.store(takes, Ordering::Relaxed);
                (format!("{takes} us for {length:?}"), Some(Step::Disk(host)))
            }
            Ailment::FullDisk => {
                let room = dice.below(0..200_000);
                let used = machine.disk.used_bytes();
                machine.disk.set_capacity(Some(used + room));
                (
                    format!("{room} bytes for {length:?}"),
                    Some(Step::Disk(host)),
                )
            }
            Ailment::Clock => {
                let most = 3_600_000;
                let by = i64::try_from(dice.below(0..2 * most)).unwrap_or_default() - 3_600_000;
                machine
                    .knobs
                    .wall_offset_ms
                    .fetch_add(by, Ordering::Relaxed);
                (format!("by {by} ms"), None)
            }
        };
        world.trace.note(now, &format!("{name}: {kind:?} {text}"));
        self.later.extend(cure.map(|cure| (now + length, cure)));
        Effect::AtOnce
    }
}
