//! The whole protocol in one thread, from one seed.
//!
//! The real servers run as they are, on simulated machines: a disk that tears and forgets ([`vfs::SimDisk`]), clocks that jump, a
//! network that cuts and delays, processes that are killed or stand still. Clients write and read all the while, and an
//! oracle judges every answer. When the faults are over, the cluster must heal completely. `docs/simulation.md` says how it
//! works and how to run it.
//!
//! What always holds: one seed is one history. Nothing depends on real time, on threads, or on the operating system's
//! randomness; see `c/world.c` for those that libraries reach for. [`run`] is the way in.

mod campaign;
mod cast;
mod clock;
mod dice;
mod heal;
mod log;
mod logs;
mod machine;
mod mutant;
mod nemesis;
mod net;
mod oracle;
mod panics;
mod seed;
mod tap;
mod trace;
mod workload;
mod world;

pub use campaign::{Campaign, Summary, campaign, judged, limit_processor_time, run_apart};
pub use dice::Dice;
pub use log::{log_nothing, log_to_stderr};
pub use mutant::Mutant;
pub use nemesis::fault_kinds;
pub use seed::{Options, Report, run};
