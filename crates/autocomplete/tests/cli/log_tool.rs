//! The log tool on the log of a cluster that has really run.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use crate::support::{Up, autocomplete, output, stderr, stdout};

/// The directory of the server that owns the first terms.
fn first_server(data: &Path) -> PathBuf {
    data.join("node-1")
}

/// Its newest segment.
fn newest_segment(server: &Path) -> PathBuf {
    let entries = std::fs::read_dir(server.join("wal")).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    let segments = paths.filter(|path| path.extension().is_some_and(|at| at == "wal"));
    segments.max().unwrap()
}

fn wal(verb: &str, directory: &Path, more: &[&str]) -> Output {
    output(&[&["wal", verb, directory.to_str().unwrap()], more].concat())
}

/// `repair --accept-loss`, with more flags, and a person who is asked and types `answer`.
fn repair_with(more: &[&str], answer: &str, directory: &Path) -> Output {
    let mut child = autocomplete(&["wal", "repair", "--accept-loss"])
        .args(more)
        .arg(directory)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(answer.as_bytes()).unwrap();
    drop(stdin);
    child.wait_with_output().unwrap()
}

/// Where what was written to a segment ends; behind it lies room that was taken in advance. Batches end at whole blocks.
fn written(bytes: &[u8]) -> usize {
    let last = bytes.iter().rposition(|byte| *byte != 0);
    last.map_or(0, |at| (at + 1).next_multiple_of(4096))
}

/// A stopped cluster with some records in every shard.
fn stopped_cluster(data: &Path) -> String {
    let up = Up::start(data, &[]);
    let file = data.with_extension("txt");
    let terms: String = (0..3_000)
        .map(|number| format!("{}{number}\n", ["a", "k", "t"][number % 3]))
        .collect();
    std::fs::write(&file, terms).unwrap();
    up.answer(&["load", file.to_str().unwrap()]);
    // Many small entries, which are what a dictionary is for.
    let small = ["bench", "record", "--generated", "500", "--in-flight", "4"];
    up.answer(&[&small[..], &["--time", "1s", "--warm-up", "0s"]].concat());
    let exported = up.answer(&["export"]);
    assert!(up.terminate().success());
    exported
}

#[test]
fn a_trained_dictionary_is_used_and_changes_nothing_that_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let exported = stopped_cluster(&data);
    let several = wal("train", &data, &[]);
    assert!(!several.status.success());
    assert!(stderr(&several).contains("name one server's directory"));
    let trained = wal("train", &first_server(&data), &["--bytes", "4096"]);
    assert!(trained.status.success(), "{}", stderr(&trained));
    assert!(stdout(&trained).contains("dictionary"), "{trained:?}");

    let up = Up::start(&data, &[]);
    assert_eq!(up.answer(&["export"]), exported);
    up.answer(&["record", "aardvark", "--count", "7"]);
    let up = up.again();
    assert_eq!(up.answer(&["count", "aardvark"]).trim(), "7  aardvark");
    let verified = wal("verify", &first_server(&data), &[]);
    assert!(verified.status.success(), "{}", stdout(&verified));
}

#[test]
fn a_torn_tail_is_dropped_and_damage_only_by_a_typed_word() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    stopped_cluster(&data);
    let server = first_server(&data);
    let clean = wal("repair", &server, &[]);
    assert!(stdout(&clean).contains("nothing to repair"), "{clean:?}");

    let segment = newest_segment(&server);
    let sound = std::fs::read(&segment).unwrap();
    let end = written(&sound);
    let mut torn = sound.clone();
    torn.resize(torn.len().max(end + 64), 0);
    torn[end + 8..end + 24].copy_from_slice(b"half a record...");
    std::fs::write(&segment, &torn).unwrap();
    let verified = wal("verify", &server, &[]);
    assert!(verified.status.success(), "{verified:?}");
    assert!(stdout(&verified).contains("torn"), "{verified:?}");
    let repaired = wal("repair", &server, &[]);
    assert!(repaired.status.success(), "{}", stderr(&repaired));
    assert!(stdout(&repaired).contains("dropped"), "{repaired:?}");
    assert!(stdout(&wal("verify", &server, &[])).contains("clean"));

    let mut rotten = sound;
    rotten[end / 2] ^= 0x10;
    std::fs::write(&segment, &rotten).unwrap();
    let verified = wal("verify", &server, &[]);
    assert!(!verified.status.success());
    assert!(stdout(&verified).contains("ROTTEN"), "{verified:?}");
    let refused = wal("repair", &server, &[]);
    assert!(!refused.status.success());
    assert!(stderr(&refused).contains("--accept-loss"), "{refused:?}");
    let refused = repair_with(&[], "yes\n", &server);
    assert!(!refused.status.success());
    assert_eq!(std::fs::read(&segment).unwrap(), rotten);
    let repaired = repair_with(&[], "accept-loss\n", &server);
    assert!(repaired.status.success(), "{}", stderr(&repaired));
    assert!(stdout(&repaired).contains("kept as a copy"), "{repaired:?}");
    assert!(wal("verify", &server, &[]).status.success());
}

#[test]
fn a_log_of_which_others_have_replicas_is_not_cut_by_a_typed_word_alone() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let up = Up::start(&data, &["--shards", "1", "--replicas", "3"]);
    for number in 0..8 {
        up.answer(&["record", &format!("term {number}")]);
    }
    assert!(up.terminate().success());
    let server = first_server(&data);
    let clean = wal("repair", &server, &[]);
    assert!(stdout(&clean).contains("nothing to repair"), "{clean:?}");

    let segment = newest_segment(&server);
    let mut rotten = std::fs::read(&segment).unwrap();
    let middle = written(&rotten) / 2;
    rotten[middle] ^= 0x10;
    std::fs::write(&segment, &rotten).unwrap();
    let refused = |flags: &[&str], why: &str| {
        let output = wal("repair", &server, flags);
        assert!(!output.status.success(), "{flags:?}");
        let text = stderr(&output);
        for part in [why, "empty directory", "--accept-votes-forgotten"] {
            assert!(text.contains(part), "{flags:?}: {text}");
        }
        assert_eq!(std::fs::read(&segment).unwrap(), rotten);
    };
    refused(&[], "hold replicas of shard 1");
    refused(&["--accept-loss"], "hold replicas of shard 1");
    let note = server.join("wal").join("voters");
    let noted = std::fs::read(&note).unwrap();
    std::fs::write(&note, vec![0xff; noted.len()]).unwrap();
    refused(&["--accept-loss"], "cannot be believed");
    std::fs::remove_file(&note).unwrap();
    refused(&["--accept-loss"], "cannot be believed");
    std::fs::write(&note, noted).unwrap();

    let although = ["--accept-votes-forgotten"];
    let unsure = repair_with(&although, "yes\n", &server);
    assert!(!unsure.status.success());
    assert!(stderr(&unsure).contains("hold replicas of"), "{unsure:?}");
    assert_eq!(std::fs::read(&segment).unwrap(), rotten);
    let repaired = repair_with(&although, "accept-loss\n", &server);
    assert!(repaired.status.success(), "{}", stderr(&repaired));
    assert!(stdout(&repaired).contains("kept as a copy"), "{repaired:?}");
    assert!(wal("verify", &server, &[]).status.success());
}
