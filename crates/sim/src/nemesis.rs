//! What goes wrong, and when.
//!
//! A seed chooses some kinds of faults, so that seeds differ in kind and not only in time. What was acknowledged is promised to
//! outlive the disks of a minority only, so at most one machine of the shard servers is damaged for good, once in a seed, and at most one of several
//! coordinators; all else may overlap.

mod kind;
mod plots;

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use vfs::Op;
use vfs::sim::{Effect, Fault};

use crate::cast::{self, Shape};
use crate::dice::Dice;
use crate::machine::Crash;
use crate::net::HostId;
use crate::world::World;
use kind::{KINDS, Kind};
use plots::Fall;

/// What one machine suffers from.
#[derive(Debug, Clone, Copy)]
enum Ailment {
    Pause,
    SlowDisk,
    SyncError,
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
    /// Cuts the link again, or heals it, so many times more.
    Flap(HostId, HostId, u8),
    /// Cuts the link.
    Part(HostId, HostId),
    /// Takes a machine down.
    Down(HostId, Fall),
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
}

impl Nemesis {
    pub(crate) fn new(mut dice: Dice, shape: Shape) -> Self {
        let mut kinds: Vec<Kind> = KINDS.into_iter().filter(|_| dice.percent(45)).collect();
        if kinds.len() < 3 {
            kinds = KINDS.to_vec();
        }
        if shape.coordinators().len() > 1 && dice.percent(45) {
            kinds.push(Kind::LostCoordinator);
        }
        Self {
            dice,
            shape,
            kinds,
            next: Duration::ZERO,
            later: Vec::new(),
            fired: BTreeMap::new(),
        }
    }

    /// Whether processes stand still or clocks jump.
    pub(crate) fn bends_clocks(&self) -> bool {
        let bends = |kind: &Kind| matches!(kind, Kind::Pause | Kind::Sleepers | Kind::Clock);
        self.kinds.iter().any(bends)
    }

    /// The faults that happened, by kind.
    pub(crate) fn fired(&self) -> Vec<(String, u64)> {
        let fired = self.fired.iter();
        fired
            .map(|(kind, count)| (kind.name().to_owned(), *count))
            .collect()
    }

    /// How many faults happened.
    pub(crate) fn struck(&self) -> u64 {
        self.fired.values().sum()
    }

    /// Lets happen what is due.
    pub(crate) fn act(&mut self, world: &mut World) -> anyhow::Result<()> {
        self.steps_due(world);
        if self.next.is_zero() {
            self.next = world.now + self.dice.millis(500..2_500);
        }
        if world.now < self.next {
            return Ok(());
        }
        self.next = world.now + self.dice.millis(300..3_500);
        if let Some(kind) = self.dice.pick(&self.kinds)
            && self.strike(world, kind)
        {
            *self.fired.entry(kind).or_default() += 1;
        }
        Ok(())
    }

