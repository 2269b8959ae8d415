//! Arguments, help and exit codes. No cluster is needed.

use crate::support::{autocomplete, output, stderr, stdout};

#[test]
fn bad_arguments_end_with_64_and_say_what_is_wrong() {
    for (arguments, problem) in [
        (vec!["nonsense"], "nonsense"),
        (vec!["record"], "<TERM>"),
        (vec!["record", "x", "--count", "0"], "0"),
        (
            vec!["record", "x", "--namespace", "Not Allowed"],
            "must start with",
        ),
        (vec!["record", "x", "--addr", "nowhere"], "nowhere"),
        (vec!["record", "x", "--addr", "https://a:1"], "endpoints"),
        (vec!["top", "-k", "0"], "0"),
        (vec!["top", "-i"], "needs a terminal"),
        (vec!["count", "x", "--deadline", "0s"], "above 0"),
        (vec!["up", "--shards", "0"], "0"),
        (vec!["up", "--grpc-addr", "x"], "x"),
        (vec!["up", "--log-filter", "a=nonsense=b"], "filter"),
        (vec!["bench", "top-k", "--in-flight", "0"], "0"),
        (vec!["load", "--again", "-"], "standard input"),
        (vec!["wal", "verify", "/nonexistent"], "/nonexistent"),
    ] {
        let output = output(&arguments);
        assert_eq!(output.status.code(), Some(64), "{arguments:?}");
        let text = stderr(&output);
        assert!(text.contains(problem), "{arguments:?}: {text}");
        assert_eq!(stdout(&output), "", "{arguments:?}");
    }
}

#[test]
fn help_is_an_answer() {
    for arguments in [
        vec!["--help"],
        vec!["up", "--help"],
        vec!["load", "--help"],
        vec!["wal", "repair", "--help"],
        vec!["--version"],
    ] {
        let output = output(&arguments);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}");
        assert!(stdout(&output).contains("autocomplete"), "{arguments:?}");
    }
}

#[test]
fn a_cluster_that_is_not_there_is_an_error_and_not_a_hang() {
    // Its tries end long before its deadline, so that the last of them tells what is wrong.
    let output = output(&["count", "x", "--addr", "127.0.0.1:1"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).starts_with("error: DISCONNECTED"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn a_reader_that_has_had_enough_is_no_error() {
    // The reading end is closed at once.
    let mut child = autocomplete(&["--help"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    assert_eq!(child.wait().unwrap().code(), Some(0));
}
