//! Documents that have to keep up with the programs: every option, and every reason of an error.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::path::Path;

use api::{Reason, Retry};
use clap::{Arg, Args as _, Command, CommandFactory as _};

use crate::support::{output, stdout};

/// A document of the repository.
pub(crate) fn document(name: &str) -> String {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs");
    std::fs::read_to_string(docs.join(name)).unwrap()
}

/// What stands under a heading, up to the next of its level.
fn section<'a>(document: &'a str, heading: &str) -> &'a str {
    let start = format!("\n## {heading}\n");
    let (_, rest) = document.split_once(&start).unwrap();
    rest.split("\n## ").next().unwrap()
}

/// The rows of a section that begin with a flag, by that flag.
fn rows(section: &str) -> BTreeMap<&str, &str> {
    let rows = section.lines().filter_map(|line| {
        let (flag, _) = line.strip_prefix("| `--")?.split_once('`')?;
        Some((flag, line))
    });
    rows.collect()
}

/// The first example of a section.
fn example(section: &str) -> &str {
    let (_, rest) = section.split_once("```toml\n").unwrap();
    rest.split("```").next().unwrap()
}

/// The `serve` of a program.
fn serve(program: &mut Command) -> &Command {
    // Only then do subcommands have the flags of the program itself, which their help shows too.
    program.build();
    program.find_subcommand("serve").unwrap()
}

/// The long flags of a command and their variables, but for those that every command has.
fn flags(command: &Command) -> BTreeMap<&str, Option<&OsStr>> {
    let is_ours = |argument: &&Arg| !matches!(argument.get_id().as_str(), "help" | "version");
    let arguments = command.get_arguments().filter(is_ours);
    let flags = arguments.filter_map(|argument| {
        let flag = argument.get_long()?;
        Some((flag, argument.get_env()))
    });
    flags.collect()
}

/// The table under a heading has the flags of a command with their variables, and nothing else.
fn compare(reference: &str, heading: &str, command: &Command) {
    let (rows, flags) = (rows(section(reference, heading)), flags(command));
    let listed: Vec<&str> = rows.keys().copied().collect();
    let printed: Vec<&str> = flags.keys().copied().collect();
    assert_eq!(listed, printed, "{heading}");
    for (flag, env) in flags {
        let env = env.and_then(OsStr::to_str).unwrap();
        let row = rows[flag];
        assert!(row.contains(&format!("`{env}`")), "{heading}: {row}");
    }
}

#[test]
fn the_reference_has_every_option_of_the_servers_and_no_other() {
    let reference = document("configuration.md");
    let mut program = coordinator::cli::Cli::command();
    compare(&reference, "coordinator serve", serve(&mut program));
    let mut program = shard_server::cli::Cli::command();
    compare(&reference, "shard-server serve", serve(&mut program));
    let watchdog = watchdog::Settings::augment_args(Command::new("watchdog"));
    compare(&reference, "watchdog serve", &watchdog);
}

#[test]
fn the_reference_has_every_option_of_up_and_no_other() {
    let help = stdout(&output(&["up", "--help"]));
    let printed: BTreeSet<&str> = help
        .lines()
        .map(str::trim_start)
        .filter(|line| line.starts_with('-'))
        .filter_map(|line| line.split_once("--")?.1.split_whitespace().next())
        .filter(|flag| !matches!(*flag, "help" | "version"))
        .collect();
    let reference = document("configuration.md");
    let rows = rows(section(&reference, "autocomplete up"));
    let listed: BTreeSet<&str> = rows.into_keys().collect();
    assert_eq!(listed, printed);
}

#[test]
fn the_examples_of_the_reference_are_configurations() {
    let reference = document("configuration.md");
    let dir = tempfile::tempdir().unwrap();
    let file = |heading: &str| {
        let path = dir.path().join(format!("{heading}.toml"));
        std::fs::write(&path, example(section(&reference, heading))).unwrap();
        Some(path)
    };
    let coordinator = coordinator::Settings {
        config: file("coordinator serve"),
        ..coordinator::Settings::default()
    };
    coordinator.load().unwrap();
    let shard_server = shard_server::Settings {
        config: file("shard-server serve"),
        ..shard_server::Settings::default()
    };
    shard_server.load().unwrap();
    let watchdog = watchdog::Settings {
        config: file("watchdog serve"),
        ..watchdog::Settings::default()
    };
    watchdog.load().unwrap();
}

#[test]
fn the_reference_says_of_every_reason_what_it_means_to_a_caller() {
    let reference = document("api.md");
    for &reason in Reason::ALL {
        let retry = match reason.retry() {
            Retry::Never => "never",
            Retry::SameRequest => "same request",
            Retry::AfterDelay => "after the delay",
            Retry::Reroute => "route again",
        };
        let row = format!(
            "| `{}` | `{}` | {retry} | `{}` |",
            reason.as_str(),
            rpc::code_name(reason.code()),
            reason.outcome_of_write().as_str(),
        );
        let mut lines = reference.lines();
        assert!(lines.any(|line| line.starts_with(&row)), "{row}");
    }
}
