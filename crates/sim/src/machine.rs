//! A machine: a disk, clocks, and a program that runs on an executor of its own.
//!
//! A program can be killed at any moment by dropping its executor, and everything that it had begun is gone with it, tasks of
//! libraries included. What its disk holds then is what [`SimDisk`] says.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use parking_lot::Mutex;
use runtime::{Adapters, CancellationToken, Runtime, SeededRandom};
use vfs::sim::Fault;
use vfs::{SimDisk, Vfs};
use wal::inspect::Verdict;

use crate::clock::{Knobs, MachineClock};
use crate::dice::Dice;
use crate::logs::Witness;
use crate::mutant::Mutant;
use crate::net::{HostId, HostNetwork, Net};
use crate::tap::{self, Tapped};

/// How far the world moves at a time.
pub(crate) const TICK: Duration = Duration::from_millis(1);

/// How many times too slow a clock is that is (`Mutant::SlowClock`).
const SLOWNESS: u32 = 4;

/// How long a piece of blocking work takes on a healthy disk, in microseconds.
const DISK_US: u64 = 700;

/// Where a program has its snapshots.
const SNAPSHOTS: &str = "/data/snapshots";

/// What ends a batch of the log: the frame and the magic of its mark.
const MARK_BYTES: u64 = 72;

/// What a program is given.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) runtime: Runtime,
    pub(crate) vfs: Arc<dyn Vfs>,
    pub(crate) stop: CancellationToken,
}

/// What a program is: told how it ended, in words where it failed.
pub(crate) type Running = Pin<Box<dyn Future<Output = Result<(), String>> + Send>>;
pub(crate) type Program = Arc<dyn Fn(Process) -> Running>;

pub(crate) struct Machine {
    pub(crate) host: HostId,
    pub(crate) name: String,
    pub(crate) disk: SimDisk,
    pub(crate) knobs: Arc<Knobs>,
    program: Program,
    net: Net,
    dice: Dice,
    boot: Option<Boot>,
    /// How often it went down.
    pub(crate) crashes: u64,
    /// Faults that its disk was given, but for those that were taken back.
    faults: u64,
    /// A bug that its programs have.
    pub(crate) mutant: Option<Mutant>,
    /// Who watches its log.
    pub(crate) witness: Option<Witness>,
    /// The disk as it was a while ago, to come back to.
    old_disk: Option<SimDisk>,
}

/// One life of a program.
struct Boot {
    executor: tokio::runtime::Runtime,
    runtime: Runtime,
    began: Duration,
    /// How far its own clock has come.
    ran: Duration,
    is_paused: bool,
    ended: Arc<Mutex<Option<Result<(), String>>>>,
}

/// How a machine goes down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Crash {
    /// The process is gone; the machine tells its peers, and the page cache stays.
    Process,
    /// The machine is gone: nobody is told, and what was not synced is lost, kept, torn or garbage, as this seed says.
    Power {
        seed: u64,
        /// All of that is lost where the log would end in doubt.
        without_doubt: bool,
    },
    /// The machine is gone, and another one with an empty disk will stand in its place.
    Disk,
    /// The machine is gone, and comes back with its disk as it was when that was remembered ([`Machine::remember_disk`]), or with
    /// all of it but the log.
    SetBack { without_log: bool },
}

impl Machine {
    pub(crate) fn new(host: HostId, name: &str, net: &Net, dice: Dice, program: Program) -> Self {
        let knobs = Knobs::default();
        knobs.disk_us.store(DISK_US, Ordering::Relaxed);
        Self {
            host,
            name: name.to_owned(),
            disk: SimDisk::new(),
            knobs: Arc::new(knobs),
            program,
            net: net.clone(),
            dice,
            boot: None,
            crashes: 0,
            faults: 0,
            mutant: None,
            witness: None,
            old_disk: None,
        }
    }

    pub(crate) fn is_up(&self) -> bool {
        self.boot.is_some()
    }

    /// Starts the program from what is on the disk.
    ///
    /// # Errors
    /// When there is no memory for an executor.
    pub(crate) fn start(&mut self, now: Duration) -> std::io::Result<()> {
        self.net.set_dark(self.host, false);
        let executor = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()?;
        let clock = {
            let _inside = executor.enter();
            MachineClock::new(now, Arc::clone(&self.knobs))
        };
        let is_slow = self.mutant == Some(Mutant::SlowClock) && self.host % 10 == 1;
        let clock = clock.slowed(if is_slow { SLOWNESS } else { 1 });
        let runtime = Runtime::with(Adapters {
            clock: Arc::new(clock),
            random: Arc::new(SeededRandom::new(self.dice.number())),
            network: Arc::new(HostNetwork {
                net: self.net.clone(),
                host: self.host,
            }),
        })
        .without_threads(Arc::clone(&self.knobs) as Arc<dyn runtime::Turns>);
        let ended = Arc::new(Mutex::new(None));
        let mut vfs: Arc<dyn Vfs> = Arc::new(self.disk.clone());
        if let Some(witness) = &self.witness {
            // A copy, as what the witness reads must not meet the faults that are meant for the program.
            witness.start(&self.name, &self.disk.restart());
            vfs = Arc::new(Tapped::new(vfs, witness.clone()));
        }
        let running = (self.program)(Process {
            runtime: runtime.clone(),
            vfs: match self.mutant {
                Some(mutant) => mutant.disk(vfs),
                None => vfs,
            },
            stop: CancellationToken::new(),
        });
        let tell = Arc::clone(&ended);
        drop(executor.spawn(async move {
            let how = running.await;
            *tell.lock() = Some(how);
        }));
        self.boot = Some(Boot {
            executor,
            runtime,
            began: now,
            ran: Duration::ZERO,
            is_paused: false,
            ended,
        });
        Ok(())
    }

