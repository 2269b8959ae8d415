//! What of a node's directory is given up when its data is: all but the lock, so that the next start begins with a new identity.

use std::path::Path;

use vfs::{Vfs, aside};

use super::{identity, memory};

const fn parts() -> [&'static str; 5] {
    [
        identity::file_name(),
        memory::file_name(),
        "wal",
        "snapshots",
        "seeds",
    ]
}

/// Gives up the data of a directory, or goes on with what was begun. Returns the name of the directory inside it that has the data now.
pub(crate) fn give_up(vfs: &dyn Vfs, dir: &Path, wall_ms: i64) -> Result<String, vfs::Error> {
    aside::give_up(vfs, dir, &parts(), wall_ms)
}

/// Sees through what was begun, if anything was.
pub(crate) fn finish(vfs: &dyn Vfs, dir: &Path) -> Result<Option<String>, vfs::Error> {
    aside::finish(vfs, dir, &parts())
}

#[cfg(test)]
mod tests {
    use vfs::sim::every_mishap_twice;
    use vfs::{SimDisk, durable};

    use super::*;

    const PARTS: [&str; 3] = ["orders", "wal/1.wal", "snapshots/1.snap"];

    fn dir() -> &'static Path {
        Path::new("/data")
    }

    fn used_disk() -> SimDisk {
        let disk = SimDisk::new();
        durable::create_dir(&disk, dir()).unwrap();
        identity::load_or_begin(&disk, dir(), "a", [1; 16]).unwrap();
        for part in PARTS {
            let path = dir().join(part);
            durable::create_dir(&disk, path.parent().unwrap()).unwrap();
            durable::replace(&disk, &path, part.as_bytes()).unwrap();
        }
        disk.create_new(&dir().join("LOCK")).unwrap();
        disk
    }

    /// What a start does, and what it must find: the old identity and all data, or a new one and all data aside.
    /// Whether it is the new one.
    fn start(disk: &SimDisk, must_be_new: bool) -> bool {
        finish(disk, dir()).unwrap();
        let found = identity::load_or_begin(disk, dir(), "a", [2; 16]).unwrap();
        let is_new = found.instance == [2; 16];
        assert!(is_new || !must_be_new);
        let home = if is_new {
            dir().join("given-up-7")
        } else {
            dir().to_owned()
        };
        for part in PARTS {
            assert_eq!(disk.contents(&home.join(part)).unwrap(), part.as_bytes());
        }
        assert_eq!(finish(disk, dir()).unwrap(), None);
        is_new
    }

    #[test]
    fn power_lost_while_data_is_given_up_needs_no_human() {
        let mut halts = 0;
        for halt in 0.. {
            let disk = used_disk();
            disk.halt_after(Some(halt));
            let given_up = give_up(&disk, dir(), 7);
            start(&disk.crash_losing_all(), given_up.is_ok());
            start(&disk.crash_keeping_all(), given_up.is_ok());
            start(&disk.restart(), given_up.is_ok());
            for seed in 0..20 {
                start(&disk.crash_seeded(seed), given_up.is_ok());
            }
            if given_up.is_ok() {
                break;
            }
            halts += 1;
        }
        assert!(halts > 10, "{halts} halts");
    }

    #[test]
    fn whatever_goes_wrong_while_data_is_given_up_and_seen_through_needs_no_human() {
        let runs = every_mishap_twice(
            &used_disk(),
            &false,
            |disk: &SimDisk, must_be_new: &mut bool| {
                give_up(disk, dir(), 7)?;
                *must_be_new = true;
                Ok::<(), identity::IdentityError>(())
            },
            |disk, must_be_new| {
                *must_be_new |= finish(disk, dir())?.is_some();
                let found = identity::load_or_begin(disk, dir(), "a", [2; 16])?;
                *must_be_new |= found.instance == [2; 16];
                Ok(())
            },
            |image, must_be_new, _| {
                let is_new = start(image, *must_be_new);
                let after = image.crash_losing_all();
                assert_eq!(start(&after, is_new), is_new);
                if !is_new {
                    give_up(&after, dir(), 7).unwrap();
                    start(&after, true);
                }
            },
        );
        assert!(runs > 1000, "{runs} runs");
    }

    #[test]
    fn data_is_given_up_twice_in_one_millisecond() {
        let disk = used_disk();
        assert_eq!(give_up(&disk, dir(), 7).unwrap(), "given-up-7");
        identity::load_or_begin(&disk, dir(), "a", [2; 16]).unwrap();
        assert_eq!(give_up(&disk, dir(), 7).unwrap(), "given-up-8");
        let kept = disk.contents(&dir().join("given-up-7/identity")).unwrap();
        assert_ne!(
            kept,
            disk.contents(&dir().join("given-up-8/identity")).unwrap()
        );
    }

    #[test]
    fn what_the_disk_does_not_give_back_is_moved_all_the_same() {
        let disk = used_disk();
        for part in PARTS {
            let path = dir().join(part);
            disk.make_unreadable(&path, 0..u64::MAX).unwrap();
        }
        let read = disk.count(vfs::Op::Read);
        assert_eq!(give_up(&disk, dir(), 7).unwrap(), "given-up-7");
        assert_eq!(disk.count(vfs::Op::Read), read, "nothing is read for it");
        start(&disk, true);
    }
}
