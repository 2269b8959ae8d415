//! Many seeds, some at a time, with a record that says which were run.

use std::collections::BTreeSet;
use std::fmt;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use parking_lot::Mutex;
use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};
use vfs::{LockGuard, RealDisk, Vfs, VfsFile};

use crate::seed::{Options, Report};

/// Processor time that a seed may take: a hundred times what one takes without optimisations. Where more is used, time stands still, as
/// something goes on and on without waiting for anything.
const PROCESSOR_TIME: Duration = Duration::from_secs(600);

/// Which seeds to run, and how.
#[derive(Debug, Clone)]
pub struct Campaign {
    /// The command of this crate, which runs each seed in a process of its own.
    pub program: PathBuf,
    /// The first.
    pub from: u64,
    /// How many.
    pub seeds: u64,
    /// How many at a time, at least 1.
    pub jobs: u64,
    /// A file with a line for each seed that was run; those are not run again.
    pub record: Option<PathBuf>,
    /// Run each twice: both must be the same.
    pub twice: bool,
}

/// What came of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Summary {
    /// Seeds that were run now.
    pub ran: u64,
    /// Seeds that the record had already.
    pub known: u64,
    /// Seeds with problems, those of the record included.
    pub failed: Vec<u64>,
    /// Acknowledgements of increments in those that were run.
    pub acked: u64,
    /// Faults that fired in them.
    pub faults: u64,
}

impl fmt::Display for Summary {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{} seeds run, {} known, {} with problems {:?}, {} acknowledged increments, {} faults",
            self.ran,
            self.known,
            self.failed.len(),
            self.failed,
            self.acked,
            self.faults
        )
    }
}

impl Report {
    /// One line for a record: seed, verdict, hash, numbers.
    #[must_use]
    pub fn line(&self) -> String {
        let verdict = if self.problems.is_empty() {
            "ok"
        } else {
            "FAILED"
        };
        let faults: Vec<String> = self
            .faults
            .iter()
            .map(|(kind, count)| format!("{kind}={count}"))
            .collect();
        format!(
            "{} {verdict} {} simulated={:.1}s acked={} {}",
            self.seed,
            self.hash,
            self.simulated.as_secs_f64(),
            self.acked,
            faults.join(" ")
        )
    }
}

/// A file that lines are appended to, by one campaign at a time: each counts for itself where the file ends.
struct Record {
    file: Box<dyn VfsFile>,
    end: u64,
    _lock: LockGuard,
}

impl Record {
    /// Opens a record, and reads which seeds it has, and which of those failed.
    fn open(path: &Path) -> anyhow::Result<(Self, BTreeSet<u64>, Vec<u64>)> {
        let disk = RealDisk::new();
        let lock = disk.lock_file(path).map_err(|error| {
            if error.is_locked() {
                anyhow::anyhow!(
                    "another run appends to the record {}: wait for its end, or name another file",
                    path.display()
                )
            } else {
                error.into()
            }
        })?;
        let file = disk.open_write(path)?;
        let mut bytes = vec![0; usize::try_from(file.len()?)?];
        file.read_exact_at(&mut bytes, 0)?;
        let text = String::from_utf8(bytes).context("the record is not text")?;
        let (mut known, mut failed) = (BTreeSet::new(), Vec::new());
        // A line without an end was cut off; its seed is run again.
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        for line in text.get(..whole).unwrap_or_default().lines() {
            let mut words = line.split(' ');
            let seed = words.next().and_then(|word| word.parse().ok());
            let seed: u64 = seed.with_context(|| format!("no seed in {line:?}"))?;
            known.insert(seed);
            if words.next() != Some("ok") {
                failed.push(seed);
            }
        }
        let end = whole as u64;
        let record = Self {
            file,
            end,
            _lock: lock,
        };
        Ok((record, known, failed))
    }

    fn append(&mut self, line: &str) -> anyhow::Result<()> {
        let line = format!("{line}\n");
        self.file.write_all_at(line.as_bytes(), self.end)?;
        self.end += line.len() as u64;
        Ok(())
    }
}

/// Has the kernel end this process once it has used more processor time than any seed needs. It cannot be undone.
///
/// # Errors
/// When the kernel refuses.
pub fn limit_processor_time() -> anyhow::Result<()> {
    let limit = Rlimit {
        current: Some(PROCESSOR_TIME.as_secs()),
        maximum: getrlimit(Resource::Cpu).maximum,
    };
    setrlimit(Resource::Cpu, limit).context("limiting the processor time")
}

/// Runs a seed in a process of its own. `program` is the command of this crate. That a seed does not end is a problem of the seed.
///
/// # Errors
/// When the process cannot be started, or does not say what it saw.
pub fn run_apart(program: &Path, seed: u64, options: Options) -> anyhow::Result<Report> {
    let mut command = std::process::Command::new(program);
    command.args(["report", &seed.to_string()]);
    if options.calm {
        command.arg("--calm");
    }
    if let Some(mutant) = options.mutant {
        command.args(["--mutant", &mutant.name()]);
    }
    let output = command.output().context("starting the simulation")?;
    told(seed, &output)
}

