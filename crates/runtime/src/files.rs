//! Open files: how many the process may have, and how many of them connections may take.
//!
//! What always holds: some are left for what a server cannot do without, segments of its log before all. A log that finds none left
//! would have to stop, and so would every replica that the same crowd of callers has reached.
//!
//! On failure: a limit that cannot be raised stays as it is, and fewer connections are accepted.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Files that connections leave alone: segments, snapshots and directories, and the connections to peers.
const KEPT: u64 = 256;

/// Raises the limit of open files to the highest that the process may give itself. For `main`: it is the whole process's.
pub fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    // Refused, it stays, and bounds what is accepted.
    let _ = setrlimit(Resource::Nofile, raised);
}

/// Connections that may be open at a time: all files but those that are kept, and of a few files the half.
pub(crate) fn connections_max() -> usize {
    let Some(files) = getrlimit(Resource::Nofile).current else {
        return usize::MAX;
    };
    let left = files.saturating_sub(KEPT).max(files / 2);
    usize::try_from(left).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_raised_as_far_as_it_goes_and_leaves_something() {
        raise_open_files();
        let limit = getrlimit(Resource::Nofile);
        assert_eq!(limit.current, limit.maximum);
        let files = limit.current.unwrap_or(u64::MAX);
        assert!((connections_max() as u64) < files || limit.current.is_none());
    }
}
