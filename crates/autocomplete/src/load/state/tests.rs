use vfs::RealDisk;

use super::*;
use crate::exit::Usage;

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
        self.open_as(Format::Auto).unwrap()
    }

    fn open_as(&self, format: Format) -> Result<LoadState, anyhow::Error> {
        let terms = Path::new("terms.tsv");
        LoadState::open(&RealDisk::new(), &self.path(), terms, format)
    }

    fn begin_again(&self, format: Format) -> Result<LoadState, anyhow::Error> {
        let terms = Path::new("terms.tsv");
        LoadState::begin_again(&RealDisk::new(), &self.path(), terms, format)
    }

    fn text(&self) -> Vec<u8> {
        durable::read(&RealDisk::new(), &self.path(), FILE_BYTES_MAX).unwrap()
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
    let again = place.begin_again(Format::Auto).unwrap();
    assert_eq!((again.again(), again.done_below()), (1, 0));
    assert_eq!(again.issued_at_ms(6), None);
    drop(again);
    assert_eq!(place.open().again(), 1);
}

#[test]
fn two_processes_do_not_load_the_same_file() {
    let place = Place::new();
    let _held = place.open();
    let error = place.open_as(Format::Auto).unwrap_err().to_string();
    assert_eq!(error, "this file is being loaded by another process");
}

#[test]
fn a_load_is_gone_on_with_in_the_format_that_it_was_begun_in() {
    let place = Place::new();
    let disk = RealDisk::new();
    // As long as nothing was sent, nothing is begun.
    let mut state = place.open_as(Format::Lines).unwrap();
    state.done(&disk, 0).unwrap();
    drop(state);
    let mut state = place.open_as(Format::Tsv).unwrap();
    state.reserve(&disk, 0, 77, 0).unwrap();
    for settled in [0, 1, 1_000] {
        state.done(&disk, settled).unwrap();
        drop(state);
        let before = place.text();
        for (format, name) in [(Format::Auto, "auto"), (Format::Lines, "lines")] {
            let error = place.open_as(format).unwrap_err();
            assert!(error.is::<Usage>(), "{error}");
            let text = error.to_string();
            for part in ["--format tsv", &format!("--format {name}"), "--again"] {
                assert!(text.contains(part), "{text}");
            }
        }
        assert_eq!(place.text(), before);
        state = place.open_as(Format::Tsv).unwrap();
        assert_eq!(state.done_below(), settled);
    }
    drop(state);
    let mut again = place.begin_again(Format::Lines).unwrap();
    again.reserve(&disk, 0, 88, 0).unwrap();
    drop(again);
    assert!(place.open_as(Format::Tsv).is_err());
    assert_eq!(place.open_as(Format::Lines).unwrap().again(), 1);
}

#[test]
fn a_file_of_version_1_is_gone_on_from_in_any_format_and_keeps_the_one_that_was_right() {
    let place = Place::new();
    let disk = RealDisk::new();
    drop(place.open());
    let text = r#"{"version":1,"file":"terms.tsv","again":2,"done_below":400,
        "reserved":[{"from":0,"to":1000,"issued_at_ms":77}]}"#;
    for (format, other) in [
        (Format::Auto, Format::Tsv),
        (Format::Tsv, Format::Lines),
        (Format::Lines, Format::Auto),
    ] {
        durable::replace(&disk, &place.path(), text.as_bytes()).unwrap();
        let mut state = place.open_as(format).unwrap();
        assert_eq!((state.done_below(), state.again()), (400, 2));
        assert_eq!(state.issued_at_ms(400), Some(77));
        // Nothing was taken in this format yet: it may be the wrong one.
        state.reserve(&disk, 1000, 78, 400).unwrap();
        drop(state);
        drop(place.open_as(other).unwrap());
        let mut state = place.open_as(format).unwrap();
        state.done(&disk, 500).unwrap();
        drop(state);
        assert!(place.open_as(other).is_err());
        assert_eq!(place.open_as(format).unwrap().done_below(), 500);
    }
}

#[test]
fn a_file_of_version_2_is_read_for_ever() {
    let place = Place::new();
    let disk = RealDisk::new();
    drop(place.open());
    for format in [Format::Auto, Format::Tsv, Format::Lines] {
        let name = format.as_str();
        let text = format!(
            r#"{{"version":2,"file":"terms.tsv","format":"{name}","again":2,"done_below":400,
            "reserved":[{{"from":0,"to":1000,"issued_at_ms":77}}]}}"#
        );
        durable::replace(&disk, &place.path(), text.as_bytes()).unwrap();
        let state = place.open_as(format).unwrap();
        assert_eq!((state.done_below(), state.again()), (400, 2));
        assert_eq!(state.issued_at_ms(400), Some(77));
    }
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
        place.begin_again(Format::Auto).is_ok()
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
        "{\"version\":2,\"file\":\"\",\"format\":\"\",\"again\":0,\"done_below\":0,\"reserved\":[]}",
        "{\"version\":3,\"file\":\"\",\"format\":\"auto\",\"again\":0,\"done_below\":0,\"reserved\":[]}",
    ] {
        durable::replace(&disk, &place.path(), text.as_bytes()).unwrap();
        let error = place.open_as(Format::Auto).unwrap_err().to_string();
        assert!(error.contains("state file"), "{error}");
    }
}
