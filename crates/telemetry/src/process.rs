//! What the operating system says of this process. Read from `/proc`; elsewhere than on Linux nothing is known.
//! That is the kernel's answer and no file that could be lost, so it does not go through the door to files.

use std::fs;

/// Bytes of a page. The kernel counts resident memory in pages; all machines this runs on have this size.
const PAGE_BYTES: u64 = 4096;

/// Bytes of memory that are resident, if known.
#[must_use]
pub fn resident_bytes() -> Option<u64> {
    let statm = fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split_ascii_whitespace().nth(1)?.parse().ok()?;
    pages.checked_mul(PAGE_BYTES)
}

/// Open file descriptors, if known.
#[must_use]
pub fn open_files() -> Option<u64> {
    let entries = fs::read_dir("/proc/self/fd").ok()?;
    // The directory itself is open while it is read.
    u64::try_from(entries.count().saturating_sub(1)).ok()
}

/// Most file descriptors this process may open, if known.
#[must_use]
pub fn open_files_max() -> Option<u64> {
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits
        .lines()
        .find(|line| line.starts_with("Max open files"))?;
    line.split_ascii_whitespace().nth(3)?.parse().ok()
}

/// Seconds of processor time used so far, in user code and in the kernel, if known.
#[must_use]
pub fn cpu_seconds() -> Option<f64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The name of the program is in brackets and may hold anything; what is counted stands behind it.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut ticks = fields.split_ascii_whitespace().skip(11).map(str::parse);
    let user: u64 = ticks.next()?.ok()?;
    let system: u64 = ticks.next()?.ok()?;
    Some((user + system) as f64 / TICKS_PER_SECOND)
}

/// The unit of times in `/proc`, the same on all architectures of Linux that matter.
const TICKS_PER_SECOND: f64 = 100.0;

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn memory_grows_by_what_is_touched() {
        let before = resident_bytes().unwrap();
        let touched = vec![1_u8; 64 << 20];
        let after = resident_bytes().unwrap();
        assert!(after >= before + (48 << 20), "{before} {after}");
        assert_eq!(
            touched.iter().map(|&byte| u64::from(byte)).sum::<u64>(),
            64 << 20
        );
    }

    #[test]
    fn files_and_time_are_known() {
        let before = open_files().unwrap();
        assert!(before >= 3);
        assert!(open_files_max().unwrap() > before);
        assert!(cpu_seconds().unwrap() >= 0.0);
    }
}
