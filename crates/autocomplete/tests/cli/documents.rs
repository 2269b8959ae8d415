//! Documents that have to keep up with the programs: every command, every option, and every reason of an error.

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

/// The rows of a section that begin with a name, by that name.
fn named_rows(section: &str) -> BTreeMap<&str, &str> {
    let rows = section.lines().filter_map(|line| {
        let (name, _) = line.strip_prefix("| `")?.split_once('`')?;
        Some((name, line))
    });
    rows.collect()
}

/// The rows of a section that begin with a flag, by that flag.
fn rows(section: &str) -> BTreeMap<&str, &str> {
    let rows = named_rows(section).into_iter();
    rows.filter_map(|(name, line)| Some((name.strip_prefix("--")?, line)))
        .collect()
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

/// The commands that run servers, which `configuration.md` has and `cli.md` has not.
const SERVERS: [&str; 4] = [
    "autocomplete up",
    "coordinator serve",
    "shard-server serve",
    "watchdog serve",
];

/// All programs, with everything that their help shows.
fn programs() -> [Command; 4] {
    let mut programs = [
        autocomplete::command(),
        coordinator::cli::Cli::command(),
        shard_server::cli::Cli::command(),
        watchdog::command(),
    ];
    programs.iter_mut().for_each(Command::build);
    programs
}

/// The commands at the ends of a tree, each with what is typed for it.
fn leaves(typed: &str, command: &Command) -> Vec<(String, Command)> {
    let below = command.get_subcommands();
    let below: Vec<&Command> = below.filter(|at| at.get_name() != "help").collect();
    if below.is_empty() {
        return vec![(typed.to_owned(), command.clone())];
    }
    let below = below.into_iter();
    below
        .flat_map(|at| leaves(&format!("{typed} {}", at.get_name()), at))
        .collect()
}

/// The commands that `cli.md` has to explain, by what is typed for them.
fn commands() -> BTreeMap<String, Command> {
    let all = programs().into_iter();
    all.flat_map(|program| leaves(program.get_name(), &program))
        .filter(|(typed, _)| !SERVERS.contains(&typed.as_str()))
        .collect()
}

/// The arguments of a command, but for those that every command has.
fn arguments(command: &Command) -> impl Iterator<Item = &Arg> {
    let arguments = command.get_arguments();
    arguments.filter(|argument| !matches!(argument.get_id().as_str(), "help" | "version"))
}

/// What an argument's row begins with: its long flag, else its short one, else the name of its value.
fn name(argument: &Arg) -> String {
    if let Some(long) = argument.get_long() {
        return format!("--{long}");
    }
    if let Some(short) = argument.get_short() {
        return format!("-{short}");
    }
    let values = argument.get_value_names().unwrap_or_default();
    values.first().unwrap().as_str().to_owned()
}

/// The table under a heading has these arguments, with their short flags, variables, defaults and values, and nothing else.
fn compare_arguments(reference: &str, heading: &str, arguments: &[&Arg]) {
    let rows = named_rows(section(reference, heading));
    let listed: Vec<&str> = rows.keys().copied().collect();
    let mut printed: Vec<String> = arguments.iter().map(|argument| name(argument)).collect();
    printed.sort();
    assert_eq!(listed, printed, "{heading}");
    for argument in arguments {
        let row = rows[name(argument).as_str()];
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let &[_, option, default, meaning, _] = cells.as_slice() else {
            panic!("{heading}: not three cells: {row}");
        };
        if let Some(short) = argument.get_short() {
            assert!(option.contains(&format!("`-{short}`")), "{heading}: {row}");
        }
        if let Some(env) = argument.get_env().and_then(OsStr::to_str) {
            assert!(default.contains(&format!("`{env}`")), "{heading}: {row}");
        }
        let defaults = argument.get_default_values().iter();
        for value in defaults.filter(|_| argument.get_action().takes_values()) {
            let value = value.to_str().unwrap();
            let is_said = value.is_empty() || default.split(' ').any(|word| word == value);
            assert!(is_said, "{heading}: the default is {value}: {row}");
        }
        for value in argument.get_possible_values() {
            let value = format!("`{}`", value.get_name());
            assert!(meaning.contains(&value), "{heading}: {value}: {row}");
        }
    }
}

#[test]
fn the_commands_of_the_reference_are_those_of_the_programs() {
    let reference = document("cli.md");
    let (programs, commands) = (programs(), commands());
    let is_command = |heading: &&str| {
        let mut programs = programs.iter();
        programs.any(|program| heading.starts_with(&format!("{} ", program.get_name())))
    };
    let headings = reference
        .lines()
        .filter_map(|line| line.strip_prefix("## "));
    let listed: BTreeSet<&str> = headings.filter(is_command).collect();
    let known: BTreeSet<&str> = commands.keys().map(String::as_str).collect();
    assert_eq!(listed, known);
    let codes = named_rows(section(&reference, "Exit codes"));
    assert_eq!(codes.into_keys().collect::<BTreeSet<_>>(), known);
}

#[test]
fn the_reference_has_every_argument_of_every_command_and_no_other() {
    let reference = document("cli.md");
    let mut global = BTreeMap::new();
    let commands = commands();
    for (typed, command) in &commands {
        let (of_all, own): (Vec<&Arg>, Vec<&Arg>) =
            arguments(command).partition(|argument| argument.is_global_set());
        compare_arguments(&reference, typed, &own);
        let of_all = of_all.into_iter();
        global.extend(of_all.map(|argument| (name(argument), argument)));
    }
    let global: Vec<&Arg> = global.into_values().collect();
    let heading = "Options of every coordinator command";
    compare_arguments(&reference, heading, &global);
}

#[test]
fn the_reference_has_every_variable_of_every_command_and_no_other() {
    let reference = document("cli.md");
    let commands = commands();
    let arguments = commands.values().flat_map(arguments);
    let read: BTreeSet<&str> = arguments
        .filter_map(|argument| argument.get_env()?.to_str())
        .collect();
    let rows = named_rows(section(&reference, "Environment variables"));
    let listed: BTreeSet<&str> = rows
        .into_keys()
        .filter(|name| name.starts_with("AUTOCOMPLETE_"))
        .collect();
    assert_eq!(listed, read);
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