    /// Lets the program run until its clock shows `until`. One that was paused finds that time has passed.
    #[expect(clippy::disallowed_methods, reason = "this is an adapter")]
    pub(crate) fn run(&mut self, until: Duration) {
        let Some(boot) = &mut self.boot else {
            return;
        };
        if boot.is_paused {
            return;
        }
        let _span = tracing::error_span!("machine", name = %self.name).entered();
        let target = until.saturating_sub(boot.began);
        let behind = target.saturating_sub(boot.ran);
        boot.ran = target;
        boot.executor.block_on(async {
            if behind > TICK {
                tokio::time::advance(behind - TICK).await;
            }
            tokio::time::sleep(behind.min(TICK)).await;
        });
    }

    /// Runs a future in the program's executor.
    pub(crate) fn spawn<T: Send + 'static>(
        &self,
        work: impl FnOnce(Runtime) -> Pin<Box<dyn Future<Output = T> + Send>>,
    ) -> Arc<Mutex<Option<T>>> {
        let result = Arc::new(Mutex::new(None));
        if let Some(boot) = &self.boot {
            let (tell, work) = (Arc::clone(&result), work(boot.runtime.clone()));
            drop(boot.executor.spawn(async move {
                let value = work.await;
                *tell.lock() = Some(value);
            }));
        }
        result
    }

    /// How the program ended, if it has. It is gone then, and the disk is as it left it.
    pub(crate) fn ended(&mut self) -> Option<Result<(), String>> {
        let how = self.boot.as_ref()?.ended.lock().take()?;
        self.crash(Crash::Process);
        Some(how)
    }

    pub(crate) fn pause(&mut self, is_paused: bool) {
        if let Some(boot) = &mut self.boot {
            boot.is_paused = is_paused;
        }
    }

    /// Ends the program without a word. Says how many things on its disk were undecided.
    pub(crate) fn crash(&mut self, how: Crash) -> usize {
        let pending = self.disk.pending().len();
        self.crashes += 1;
        self.take_back_faults();
        if how != Crash::Process {
            self.net.set_dark(self.host, true);
        }
        // The image is taken before destructors of the program can reach the disk.
        let image = match how {
            Crash::Process => self.disk.restart(),
            Crash::Power {
                seed,
                without_doubt,
            } => self.after_power(seed, without_doubt),
            Crash::Disk => SimDisk::new(),
            Crash::SetBack { without_log: false } => match self.old_disk.take() {
                Some(old) => old,
                None => self.disk.crash_losing_all(),
            },
            Crash::SetBack { without_log: true } => without_log(&self.disk.crash_losing_all()),
        };
        self.disk.halt_after(Some(0));
        drop(self.boot.take());
        if let Some(witness) = &self.witness {
            match how {
                Crash::Process | Crash::Power { .. } => {}
                Crash::Disk => witness.lose(false),
                Crash::SetBack { .. } => witness.lose(true),
            }
        }
        self.disk = image;
        pending
    }

    /// The disk after a loss of power, as it is, or as a bug makes it.
    fn after_power(&self, seed: u64, without_doubt: bool) -> SimDisk {
        let mut image = self.disk.crash_seeded(seed);
        if without_doubt && is_in_doubt(&image) {
            image = self.disk.crash_losing_all();
        }
        match (self.mutant, &self.old_disk) {
            (Some(Mutant::OldDisk), Some(old)) => old.crash_losing_all(),
            (Some(Mutant::LoseLogKeepIdentity), _) => without_log(&image),
            (Some(_) | None, _) => image,
        }
    }

    /// Whether the log ends in a batch of which nobody can say whether it was acknowledged.
    pub(crate) fn is_in_doubt(&self) -> bool {
        is_in_doubt(&self.disk)
    }

    /// Remembers the disk as it is, to come back to.
    pub(crate) fn remember_disk(&mut self) {
        self.old_disk = Some(self.disk.crash_losing_all());
    }

    /// Flips a bit of the log at rest, and says where.
    pub(crate) fn rot(&self, dice: &mut Dice) -> Option<String> {
        self.rot_one_of(&self.segments(), dice)
    }

    /// Flips a bit of a snapshot at rest, and says where.
    pub(crate) fn rot_of_snapshots(&self, dice: &mut Dice) -> Option<String> {
        self.rot_one_of(&self.files_below(Path::new(SNAPSHOTS), "snap"), dice)
    }

    fn rot_one_of(&self, files: &[PathBuf], dice: &mut Dice) -> Option<String> {
        let file = files.get(dice.index(files.len()))?;
        let end = self.written(file)?;
        self.flip(file, dice.below(0..end * 8))
    }

    /// Flips a bit of what was written to the log last, and says where. The mark that ends a batch is left alone: without it a
    /// batch cannot be told from one that was never written whole.
    pub(crate) fn rot_at_the_end(&self, dice: &mut Dice) -> Option<String> {
        let segments = self.segments();
        let segment = segments.last()?;
        let end = self.written(segment)?.checked_sub(MARK_BYTES)?;
        let length = dice.pick(&[256, 1_024, 64 << 10]).unwrap_or(end);
        self.flip(segment, dice.below(end.saturating_sub(length) * 8..end * 8))
    }

    /// The files of the log, oldest first.
    fn segments(&self) -> Vec<PathBuf> {
        self.files_below(Path::new(tap::LOG), "wal")
    }

    /// The files in a directory and those below it whose names end so, in the order of their names.
    fn files_below(&self, folder: &Path, ending: &str) -> Vec<PathBuf> {
        // A copy, as whoever looks here must not meet the faults that are meant for the program.
        let image = self.disk.restart();
        let (mut folders, mut files) = (vec![folder.to_owned()], Vec::new());
        while let Some(folder) = folders.pop() {
            for entry in image.list_dir(&folder).unwrap_or_default() {
                let path = folder.join(entry.name);
                if entry.is_dir {
                    folders.push(path);
                } else if path.extension().is_some_and(|end| end == ending) {
                    files.push(path);
                }
            }
        }
        files.sort();
        files
    }

    /// How far a file was written. Room is allocated ahead; nothing stands there.
    fn written(&self, segment: &Path) -> Option<u64> {
        let bytes = self.disk.contents(segment).ok()?;
        Some(bytes.iter().rposition(|byte| *byte != 0)? as u64 + 1)
    }

    fn flip(&self, segment: &Path, bit: u64) -> Option<String> {
        self.disk.flip_bit(segment, bit).ok()?;
        Some(format!("bit {bit} of {}", segment.display()))
    }

    /// Lets an operation of the disk fail. It has one fault at a time: one that has not hit yet is taken back.
    pub(crate) fn inject(&mut self, fault: Fault) {
        self.take_back_faults();
        self.faults += 1;
        self.disk.inject(fault);
    }

    /// Takes back what has not hit yet.
    pub(crate) fn take_back_faults(&mut self) {
        self.faults -= self.disk.take_back_faults() as u64;
    }

    /// How many faults of the disk have hit an operation.
    pub(crate) fn faults_hit(&self) -> u64 {
        self.faults - self.disk.faults_waiting() as u64
    }

    /// Puts the disk back to its usual pace.
    pub(crate) fn heal_disk(&self) {
        self.disk.set_capacity(None);
        self.knobs.disk_us.store(DISK_US, Ordering::Relaxed);
    }
}

