//! The only door to files: a real disk, a simulated one with faults, and durable replacement.
//!
//! Everything above this crate reaches files through [`Vfs`] and [`VfsFile`], both object safe, so that
//! the same code runs on [`RealDisk`] and on [`SimDisk`]. The simulated disk knows what a file system
//! owes its caller and no more: a write is durable after `sync_data`, a new name after `sync_dir`, and
//! until then any subset of it may survive a crash.
//!
//! What always holds here:
//! - [`VfsFile::write_all_at`] loops over short writes and interruptions, and never writes a byte twice
//!   at different places.
//! - A failed sync is reported once and is never retried here: the kernel marks the failed pages clean,
//!   so that a second call would lie. Whoever gets the error stops.
//! - What is given up is moved aside whole ([`aside`]), whatever happens in between.
//! - [`durable`] and [`TwoSlot`] are the only two ways to change a small file: old or new content
//!   survives a crash, never neither.
//!
//! Errors are [`Error`]: an [`std::io::Error`] with the path and the operation. Nothing here logs or knows the time, and nothing
//! is tried again but a read that the disk refused, by [`VfsFile::read_patiently_at`] and what is built on it.

pub mod aside;
pub mod durable;
mod error;
mod file;
mod real;
mod salvage;
pub mod sim;
mod stream;
mod traffic;
mod two_slot;

pub use error::{Error, Op, Result, means_disk_full, means_unreadable};
pub use file::{DirEntry, LockGuard, Vfs, VfsFile};
pub use real::RealDisk;
pub use salvage::{Salvaged, salvage};
pub use sim::SimDisk;
pub use stream::{FileReader, FileWriter};
pub use traffic::Traffic;
pub use two_slot::{SlotReport, TwoSlot};
