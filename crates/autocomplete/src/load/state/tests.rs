use vfs::RealDisk;

use super::*;

struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
        }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("below/load-1.json")
    }

    fn open(&self) -> LoadState {
        LoadState::open(&RealDisk::new(), &self.path(), Path::new("terms.tsv")).unwrap()
    }
}

#[test]
fn times_are_the_same_after_an_interruption() {
    let place = Place::new();
    let disk = RealDisk::new();
    let mut state = place.open();
    assert_eq!((state.done_below(), state.issued_at_ms(0)), (0, None));
    state.reserve(&disk, 0, 77, 0).unwrap();
    state.reserve(&disk, 1_000, 88, 400).unwrap();
    drop(state);

    let mut state = place.open();
    assert_eq!(state.done_below(), 400);
    let times = [0, 999, 1_000, 1_999, 2_000].map(|batch| state.issued_at_ms(batch));
    assert_eq!(times, [Some(77), Some(77), Some(88), Some(88), None]);
    // What is settled is forgotten; what is not keeps its time.
    state.done(&disk, 1_000).unwrap();
    assert_eq!(state.issued_at_ms(999), None);
    assert_eq!(state.issued_at_ms(1_000), Some(88));
    state.done(&disk, 10).unwrap();
    assert_eq!(state.done_below(), 1_000);
}

#[test]
fn loading_again_begins_anew_and_is_taken_up_itself() {
    let place = Place::new();
    let disk = RealDisk::new();
    let mut state = place.open();
    state.reserve(&disk, 0, 77, 0).unwrap();
    state.done(&disk, 5).unwrap();
    assert_eq!(state.again(), 0);
    drop(state);
    let again = LoadState::begin_again(&disk, &place.path(), Path::new("terms.tsv")).unwrap();
    assert_eq!((again.again(), again.done_below()), (1, 0));
    assert_eq!(again.issued_at_ms(6), None);
    drop(again);
    assert_eq!(place.open().again(), 1);
}

#[test]
fn two_processes_do_not_load_the_same_file() {
    let place = Place::new();
    let _held = place.open();
    let second = LoadState::open(&RealDisk::new(), &place.path(), Path::new("terms.tsv"));
    let error = second.unwrap_err().to_string();
    assert_eq!(error, "this file is being loaded by another process");
}

#[test]
fn numbers_that_no_load_has_are_not_gone_on_from() {
    let place = Place::new();
    let disk = RealDisk::new();
    drop(place.open());
    let top = u64::MAX;
    let read = |again: u64, done_below: u64, ranges: &[(u64, u64)]| {
        let reserved = ranges
            .iter()
            .map(|(from, to)| format!("{{\"from\":{from},\"to\":{to},\"issued_at_ms\":5}}"));
        let reserved = reserved.collect::<Vec<_>>().join(",");
        let text = format!(
            "{{\"version\":1,\"file\":\"\",\"again\":{again},\"done_below\":{done_below},\"reserved\":[{reserved}]}}"
        );
        durable::replace(&disk, &place.path(), text.as_bytes()).unwrap();
        LoadState::begin_again(&disk, &place.path(), Path::new("terms.tsv")).is_ok()
    };
    assert!(read(0, 5, &[]));
    assert!(read(3, 400, &[(0, 1_000), (1_000, 2_000)]));
    assert!(!read(top, 5, &[]));
    assert!(!read(0, top, &[]));
    assert!(!read(0, 0, &[(0, top)]));
    assert!(!read(0, 0, &[(1_000, 1_000)]));
    assert!(!read(0, 0, &[(0, 1_000), (1_001, 2_000)]));
    assert!(!read(0, 0, &[(1_000, 2_000), (0, 1_000)]));
    assert!(!read(0, 0, &[(1_000, 2_000)]));
    assert!(!read(0, 1_000, &[(0, 1_000)]));
}

#[test]
fn a_damaged_or_newer_file_is_not_taken_for_a_fresh_one() {
    let place = Place::new();
    let disk = RealDisk::new();
    drop(place.open());
    for text in [
        "",
        "{}",
        "{\"version\":2,\"file\":\"\",\"again\":0,\"done_below\":0,\"reserved\":[]}",
    ] {
        durable::replace(&disk, &place.path(), text.as_bytes()).unwrap();
        let result = LoadState::open(&disk, &place.path(), Path::new("terms.tsv"));
        assert!(result.unwrap_err().to_string().contains("state file"));
    }
}
