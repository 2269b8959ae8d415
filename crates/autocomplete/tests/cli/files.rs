//! Loading and exporting files.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Stdio;

use crate::support::{Up, autocomplete, stderr};

/// Lines of terms that spread over all shards, with their counts.
fn lines(number: usize) -> String {
    let mut text = String::new();
    for term in 0..number {
        let letter = char::from(b'a' + u8::try_from(term % 26).unwrap());
        writeln!(text, "{letter}{term:06}\t{}", term % 9 + 1).unwrap();
    }
    text
}

fn sorted(text: &str) -> String {
    let mut lines: Vec<_> = text.lines().collect();
    lines.sort_unstable();
    lines.concat()
}

fn write(path: &Path, text: impl AsRef<[u8]>) -> String {
    std::fs::write(path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn an_export_is_what_was_loaded_and_can_be_loaded_again() {
    let dir = tempfile::tempdir().unwrap();
    let up = Up::start(&dir.path().join("data"), &[]);
    let text = lines(5_000);
    let file = write(
        &dir.path().join("terms.tsv.zst"),
        zstd::encode_all(text.as_bytes(), 1).unwrap(),
    );
    up.answer(&["load", &file]);
    let exported = up.answer(&["export"]);
    let terms = exported
        .lines()
        .map(|line| line.split('\t').next().unwrap());
    assert!(terms.is_sorted());
    assert_eq!(sorted(&exported), sorted(&text));
    assert_eq!(
        up.answer(&["export", "--prefix", "b0000"]),
        "b000001\t2\nb000027\t1\nb000053\t9\nb000079\t8\n"
    );

    up.answer(&["record", "-n", "names", "Zürich", "STRASSE", "Straße"]);
    let display = dir.path().join("display.tsv.zst");
    up.answer(&[
        "export",
        "-n",
        "names",
        "--display",
        "--out",
        display.to_str().unwrap(),
    ]);
    let bytes = zstd::decode_all(&*std::fs::read(&display).unwrap()).unwrap();
    assert_eq!(
        String::from_utf8(bytes).unwrap(),
        "strasse\t2\tSTRASSE\nzürich\t1\tZürich\n"
    );
    up.answer(&["load", "-n", "copy", display.to_str().unwrap()]);
    let options = ["export", "--display", "-n"];
    assert_eq!(
        up.answer(&[&options[..], &["copy"]].concat()),
        up.answer(&[&options[..], &["names"]].concat())
    );
}

#[test]
fn a_file_counts_once_unless_it_is_loaded_again_on_purpose() {
    let dir = tempfile::tempdir().unwrap();
    let up = Up::start(&dir.path().join("data"), &[]);
    let text = lines(3_000);
    let file = write(&dir.path().join("terms.tsv"), &text);
    let load = |more: &[&str]| {
        let output = up.ask(&[&["load", &file], more].concat());
        assert!(output.status.success(), "{}", stderr(&output));
        stderr(&output)
    };
    assert!(load(&[]).contains("recorded 3,000 terms"));
    assert!(load(&[]).contains("3,000 terms had been recorded by an earlier run"));
    // The state file is gone: the shards remember.
    let elsewhere = dir.path().join("elsewhere");
    let report = load(&["--state-dir", elsewhere.to_str().unwrap()]);
    assert!(report.contains("recorded 0 terms"), "{report}");
    assert_eq!(sorted(&up.answer(&["export"])), sorted(&text));

    assert!(load(&["--again"]).contains("recorded 3,000 terms"));
    assert!(load(&[]).contains("recorded 0 terms"));
    assert!(up.answer(&["count", "i000008"]).contains("18  "));
    // Another namespace, and one that was cleared, are other loads.
    assert!(load(&["-n", "other"]).contains("recorded 3,000 terms"));
    up.answer(&["delete", "--all", "--yes", "-n", "other"]);
    assert!(load(&["-n", "other"]).contains("recorded 3,000 terms"));
}

#[test]
fn a_count_above_what_one_line_can_count_is_exported_in_parts() {
    let dir = tempfile::tempdir().unwrap();
    let up = Up::start(&dir.path().join("data"), &["--shards", "1"]);
    for count in ["1000000000000", "1000000000000", "5"] {
        up.answer(&["record", "Paris", "--count", count]);
    }
    up.answer(&["record", "rome", "--count", "1000000000000"]);
    let exported = up.answer(&["export", "--display"]);
    let max = 1_000_000_000_000_u64;
    assert_eq!(
        exported,
        format!("paris\t{max}\tParis\nparis\t{max}\tParis\nparis\t5\tParis\nrome\t{max}\t\n")
    );
    let file = write(&dir.path().join("terms.tsv"), &exported);
    up.answer(&["load", &file, "-n", "copy", "--on-error", "stop"]);
    assert_eq!(up.answer(&["export", "--display", "-n", "copy"]), exported);
}

#[test]
fn a_load_is_continued_in_the_format_that_it_was_begun_in() {
    let dir = tempfile::tempdir().unwrap();
    let up = Up::start(&dir.path().join("data"), &["--shards", "1"]);
    let file = write(&dir.path().join("terms.tsv"), "plain\ngood\t3\n");
    let refused = |arguments: &[&str], known: &str, asked: &str| {
        let before = up.answer(&["export"]);
        let output = up.ask(&[&["load", &file], arguments].concat());
        assert_eq!(output.status.code(), Some(64));
        let text = stderr(&output);
        for format in [known, asked] {
            assert!(text.contains(&format!("--format {format}")), "{text}");
        }
        assert!(text.contains("--again"), "{text}");
        // Its state in another place would be no way out.
        assert!(!text.contains("--state-dir"), "{text}");
        assert_eq!(up.answer(&["export"]), before);
    };
    up.answer(&["load", &file, "--format", "tsv"]);
    assert_eq!(up.answer(&["export"]), "good\t3\n");
    refused(&[], "tsv", "auto");
    refused(&["--format", "lines"], "tsv", "lines");
    up.answer(&["load", &file, "--format", "tsv"]);
    assert_eq!(up.answer(&["export"]), "good\t3\n");

    up.answer(&["load", &file, "--again"]);
    assert_eq!(up.answer(&["export"]), "good\t6\nplain\t1\n");
    refused(&["--format", "tsv"], "auto", "tsv");

    // Where every line was bad, nothing was sent, and no load was begun.
    let plain = write(&dir.path().join("plain.txt"), "a\nb\n");
    up.answer(&["load", &plain, "-n", "plain", "--format", "tsv"]);
    up.answer(&["load", &plain, "-n", "plain"]);
    assert_eq!(up.answer(&["export", "-n", "plain"]), "a\t1\nb\t1\n");
}

#[test]
fn an_interrupted_load_is_continued_exactly() {
    let dir = tempfile::tempdir().unwrap();
    let up = Up::start(&dir.path().join("data"), &[]);
    let text = lines(400_000);
    let file = write(&dir.path().join("terms.tsv"), &text);
    let state = dir.path().join("state");
    let load = || {
        let mut command = autocomplete(&["load", &file, "--addr", &up.addr, "--streams", "2"]);
        command
            .arg("--state-dir")
            .arg(&state)
            .stderr(Stdio::piped());
        command
    };
    let mut child = load().spawn().unwrap();
    while up
        .answer(&["count", "a000000"])
        .trim_start()
        .starts_with('0')
    {
        assert!(
            child.try_wait().unwrap().is_none(),
            "the load ended too soon"
        );
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let exported = up.answer(&["export"]);
    assert!(
        exported.lines().count() < 400_000,
        "the load ended too soon"
    );

    let output = load().output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(sorted(&up.answer(&["export"])), sorted(&text));
}

#[test]
fn a_load_rides_through_a_crash_of_the_cluster() {
    let dir = tempfile::tempdir().unwrap();
    let up = Up::start(&dir.path().join("data"), &[]);
    let text = lines(200_000);
    let file = write(&dir.path().join("terms.tsv"), &text);
    let mut child = autocomplete(&["load", &file, "--addr", &up.addr])
        .arg("--state-dir")
        .arg(dir.path().join("state"))
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    while up
        .answer(&["count", "a000000"])
        .trim_start()
        .starts_with('0')
    {
        assert!(
            child.try_wait().unwrap().is_none(),
            "the load ended too soon"
        );
    }
    let up = up.again();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(sorted(&up.answer(&["export"])), sorted(&text));
}

#[test]
fn bad_lines_are_named_and_skipped_or_stop_the_load() {
    let dir = tempfile::tempdir().unwrap();
    let up = Up::start(&dir.path().join("data"), &["--shards", "1"]);
    let file = write(
        &dir.path().join("bad.tsv"),
        b"good\t3\nbad\t-1\n\xff\xfe\t1\n\nplain\n",
    );
    let stopped = up.ask(&["load", &file, "--on-error", "stop"]);
    assert_eq!(stopped.status.code(), Some(1));
    assert!(stderr(&stopped).contains("line 2: has \"-1\" as count"));
    assert!(stderr(&stopped).contains("nothing was loaded"));
    assert_eq!(up.answer(&["export"]), "");

    let skipped = up.ask(&["load", &file]);
    assert!(skipped.status.success());
    let report = stderr(&skipped);
    assert!(report.contains("line 2: has \"-1\" as count"), "{report}");
    assert!(report.contains("line 3: is not UTF-8"), "{report}");
    assert!(report.contains("2 bad lines skipped"), "{report}");
    assert_eq!(up.answer(&["export"]), "good\t3\nplain\t1\n");

    let missing = up.ask(&["load", "/nonexistent"]);
    assert_eq!(missing.status.code(), Some(1));
    assert!(stderr(&missing).contains("/nonexistent"));
}

#[test]
fn standard_input_is_read_plain_and_compressed() {
    let dir = tempfile::tempdir().unwrap();
    let up = Up::start(&dir.path().join("data"), &["--shards", "1"]);
    let packed = zstd::encode_all(&b"c\t3\n"[..], 1).unwrap();
    for text in [&b"a\nb\na\n"[..], &packed[..]] {
        let mut child = autocomplete(&["load", "-", "--addr", &up.addr])
            .stdin(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::io::Write::write_all(child.stdin.as_mut().unwrap(), text).unwrap();
        assert!(child.wait().unwrap().success());
    }
    assert_eq!(up.answer(&["export"]), "a\t2\nb\t1\nc\t3\n");
}
