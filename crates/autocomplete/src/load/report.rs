//! What a load tells people: progress, bad lines, and what came of it.

use std::io::{self, Write as _};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use runtime::{Instant, Runtime};

use super::send::Stopped;
use workload::per_second;

use crate::output::{counted, grouped};

/// Bad lines that are printed; the others are only counted.
const BAD_LINES_SHOWN: u64 = 20;

#[derive(Debug)]
pub(crate) struct Report {
    bar: ProgressBar,
    begun: Option<Instant>,
    /// Items of batches that an earlier run had settled.
    skipped: u64,
    applied: u64,
    /// Items that were found applied by an earlier run.
    repeated: u64,
    bad: u64,
    is_quiet: bool,
}

impl Report {
    pub(super) fn new(bytes: Option<u64>) -> Self {
        let bar = bytes.map_or_else(ProgressBar::no_length, ProgressBar::new);
        let template = if bytes.is_some() {
            "{bar:30} {percent:>3}%  {binary_bytes_per_sec}  {eta} left  {msg}"
        } else {
            "{spinner} {binary_bytes}  {binary_bytes_per_sec}  {msg}"
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(250));
        Self {
            bar,
            is_quiet: false,
            ..Self::quiet()
        }
    }

    /// Counts without telling.
    pub(crate) fn quiet() -> Self {
        Self {
            bar: ProgressBar::hidden(),
            begun: None,
            skipped: 0,
            applied: 0,
            repeated: 0,
            bad: 0,
            is_quiet: true,
        }
    }

    pub(super) fn begin(&mut self, runtime: &Runtime) {
        self.begun = Some(runtime.now());
    }

    pub(super) fn progress(&self, runtime: &Runtime, bytes: u64) {
        self.bar.set_position(bytes);
        self.bar.set_message(format!(
            "{} ({}/s)",
            counted(self.terms(), "term"),
            grouped(per_second(self.terms(), self.time(runtime)))
        ));
    }

    pub(super) fn skipped(&mut self, items: u64) {
        self.skipped += items;
    }

    pub(super) fn applied(&mut self, new: u64, repeated: u64) {
        self.applied += new;
        self.repeated += repeated;
    }

    pub(super) fn bad_line(&mut self, number: u64, problem: &str) {
        self.bad += 1;
        if self.is_quiet || self.bad > BAD_LINES_SHOWN {
            return;
        }
        let text = format!("line {number}: {problem}");
        self.bar.suspend(|| say(&text));
        if self.bad == BAD_LINES_SHOWN {
            self.bar
                .suspend(|| say("further bad lines are only counted"));
        }
    }

    /// Terms that were answered, by this run.
    pub(crate) fn terms(&self) -> u64 {
        self.applied + self.repeated
    }

    fn time(&self, runtime: &Runtime) -> Duration {
        self.begun.map_or(Duration::ZERO, |begun| {
            runtime.now().saturating_since(begun)
        })
    }

    /// Sums up, and turns a load that stopped into an error.
    pub(super) fn finish(
        self,
        runtime: &Runtime,
        result: Result<(), Stopped>,
    ) -> Result<(), anyhow::Error> {
        let time = self.time(runtime);
        self.bar.finish_and_clear();
        say(&format!(
            "recorded {} in {:.1} s ({} a second)",
            counted(self.applied, "term"),
            time.as_secs_f64(),
            grouped(per_second(self.applied, time))
        ));
        if self.skipped > 0 {
            say(&format!(
                "{} had been recorded by an earlier run of this load; --again would count them once more",
                counted(self.skipped, "term")
            ));
        }
        if self.repeated > 0 {
            say(&format!(
                "{} had been recorded already, by an earlier run of this load or by a try whose answer was lost, and were not counted again",
                counted(self.repeated, "term")
            ));
        }
        if self.bad > 0 {
            say(&format!("{} skipped", counted(self.bad, "bad line")));
        }
        result?;
        Ok(())
    }
}

/// Standard error may be closed; a load goes on all the same.
fn say(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}
