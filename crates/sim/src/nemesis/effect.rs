//! Whether a fault had an effect.
//!
//! A cut link over which nobody sends anything, or a fault of the disk that no operation meets, proves nothing. So a fault counts once
//! its effect was seen, where that can be told; the others count when they are brought about.

use std::time::Duration;

use super::kind::Kind;
use super::operator::Done;
use crate::net::HostId;
use crate::world::World;

/// For how long an effect is waited for.
const PATIENCE: Duration = Duration::from_secs(15);

/// What a fault is known by.
#[derive(Debug, Clone)]
pub(super) enum Effect {
    /// Nothing was wrong to begin with, or can be.
    None,
    /// It is there as soon as it is brought about.
    AtOnce,
    /// A machine of these goes down, as it had so often before.
    Down(Vec<(HostId, u64)>),
    /// An operation of a disk is hit, as so many were before.
    Disk(HostId, u64),
    /// Something is held back or late on one of these ways, as so much was before.
    Hindered(Vec<(HostId, HostId)>, u64),
    /// Some of what is delivered again is read.
    Read(u64),
    /// An order is carried out.
    Done(Done),
}

impl Effect {
    /// Something is held back or late on one of these ways from now on.
    pub(super) fn hindered(world: &World, ways: Vec<(HostId, HostId)>) -> Self {
        let before = world.net.hindered(&ways);
        Self::Hindered(ways, before)
    }

    /// One of these machines goes down after now.
    pub(super) fn down(world: &mut World, hosts: &[HostId]) -> Self {
        let crashes = |host: &HostId| Some((*host, world.machine(*host)?.crashes));
        Self::Down(hosts.iter().filter_map(crashes).collect())
    }

    fn is_seen(&self, world: &mut World) -> bool {
        match self {
            Self::None => false,
            Self::AtOnce => true,
            Self::Down(before) => before.iter().any(|(host, crashes)| {
                let machine = world.machine(*host);
                machine.is_some_and(|machine| machine.crashes > *crashes)
            }),
            Self::Disk(host, before) => {
                let machine = world.machine(*host);
                machine.is_some_and(|machine| machine.faults_hit() > *before)
            }
            Self::Hindered(ways, before) => world.net.hindered(ways) > *before,
            Self::Read(id) => world.net.was_read(*id),
            Self::Done(done) => matches!(*done.lock(), Some(Ok(()))),
        }
    }
}

/// Faults whose effect is not seen yet.
#[derive(Debug, Default)]
pub(super) struct Awaited(Vec<(Kind, Effect, Duration)>);

impl Awaited {
    /// Waits for an effect from now on.
    pub(super) fn push(&mut self, kind: Kind, effect: Effect, now: Duration) {
        if let Effect::Disk(host, _) = &effect {
            // A disk has one fault at a time: the one before was taken back.
            self.0
                .retain(|(_, other, _)| !matches!(other, Effect::Disk(at, _) if at == host));
        }
        if !matches!(effect, Effect::None) {
            self.0.push((kind, effect, now + PATIENCE));
        }
    }

    /// The faults whose effect is seen now; those that nothing came of for long are forgotten.
    pub(super) fn seen(&mut self, world: &mut World) -> Vec<Kind> {
        let mut seen = Vec::new();
        self.0.retain(|(kind, effect, until)| {
            let is_seen = effect.is_seen(world);
            if is_seen {
                seen.push(*kind);
            }
            !is_seen && world.now < *until
        });
        seen
    }
}
