//! Operations of a disk that fail once.

use vfs::Op;
use vfs::sim::{Effect as Fails, Fault};

use super::Nemesis;
use super::effect::Effect;
use super::kind::Kind;
use crate::machine::Crash;
use crate::net::HostId;
use crate::world::World;

/// Syncs, the log's most often.
const SYNCS: [Op; 4] = [Op::SyncData, Op::SyncData, Op::SyncAll, Op::SyncDir];
/// All else that changes or reads a disk, the most frequent most often.
const OTHERS: [Op; 15] = [
    Op::Write,
    Op::Write,
    Op::Write,
    Op::Read,
    Op::Read,
    Op::Read,
    Op::CreateNew,
    Op::OpenRead,
    Op::OpenWrite,
    Op::Truncate,
    Op::Allocate,
    Op::Rename,
    Op::RemoveFile,
    Op::List,
    Op::Len,
];

impl Nemesis {
    /// Lets one of the next operations of a kind fail, or do a part of its work; sometimes of those by which a program starts.
    pub(super) fn fail_disk(&mut self, world: &mut World, host: HostId, kind: Kind) -> Effect {
        let ops = if kind == Kind::SyncError {
            &SYNCS[..]
        } else {
            &OTHERS[..]
        };
        let op = self.dice.pick(ops).unwrap_or(Op::SyncData);
        let fails = self.dice.pick(&Fails::possible(op)).unwrap_or(Fails::Io);
        let skip = self.dice.below(0..12);
        let at_start = kind == Kind::DiskError && self.dice.percent(30);
        let again = world.now + self.dice.millis(100..2_000);
        if world.machine(host).is_none_or(|machine| !machine.is_up()) {
            return Effect::None;
        }
        if at_start {
            world.crash(host, Crash::Process, again);
        }
        let now = world.now;
        let Some(machine) = world.machine(host) else {
            return Effect::None;
        };
        let before = machine.faults_hit();
        machine.inject(Fault::after(op, skip, fails));
        let text = format!("{}: {op} fails with {fails:?} after {skip}", machine.name);
        world.trace.note(now, &text);
        Effect::Disk(host, before)
    }
}
