//! The simulated disk answers as the real one does, as long as nothing fails.
#![expect(clippy::unwrap_used, reason = "a test helper may panic")]

use std::path::{Path, PathBuf};

use proptest::prelude::*;
use vfs::{FileReader, FileWriter, RealDisk, SimDisk, Vfs, durable};

#[derive(Debug, Clone)]
enum Step {
    Create(u8),
    Write { name: u8, offset: u64, len: usize },
    Truncate { name: u8, len: u64 },
    Allocate { name: u8, offset: u64, len: u64 },
    Rename(u8, u8),
    Remove(u8),
    Replace { name: u8, len: usize },
    Sync(u8),
    List,
}

fn step() -> impl Strategy<Value = Step> {
    let name = 0..4_u8;
    prop_oneof![
        3 => name.clone().prop_map(Step::Create),
        5 => (name.clone(), 0..3000_u64, 0..2000_usize)
            .prop_map(|(name, offset, len)| Step::Write { name, offset, len }),
        2 => (name.clone(), 0..4000_u64).prop_map(|(name, len)| Step::Truncate { name, len }),
        1 => (name.clone(), 0..3000_u64, 1..2000_u64)
            .prop_map(|(name, offset, len)| Step::Allocate { name, offset, len }),
        2 => (name.clone(), name.clone()).prop_map(|(from, to)| Step::Rename(from, to)),
        1 => name.clone().prop_map(Step::Remove),
        1 => (name.clone(), 0..2000_usize).prop_map(|(name, len)| Step::Replace { name, len }),
        1 => name.prop_map(Step::Sync),
        1 => Just(Step::List),
    ]
}

/// What a step shows, without what differs between two places.
fn act(vfs: &dyn Vfs, dir: &Path, step: &Step, salt: u8) -> String {
    let at = |name: &u8| -> PathBuf { dir.join(format!("file-{name}")) };
    let kind = |result: vfs::Result<()>| match result {
        Ok(()) => "ok".to_owned(),
        Err(error) => format!("{:?} {:?}", error.op, error.source.kind()),
    };
    let on = |name: &u8, work: &dyn Fn(&dyn vfs::VfsFile) -> vfs::Result<()>| {
        kind(
            vfs.open_write(&at(name))
                .and_then(|file| work(file.as_ref())),
        )
    };
    match step {
        Step::Create(name) => kind(vfs.create_new(&at(name)).map(drop)),
        Step::Write { name, offset, len } => {
            on(name, &|file| file.write_all_at(&vec![salt; *len], *offset))
        }
        Step::Truncate { name, len } => on(name, &|file| file.truncate(*len)),
        Step::Allocate { name, offset, len } => on(name, &|file| file.allocate(*offset, *len)),
        Step::Rename(from, to) => kind(vfs.rename(&at(from), &at(to))).replace("Rename", ""),
        Step::Remove(name) => kind(vfs.remove_file(&at(name))),
        Step::Replace { name, len } => kind(durable::replace(vfs, &at(name), &vec![salt; *len])),
        Step::Sync(name) => on(name, &|file| file.sync_all()),
        Step::List => format!("{:?}", vfs.list_dir(dir).unwrap()),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn both_disks_show_the_same(steps in prop::collection::vec(step(), 1..40)) {
        let temp = tempfile::tempdir().unwrap();
        let (real, sim) = (RealDisk::new(), SimDisk::new());
        let sim_dir = Path::new("/dir");
        durable::create_dir(&sim, sim_dir).unwrap();
        for (salt, step) in (1..).zip(&steps) {
            let shown = act(&real, temp.path(), step, salt);
            prop_assert_eq!(shown, act(&sim, sim_dir, step, salt), "{:?}", step);
        }
        for entry in real.list_dir(temp.path()).unwrap() {
            let bytes = durable::read(&real, &temp.path().join(&entry.name), 1 << 20).unwrap();
            prop_assert_eq!(bytes, sim.contents(&sim_dir.join(&entry.name)).unwrap());
        }
    }
}

#[test]
fn a_lock_keeps_others_out_until_it_is_dropped() {
    let temp = tempfile::tempdir().unwrap();
    let disks: [(&dyn Vfs, PathBuf); 2] = [
        (&RealDisk::new(), temp.path().join("LOCK")),
        (&SimDisk::new(), PathBuf::from("/LOCK")),
    ];
    for (vfs, path) in disks {
        let guard = vfs.lock_file(&path).unwrap();
        assert!(vfs.lock_file(&path).unwrap_err().is_locked());
        assert_eq!(guard.path(), path);
        drop(guard);
        vfs.lock_file(&path).unwrap();
        assert!(vfs.exists(&path).unwrap());
    }
}

#[test]
fn streams_write_and_read_whole_files() {
    use std::io::{Read, Write};
    let temp = tempfile::tempdir().unwrap();
    let real = RealDisk::new();
    let path = temp.path().join("stream");
    let bytes: Vec<u8> = (0..400_000_u32).flat_map(u32::to_le_bytes).collect();
    let mut writer = FileWriter::new(real.create_new(&path).unwrap());
    for part in bytes.chunks(70_001) {
        writer.write_all(part).unwrap();
    }
    assert_eq!(writer.position(), bytes.len() as u64);
    writer.finish().unwrap();
    let mut reader = FileReader::new(real.open_read(&path).unwrap());
    let mut found = Vec::new();
    reader.read_to_end(&mut found).unwrap();
    assert!(found == bytes);
    assert_eq!(reader.position(), bytes.len() as u64);
    let mut rest = FileReader::starting_at(real.open_read(&path).unwrap(), 300_001);
    found.clear();
    rest.read_to_end(&mut found).unwrap();
    assert!(found == bytes[300_001..]);
    assert_eq!(rest.position(), bytes.len() as u64);
    let error = durable::read(&real, &path, 1000).unwrap_err();
    assert_eq!(error.source.kind(), std::io::ErrorKind::InvalidData);
    assert!(real.free_space(temp.path()).unwrap() > 0);
}

/// The null device has nothing to sync, and Linux says so to whoever asks.
#[cfg(target_os = "linux")]
#[test]
fn a_sync_of_the_real_disk_asks_the_system() {
    let (real, null) = (RealDisk::new(), Path::new("/dev/null"));
    let file = real.open_write(null).unwrap();
    for refused in [file.sync_data(), file.sync_all(), real.sync_dir(null)] {
        let kind = refused.unwrap_err().source.kind();
        assert_eq!(kind, std::io::ErrorKind::InvalidInput);
    }
}
