//! The command as a process.

#![expect(
    clippy::unwrap_used,
    reason = "parts of tests outside of test functions"
)]

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Output, Stdio};

fn watchdog(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_watchdog"));
    command.args(arguments);
    command
}

fn output(arguments: &[&str]) -> Output {
    watchdog(arguments).output().unwrap()
}

#[test]
fn the_help_reads_well_and_every_problem_is_listed() {
    let help = output(&["--help"]);
    assert!(help.status.success());
    let text = String::from_utf8(help.stdout).unwrap();
    for part in ["healthcheck", "--restart-command", "[default: 5s]"] {
        assert!(text.contains(part), "{part} in {text}");
    }
    let bad = output(&[
        "serve",
        "--misses",
        "0",
        "--poll-interval",
        "soon",
        "--log-filter",
        "a=b=c",
    ]);
    assert_eq!(bad.status.code(), Some(64));
    let text = String::from_utf8(bad.stderr).unwrap();
    for part in ["--misses: 0", "--poll-interval: \"soon\"", "--log-filter"] {
        assert!(text.contains(part), "{part} in {text}");
    }
    assert_eq!(output(&["--no-such-option"]).status.code(), Some(64));
}

/// Ends the process also when a test fails.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn it_is_healthy_before_it_has_found_a_coordinator_but_not_ready_and_stops_when_told() {
    // Port 1 is nobody's: the coordinator stays away.
    let arguments = [
        "--coordinators",
        "127.0.0.1:1",
        "--grpc-addr",
        "127.0.0.1:0",
        "--http-addr",
        "127.0.0.1:0",
    ];
    let mut command = watchdog(&arguments);
    let mut child = Ended(command.stderr(Stdio::piped()).spawn().unwrap());
    // Kept to the end: a process whose log goes nowhere is another test.
    let mut log = BufReader::new(child.0.stderr.take().unwrap());
    let grpc = log.by_ref().lines().map(Result::unwrap).find_map(|line| {
        let (_, address) = line.split_once("health over gRPC address=")?;
        Some(address.trim().to_owned())
    });
    let grpc = grpc.unwrap();
    assert!(
        output(&["healthcheck", "--addr", &grpc, "--timeout", "20s"])
            .status
            .success()
    );
    let not_yet = output(&[
        "healthcheck",
        "--addr",
        &grpc,
        "--service",
        "watchdog",
        "--timeout",
        "20s",
    ]);
    assert_eq!(not_yet.status.code(), Some(1));
    let id = child.0.id().to_string();
    assert!(
        Command::new("kill")
            .args(["-TERM", &id])
            .status()
            .unwrap()
            .success()
    );
    assert!(child.0.wait().unwrap().success());
    assert_eq!(
        output(&["healthcheck", "--addr", &grpc]).status.code(),
        Some(1)
    );
}
