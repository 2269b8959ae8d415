//! All machines and the network between them, moved forward together.

use std::time::Duration;

use crate::dice::Dice;
use crate::machine::{Crash, Machine, TICK};
use crate::net::{HostId, Net};
use crate::trace::Trace;

/// The machines, the network and the time.
pub(crate) struct World {
    pub(crate) now: Duration,
    pub(crate) net: Net,
    pub(crate) machines: Vec<Machine>,
    pub(crate) trace: Trace,
    pub(crate) dice: Dice,
    /// When machines that are down start again.
    restarts: Vec<(Duration, HostId)>,
    /// Programs that ended by themselves, and why.
    pub(crate) exits: u64,
}

impl World {
    pub(crate) fn new(mut dice: Dice, trace: Trace) -> Self {
        Self {
            now: Duration::ZERO,
            net: Net::new(dice.fork()),
            machines: Vec::new(),
            trace,
            dice,
            restarts: Vec::new(),
            exits: 0,
        }
    }

    pub(crate) fn machine(&mut self, host: HostId) -> Option<&mut Machine> {
        self.machines
            .iter_mut()
            .find(|machine| machine.host == host)
    }

    /// Lets one tick pass.
    pub(crate) fn tick(&mut self) -> anyhow::Result<()> {
        self.now += TICK;
        crate::trace::set_now(self.now);
        self.start_due()?;
        self.net.deliver(self.now);
        // Nobody is always first.
        let count = self.machines.len();
        let first = usize::try_from(self.now.as_millis()).unwrap_or_default() % count.max(1);
        let (front, back) = self.machines.split_at_mut(first);
        for machine in back.iter_mut().chain(front) {
            machine.run(self.now);
        }
        self.bury()
    }

    /// Takes note of programs that ended, and of disks that lost their power in the middle of something.
    fn bury(&mut self) -> anyhow::Result<()> {
        for machine in &mut self.machines {
            if machine.is_up() && machine.disk.is_halted() {
                let seed = self.dice.number();
                let pending = machine.crash(Crash::Power(seed));
                let text = format!("{} lost its power, {pending} pending", machine.name);
                self.trace.note(self.now, &text);
                let again = self.now + self.dice.millis(200..3_000);
                self.restarts.push((again, machine.host));
            }
            if let Some(how) = machine.ended() {
                self.exits += 1;
                let text = match how {
                    Ok(()) => "ended well".to_owned(),
                    Err(reason) => reason,
                };
                self.trace
                    .note(self.now, &format!("{} ended: {text}", machine.name));
                let again = self.now + self.dice.millis(200..3_000);
                self.restarts.push((again, machine.host));
            }
        }
        Ok(())
    }

    fn start_due(&mut self) -> anyhow::Result<()> {
        if self.restarts.is_empty() {
            return Ok(());
        }
        let now = self.now;
        let (due, later) = std::mem::take(&mut self.restarts)
            .into_iter()
            .partition(|(at, _)| *at <= now);
        self.restarts = later;
        let due: Vec<(Duration, HostId)> = due;
        for (_, host) in due {
            self.start(host)?;
        }
        Ok(())
    }

    /// Starts a machine that is down.
    pub(crate) fn start(&mut self, host: HostId) -> anyhow::Result<()> {
        let now = self.now;
        let Some(machine) = self.machine(host) else {
            return Ok(());
        };
        if !machine.is_up() {
            machine.start(now)?;
            let text = format!("{} starts", machine.name);
            self.trace.note(now, &text);
        }
        Ok(())
    }

    /// Takes a machine down now, to start again at a given time.
    pub(crate) fn crash(&mut self, host: HostId, how: Crash, again: Duration) {
        let now = self.now;
        let Some(machine) = self.machine(host) else {
            return;
        };
        if machine.is_up() {
            let pending = machine.crash(how);
            let text = format!("{} is killed: {how:?}, {pending} pending", machine.name);
            self.trace.note(now, &text);
            self.restarts.push((again, host));
        }
    }
}
