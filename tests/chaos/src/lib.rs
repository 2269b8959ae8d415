//! Proves the promises on real processes and containers.
//!
//! A run starts a cluster (the programs as processes on loopback, or `docker-compose.yml`), streams real queries at it,
//! strikes in the middle of the stream (kills, stands still, cuts connections, fills, wipes and spoils disks, also under running servers), waits until the cluster is whole again
//! without anybody's help, and then has every answer and every count judged against the history by an [`oracle`] that knows nothing of the
//! cluster's code.
//!
//! - [`deployment`]: what a run needs of a cluster; [`processes`] and [`compose`] provide it.
//! - [`faults`]: what is done to its servers, and [`spoil`] to their data; [`proxy`]: how the network between them is cut.
//! - [`standstill`]: a leader that does nothing for long.
//! - [`queries`], [`workload`]: what is streamed and read, and how; [`journal`] asks, and [`history`] keeps what was asked and answered.
//! - [`oracle`]: the judge. [`scenario`]: one run from start to verdict; [`whole`]: when the cluster is whole. [`report`]: what it leaves behind.
//! - [`failover`]: how long nobody can write after the death of a leader. [`backlog`]: what a leader keeps for a follower that hears nothing.
//!
//! What always holds: a run talks only to loopback and to containers that it started; it ends only processes that it
//! started, by their ids; it is bounded in operations and in time. A run that could not prove anything (no fault hit, too few
//! acknowledgements) fails, and leaves what it has all the same.

pub mod backlog;
pub mod compose;
pub mod deployment;
mod disk;
pub mod failover;
pub mod faults;
pub mod history;
pub mod journal;
pub mod oracle;
pub mod processes;
pub mod proxy;
pub mod queries;
pub mod report;
pub mod scenario;
mod spoil;
pub mod standstill;
pub mod whole;
pub mod workload;
