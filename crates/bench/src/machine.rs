//! What the figures were taken on.

use std::time::Duration;

use serde::Serialize;

/// The machine, as it says itself.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Machine {
    pub(crate) processor: String,
    pub(crate) cores: usize,
    pub(crate) memory_kib: u64,
    pub(crate) system: String,
    /// Load averages of 1, 5 and 15 minutes before the run.
    pub(crate) load_before: String,
}

impl Machine {
    pub(crate) fn look() -> Self {
        let kib = field("/proc/meminfo", "MemTotal");
        Self {
            processor: field("/proc/cpuinfo", "model name"),
            cores: std::thread::available_parallelism().map_or(0, std::num::NonZero::get),
            memory_kib: kib.trim_end_matches(" kB").parse().unwrap_or(0),
            system: first_line("/proc/version")
                .split(" (")
                .next()
                .unwrap_or_default()
                .to_owned(),
            load_before: load_average(),
        }
    }
}

impl Machine {
    /// The machine, and how busy it was, as a line of text.
    pub(crate) fn describe(&self, load_after: &str) -> String {
        format!(
            "{}, {} cores, {} MiB, {}; load average {} before, {load_after} after.\n",
            self.processor,
            self.cores,
            self.memory_kib / 1024,
            self.system,
            self.load_before,
        )
    }
}

/// On what something was measured, how often, and how busy that was before and after.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Circumstances {
    machine: Machine,
    /// Load averages of 1, 5 and 15 minutes after the run.
    load_after: String,
    pub(crate) rounds: u16,
    pub(crate) seconds: f64,
}

impl Circumstances {
    /// When all has been measured, in so many rounds of so long.
    pub(crate) fn after(machine: Machine, rounds: u16, time: Duration) -> Self {
        Self {
            machine,
            load_after: load_average(),
            rounds,
            seconds: time.as_secs_f64(),
        }
    }

    /// The machine and its loads, as a line of text.
    pub(crate) fn machine(&self) -> String {
        self.machine.describe(&self.load_after)
    }

    /// All of it as text, which is to go on.
    pub(crate) fn describe(&self) -> String {
        let machine = self.machine();
        let (rounds, seconds) = (self.rounds, self.seconds);
        format!(
            "{machine}Medians of {rounds} rounds of {seconds} s, server and clients on this machine"
        )
    }
}

/// Load averages of 1, 5 and 15 minutes, as text.
fn load_average() -> String {
    let text = first_line("/proc/loadavg");
    text.split_whitespace()
        .take(3)
        .collect::<Vec<_>>()
        .join(" ")
}

fn first_line(path: &str) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().next().unwrap_or_default().to_owned()
}

fn field(path: &str, name: &str) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with(name));
    let value = line.and_then(|line| line.split_once(':'));
    value
        .map_or("unknown", |(_, value)| value.trim())
        .to_owned()
}