    /// Ends all that is wrong.
    pub(crate) fn end(&mut self, world: &mut World) -> anyhow::Result<()> {
        world.trace.note(world.now, "the faults end");
        self.later.clear();
        world.net.heal();
        for machine in &mut world.machines {
            machine.pause(false);
            machine.heal_disk();
            machine.disk.halt_after(None);
            // A sync that was to fail, and did not come yet, would fail while the cluster heals.
            machine.disk.take_back_faults();
        }
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
            }
        }
    }

    fn server(&mut self) -> HostId {
        let host = self.dice.pick(&cast::SHARD_SERVERS);
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

    /// Says whether it had an effect.
    fn strike(&mut self, world: &mut World, kind: Kind) -> bool {
        let now = world.now;
        let length = self.dice.millis(300..6_000);
        let host = self.any();
        world.trace.note(now, &format!("strikes: {kind:?}"));
        match kind {
            Kind::Kill | Kind::Power => self.take_down(world, host, kind),
            Kind::Blackout => {
                let mut any = false;
                for host in cast::SHARD_SERVERS {
                    any |= self.take_down(world, host, Kind::Power);
                }
                any
            }
            Kind::OneWay => {
                let (from, to) = self.pair();
                self.cut(world, from, to, length);
                true
            }
            Kind::Cut => {
                let (one, other) = self.pair();
                self.cut_off(world, one, |host| host == other, length);
                true
            }
            Kind::Isolate => {
                self.cut_off(world, host, |other| other != host, length);
                true
            }
            Kind::OutOfReach => {
                let (host, length) = (self.server(), self.dice.millis(2_000..9_000));
                let is_stranger = |other| !cast::SHARD_SERVERS.contains(&other);
                self.cut_off(world, host, is_stranger, length);
                true
            }
            Kind::Flap => {
                let (from, to) = self.pair();
                self.later.push((now, Step::Flap(from, to, 9)));
                true
            }
            Kind::HalfOpen => {
                let (from, to) = self.pair();
                world.net.lose(from, to) > 0
            }
            Kind::Delay => {
                let (from, to) = self.pair();
                let by = self.dice.millis(20..900);
                for (from, to) in [(from, to), (to, from)] {
                    world.net.slow(from, to, by);
                    self.later.push((now + length, Step::Slow(from, to)));
                }
                true
            }
            Kind::Pause => self.ail(world, host, Ailment::Pause, length),
            Kind::SlowDisk => self.ail(world, host, Ailment::SlowDisk, length),
            Kind::SyncError => self.ail(world, host, Ailment::SyncError, length),
            Kind::FullDisk => self.ail(world, host, Ailment::FullDisk, length),
            Kind::Clock => self.ail(world, host, Ailment::Clock, length),
            Kind::LostDisk | Kind::Rot => self.damage(world, kind),
            Kind::LostCoordinator => self.lose_coordinator(world),
            Kind::Apart => self.apart(world),
            Kind::Standstill => self.standstill(world),
            Kind::Sleepers => self.sleepers(world),
            Kind::Majorities => self.majorities(world),
        }
    }

    /// Takes a coordinator's disk, where the others are a majority without it.
    fn lose_coordinator(&mut self, world: &mut World) -> bool {
        let host = self.coordinator();
        let again = world.now + self.dice.millis(100..4_000);
        let is_one_of_several = self.shape.coordinators().len() > 1;
        if !is_one_of_several || world.lost_coordinator.is_some() {
            return false;
        }
        if world.machine(host).is_none_or(|machine| !machine.is_up()) {
            return false;
        }
        world.lost_coordinator = Some(host);
        world.crash(host, Crash::Disk, again);
        true
    }

    /// Damages a disk for good.
    fn damage(&mut self, world: &mut World, kind: Kind) -> bool {
        let (host, now) = (self.server(), world.now);
        let again = now + self.dice.millis(100..4_000);
        if world.damaged.is_some() {
            return false;
        }
        let Some(machine) = world.machine(host).filter(|machine| machine.is_up()) else {
            return false;
        };
        if kind == Kind::Rot {
            let Some(place) = machine.rot(&mut self.dice) else {
                return false;
            };
            let text = format!("{} rots: {place}", machine.name);
            world.trace.note(now, &text);
        } else {
            world.crash(host, Crash::Disk, again);
        }
        world.damaged = Some(host);
        true
    }

    /// Cuts a machine off from some others, both ways.
    fn cut_off(
        &mut self,
        world: &World,
        host: HostId,
        is_cut: impl Fn(HostId) -> bool,
        length: Duration,
    ) {
        let others = world.machines.iter().map(|found| found.host);
        for other in others.filter(|other| is_cut(*other)) {
            self.cut(world, host, other, length);
            self.cut(world, other, host, length);
        }
    }

    fn cut(&mut self, world: &World, from: HostId, to: HostId, length: Duration) {
        world
            .trace
            .note(world.now, &format!("cut {from} to {to} for {length:?}"));
        world.net.cut(from, to, true);
        self.later.push((world.now + length, Step::Link(from, to)));
    }

    fn take_down(&mut self, world: &mut World, host: HostId, kind: Kind) -> bool {
        let again = world.now + self.dice.millis(100..4_000);
        let Some(machine) = world.machine(host).filter(|machine| machine.is_up()) else {
            return false;
        };
        if kind == Kind::Kill {
            world.crash(host, Crash::Process, again);
            return true;
        }
        // Mostly in the middle of whatever it writes next.
        let operations = match self.dice.percent(70) {
            true => self.dice.below(0..6),
            false => 0,
        };
        machine.disk.halt_after(Some(operations));
        true
    }

    /// Lets a machine suffer for a while.
    fn ail(&mut self, world: &mut World, host: HostId, kind: Ailment, length: Duration) -> bool {
        let now = world.now;
        let dice = &mut self.dice;
        let Some(machine) = world.machine(host).filter(|machine| machine.is_up()) else {
            return false;
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
            Ailment::SyncError => {
                machine.disk.inject(Fault::next(Op::SyncData, Effect::Io));
                (String::new(), None)
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
        true
    }
}
