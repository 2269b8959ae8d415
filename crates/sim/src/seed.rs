//! One seed, from the first boot to the verdict.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::cast;
use crate::dice::Dice;
use crate::heal;
use crate::logs::Witness;
use crate::machine::Machine;
use crate::mutant::Mutant;
use crate::nemesis::Nemesis;
use crate::oracle::Oracle;
use crate::panics;
use crate::trace::Trace;
use crate::workload::{Diet, Judge, Worker};
use crate::world::World;

/// Clients of a run.
const CLIENTS: usize = 6;
/// How long the cluster may take to begin.
const BEGIN: Duration = Duration::from_secs(30);
/// How long faults and writes go on.
const STORM: Duration = Duration::from_secs(32);
/// Acknowledgements of increments, and faults that must fire, for a seed to prove anything.
const ACKED_MIN: u64 = 200;
const FAULTS_MIN: u64 = 5;
/// And for how long it must have gone on.
const SIMULATED_MIN: Duration = Duration::from_secs(30);

/// What a run showed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// Depends on everything that happened, and when.
    pub hash: String,
    /// What was not as it must be; empty in a good run.
    pub problems: Vec<String>,
    /// Simulated time of the whole run.
    pub simulated: Duration,
    /// Acknowledgements of increments: each one of a batch counts, and so does a repeat.
    pub acked: u64,
    /// Faults that had an effect, by kind.
    pub faults: Vec<(String, u64)>,
    /// The last lines of the trace.
    pub tail: Vec<String>,
}

impl Report {
    /// Faults that had an effect.
    #[must_use]
    pub fn faults_fired(&self) -> u64 {
        self.faults.iter().map(|(_, count)| count).sum()
    }
}

/// How to run a seed.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// Print the trace while it happens.
    pub prints: bool,
    /// No faults at all.
    pub calm: bool,
    /// A bug that the programs have.
    pub mutant: Option<Mutant>,
}

/// Runs a seed here, on a thread of its own, as what happens in it depends on the thread's name. Libraries keep counters for
/// their process that chance depends on, too: only the first run of a process is the one that the seed names. See
/// [`crate::run_apart`].
///
/// # Errors
/// When the thread cannot be started, or the simulation itself breaks.
pub fn run(seed: u64, options: Options) -> anyhow::Result<Report> {
    on_a_thread_of_its_own(seed, move || run_here(seed, options))?
}

/// Does something where chance and time are those of a seed.
///
/// # Errors
/// When the thread cannot be started, or panics.
pub(crate) fn on_a_thread_of_its_own<T: Send + 'static>(
    seed: u64,
    work: impl FnOnce() -> T + Send + 'static,
) -> anyhow::Result<T> {
    // Panics are noted by the thread that they happen in.
    let guarded = move || catch_unwind(AssertUnwindSafe(work)).map_err(|_| panics::taken());
    let thread = std::thread::Builder::new()
        .name(format!("seed-{seed:x}"))
        .stack_size(16 << 20)
        .spawn(guarded)
        .context("starting a thread")?;
    let ended = thread.join().unwrap_or_else(|_| Err(Vec::new()));
    ended.map_err(|seen| anyhow::anyhow!("the simulation of seed {seed} panicked: {seen:?}"))
}

fn run_here(seed: u64, options: Options) -> anyhow::Result<Report> {
    panics::watch();
    let trace = Trace::new(options.prints);
    let mut dice = Dice::new(seed);
    let shape = cast::Shape::draw(&mut dice);
    trace.note(Duration::ZERO, &format!("{shape:?}"));
    let mut world = World::new(dice.fork(), trace.clone(), shape);
    build(&mut world, &mut dice, options.mutant)?;
    let mut problems = Vec::new();
    let mut nemesis = Nemesis::new(dice.fork(), shape);
    let judge: Judge = Arc::new(Mutex::new(Oracle::new(
        trace.clone(),
        nemesis.bends_clocks() && !options.calm,
    )));
    if let Err(problem) = heal::until_serving(&mut world, BEGIN) {
        problems.push(format!("the cluster does not begin: {problem}"));
    } else {
        storm(&mut world, &judge, &mut nemesis, &mut dice, options)?;
        if let Err(problem) = heal::completely(&mut world, &judge) {
            problems.push(format!("the cluster does not heal: {problem}"));
        }
    }
    let stats = world.net.stats();
    trace.note(world.now, &format!("network {stats:?}"));
    let (violations, counts) = {
        let mut oracle = judge.lock();
        (std::mem::take(&mut oracle.violations), oracle.counts)
    };
    trace.note(world.now, &format!("{counts:?}"));
    problems.extend(violations);
    {
        let mut logs = world.logs.lock();
        problems.append(&mut logs.problems);
        let text = format!("{} committed entries compared", logs.entries);
        trace.note(world.now, &text);
    }
    problems.extend(panics::taken());
    let faults = nemesis.fired();
    let fired = nemesis.struck();
    if counts.acked < ACKED_MIN {
        problems.push(format!(
            "only {} increments were acknowledged",
            counts.acked
        ));
    }
    if !options.calm && fired < FAULTS_MIN {
        problems.push(format!("only {fired} faults fired"));
    }
    if world.now < SIMULATED_MIN {
        problems.push(format!("only {:?} were simulated", world.now));
    }
    Ok(Report {
        seed,
        hash: trace.hash(),
        problems,
        simulated: world.now,
        acked: counts.acked,
        faults,
        tail: trace.tail(60),
    })
}