/// What a process said of its seed.
fn told(seed: u64, output: &Output) -> anyhow::Result<Report> {
    if output.status.signal() == Some(Signal::XCPU.as_raw()) {
        return Ok(endless(seed));
    }
    serde_json::from_slice(&output.stdout).with_context(|| {
        let said = String::from_utf8_lossy(&output.stderr);
        format!(
            "seed {seed} ended with {} and no report: {said}",
            output.status
        )
    })
}

/// What is known of a seed that was ended by [`limit_processor_time`].
fn endless(seed: u64) -> Report {
    let problem = format!(
        "does not end: more than {} s of processor time",
        PROCESSOR_TIME.as_secs()
    );
    Report {
        seed,
        hash: "unknown".to_owned(),
        problems: vec![problem],
        simulated: Duration::ZERO,
        acked: 0,
        faults: Vec::new(),
        tail: Vec::new(),
    }
}

/// Runs a seed, twice where asked for; a difference is a problem.
///
/// # Errors
/// As [`run_apart`].
pub fn judged(program: &Path, seed: u64, twice: bool) -> anyhow::Result<Report> {
    let options = Options::default();
    let mut report = run_apart(program, seed, options)?;
    if twice {
        let again = run_apart(program, seed, options)?;
        if again.hash != report.hash {
            let text = format!("two runs differ: {} and {}", report.hash, again.hash);
            report.problems.push(text);
        }
    }
    Ok(report)
}

struct Progress {
    next: u64,
    record: Option<Record>,
    summary: Summary,
    broken: Option<anyhow::Error>,
}

/// Runs seeds and tells of each report as it comes.
///
/// # Errors
/// When a simulation breaks, or the record cannot be read or written, or another campaign appends to it.
pub fn campaign(campaign: &Campaign, tell: &(dyn Fn(&Report) + Sync)) -> anyhow::Result<Summary> {
    let (record, known, failed) = match &campaign.record {
        None => (None, BTreeSet::new(), Vec::new()),
        Some(path) => {
            let (record, known, failed) = Record::open(path)?;
            (Some(record), known, failed)
        }
    };
    let end = campaign.from.saturating_add(campaign.seeds);
    let within = campaign.from..end;
    let summary = Summary {
        known: known.range(within.clone()).count() as u64,
        failed: failed
            .into_iter()
            .filter(|seed| within.contains(seed))
            .collect(),
        ..Summary::default()
    };
    let progress = Arc::new(Mutex::new(Progress {
        next: campaign.from,
        record,
        summary,
        broken: None,
    }));
    std::thread::scope(|scope| {
        for _ in 0..campaign.jobs.max(1) {
            scope.spawn(|| work(&progress, &known, campaign, tell));
        }
    });
    let mut progress = progress.lock();
    match progress.broken.take() {
        Some(error) => Err(error),
        None => {
            progress.summary.failed.sort_unstable();
            Ok(progress.summary.clone())
        }
    }
}

fn work(
    progress: &Mutex<Progress>,
    known: &BTreeSet<u64>,
    campaign: &Campaign,
    tell: &(dyn Fn(&Report) + Sync),
) {
    let end = campaign.from.saturating_add(campaign.seeds);
    loop {
        let seed = {
            let mut progress = progress.lock();
            while known.contains(&progress.next) {
                progress.next += 1;
            }
            if progress.next >= end || progress.broken.is_some() {
                return;
            }
            progress.next += 1;
            progress.next - 1
        };
        let judged = judged(&campaign.program, seed, campaign.twice);
        let mut progress = progress.lock();
        let noted = judged.and_then(|report| {
            tell(&report);
            let summary = &mut progress.summary;
            summary.ran += 1;
            summary.acked += report.acked;
            summary.faults += report.faults_fired();
            if !report.problems.is_empty() {
                summary.failed.push(seed);
            }
            match &mut progress.record {
                Some(record) => record.append(&report.line()),
                None => Ok(()),
            }
        });
        if let Err(error) = noted {
            progress.broken = Some(error);
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::ExitStatus;

    use super::*;

    fn output(status: i32) -> Output {
        Output {
            status: ExitStatus::from_raw(status),
            stdout: Vec::new(),
            stderr: Vec::new(),
        }
    }

    #[test]
    fn a_record_belongs_to_one_campaign_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("seeds.txt");
        let (mut first, _, _) = Record::open(&path).unwrap();
        let refused = Record::open(&path).err().unwrap().to_string();
        assert!(refused.contains("another run"), "{refused}");
        first.append("3 ok").unwrap();
        drop(first);
        let (_, known, failed) = Record::open(&path).unwrap();
        assert_eq!((known, failed), (BTreeSet::from([3]), Vec::new()));
    }

    #[test]
    fn a_seed_that_does_not_end_is_a_problem_of_the_seed() {
        let report = told(7, &output(Signal::XCPU.as_raw())).unwrap();
        assert_eq!(report.line(), "7 FAILED unknown simulated=0.0s acked=0 ");
        assert_eq!(report.problems.len(), 1);
    }

    #[test]
    fn a_process_that_breaks_breaks_the_campaign() {
        let error = told(7, &output(Signal::ABORT.as_raw())).unwrap_err();
        assert!(format!("{error:#}").contains("no report"), "{error:#}");
    }
}
