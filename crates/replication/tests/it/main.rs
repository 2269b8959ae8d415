//! Replicas over real gRPC, on simulated and real disks. Everything listens on a port of its own.

#![expect(clippy::unwrap_used, reason = "a test that fails panics")]

mod asleep;
mod behind;
mod blocks;
mod cluster;
mod common;
mod disk;
mod faults;
mod guards;
mod nonsense;
mod partition;
mod release;
mod resume;
mod set_back;
mod silence;
mod single;
mod wide;