/// Puts the machines of a seed's world together, and starts them.
pub(crate) fn build(
    world: &mut World,
    dice: &mut Dice,
    mutant: Option<Mutant>,
) -> anyhow::Result<()> {
    let net = world.net.clone();
    let shape = world.shape;
    let mut coordinators = Vec::new();
    for host in shape.coordinators() {
        coordinators.push((*host, cast::coordinator(*host, shape)?));
    }
    let watchdog = cast::watchdog(shape, &world.wishes);
    let logs = Arc::clone(&world.logs);
    let mut add = |host, name: &str, program| {
        let mut machine = Machine::new(host, name, &net, dice.fork(), program);
        machine.witness = Witness::of(&logs, host, shape);
        if host != cast::CLIENTS {
            machine.mutant = mutant;
        }
        world.machines.push(machine);
    };
    for (host, program) in coordinators {
        add(host, &format!("coordinator-{host}"), program);
    }
    for host in shape.shard_servers() {
        let program = cast::shard_server(*host, shape);
        add(*host, &format!("shard-{host}"), program);
    }
    for host in shape.watchdogs() {
        add(*host, &format!("watchdog-{host}"), Arc::clone(&watchdog));
    }
    add(cast::CLIENTS, "clients", cast::idle());
    let hosts: Vec<_> = world.machines.iter().map(|machine| machine.host).collect();
    hosts.into_iter().try_for_each(|host| world.start(host))
}

/// Writes, reads and faults, all at once.
fn storm(
    world: &mut World,
    judge: &Judge,
    nemesis: &mut Nemesis,
    dice: &mut Dice,
    options: Options,
) -> anyhow::Result<()> {
    let stop = runtime::CancellationToken::new();
    let mut working = Vec::new();
    let endpoints = world.shape.endpoints();
    let diet = if dice.percent(50) {
        Diet::Plain
    } else {
        Diet::Mixed
    };
    let once = !nemesis.delivers_again();
    for _ in 0..CLIENTS {
        let endpoints = endpoints.clone();
        let (judge, dice, stop) = (Arc::clone(judge), dice.fork(), stop.clone());
        let clients = world.machine(cast::CLIENTS).context("no clients")?;
        working.push(clients.spawn(|runtime| {
            Box::pin(async move {
                let worker = Worker::new(&runtime, &endpoints, &judge, diet, dice);
                if let Ok(mut worker) = worker {
                    worker.mutant = options.mutant;
                    if once {
                        worker.call_bare(&endpoints);
                    }
                    worker.run(stop).await;
                }
            })
        }));
    }
    for host in world.shape.shard_servers() {
        let (judge, dice, stop) = (Arc::clone(judge), dice.fork(), stop.clone());
        let clients = world.machine(cast::CLIENTS).context("no clients")?;
        working.push(clients.spawn(move |runtime| {
            Box::pin(async move {
                if let Ok(reader) = Worker::reader(&runtime, *host, &judge, dice) {
                    reader.run(stop).await;
                }
            })
        }));
    }
    let end = world.now + STORM;
    // A seed may draw kinds that rule each other out, or leave clients little time: it goes on until enough has happened to prove
    // anything.
    let too_few = |nemesis: &Nemesis, now| {
        let has_few = nemesis.struck() < FAULTS_MIN || judge.lock().counts.acked < ACKED_MIN;
        has_few && now < end + STORM
    };
    while world.now < end || (!options.calm && too_few(nemesis, world.now)) {
        world.tick()?;
        if !options.calm {
            nemesis.act(world)?;
            tell(judge, nemesis, world);
        }
        if world.now.as_millis().is_multiple_of(3_000) {
            let machines = world.machines.iter_mut();
            let forgetful = |machine: &&mut Machine| machine.mutant == Some(Mutant::OldDisk);
            machines.filter(forgetful).for_each(Machine::remember_disk);
        }
    }
    stop.cancel();
    nemesis.end(world)?;
    let patience = world.now + Duration::from_secs(20);
    while working.iter().any(|worker| worker.lock().is_none()) {
        anyhow::ensure!(world.now < patience, "clients do not end");
        tell(judge, nemesis, world);
        world.tick()?;
    }
    tell(judge, nemesis, world);
    Ok(())
}

/// Tells the judge what the faults excuse.
fn tell(judge: &Judge, nemesis: &Nemesis, world: &World) {
    let mut judge = judge.lock();
    judge.sent_again(nemesis.sent_again);
    for doubt in nemesis.doubts(world) {
        judge.doubt(doubt.shard, doubt.server, doubt.lease, world.now);
    }
}