/// A disk that lost its log and nothing else.
fn without_log(disk: &SimDisk) -> SimDisk {
    // Nothing there to remove is as good.
    drop(disk.remove_dir_all(Path::new(tap::LOG)));
    disk.crash_keeping_all()
}

fn is_in_doubt(disk: &SimDisk) -> bool {
    let verdict =
        wal::inspect::verify(disk, Path::new(tap::LOG), None).map(|report| report.verdict);
    matches!(verdict, Ok(Verdict::Ambiguous { .. }))
}

#[cfg(test)]
mod tests {
    use vfs::Op;
    use vfs::sim::Effect;

    use super::*;

    #[test]
    fn a_fault_of_a_disk_counts_when_it_hits_and_not_when_it_is_taken_back() {
        let net = Net::new(Dice::new(1));
        let mut machine = Machine::new(11, "shard-11", &net, Dice::new(2), crate::cast::idle());
        let list = |machine: &Machine| machine.disk.list_dir(Path::new("/")).is_ok();
        machine.inject(Fault::next(Op::Read, Effect::Io));
        machine.inject(Fault::next(Op::List, Effect::Io));
        assert_eq!(machine.faults_hit(), 0);
        assert!(!list(&machine));
        assert_eq!(machine.faults_hit(), 1);
        machine.inject(Fault::next(Op::List, Effect::Io));
        machine.crash(Crash::Process);
        assert!(list(&machine));
        assert_eq!(machine.faults_hit(), 1);
    }
}
