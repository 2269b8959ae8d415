//! The layers of a server's settings, as a server uses them.
#![expect(missing_docs, reason = "an example of a server, for this test alone")]
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::time::Duration;

use clap::{CommandFactory, Parser};
use settings::Problems;

#[derive(Debug, PartialEq, Eq)]
pub struct Config {
    pub shards: usize,
    pub wait: Duration,
    pub coordinators: Vec<String>,
}

settings::settings! {
    /// The options of the example.
    pub struct Settings for Config, "AUTOCOMPLETE_EXAMPLE_";

    /// Shards [default: 3]
    shards: usize, "SHARDS", "N";
    /// Time to wait [default: 1s]
    wait: String, "WAIT", "DURATION";
    /// Coordinators, comma separated [required]
    #[arg(value_delimiter = ',')]
    coordinators: Vec<String>, "COORDINATORS", "HOST:PORT,...";
}

impl Settings {
    fn examine(self, problems: &mut Problems) -> Config {
        let second = Duration::from_secs(1);
        Config {
            shards: problems.number("shards", self.shards, 1..=64, 3),
            wait: problems.duration("wait", self.wait.as_deref(), second..=second * 60, second),
            coordinators: problems.authorities("coordinators", self.coordinators, None),
        }
    }
}

/// A server of the tests.
#[derive(Debug, Parser)]
struct Cli {
    #[command(flatten)]
    settings: Settings,
}

fn settings(arguments: &[&str]) -> Settings {
    Cli::try_parse_from(std::iter::once(&"server").chain(arguments))
        .unwrap()
        .settings
}

/// A file that lives as long as the folder.
fn file(text: &str) -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("server.toml");
    vfs::durable::replace(&vfs::RealDisk::new(), &path, text.as_bytes()).unwrap();
    let path = path.to_str().unwrap().to_owned();
    (folder, path)
}

#[test]
fn the_command_line_wins_over_the_file_and_the_file_over_the_default() {
    let (_folder, path) = file("shards = 5\ncoordinators = [\"a:1\", \"b:2\"]\n");
    let config = settings(&["--config", &path, "--shards", "2"]).load();
    let expected = Config {
        shards: 2,
        wait: Duration::from_secs(1),
        coordinators: vec!["a:1".into(), "b:2".into()],
    };
    assert_eq!(config, Ok(expected));
}

#[test]
fn every_option_has_its_own_variable() {
    let command = Cli::command();
    for (option, variable) in [
        ("config", "AUTOCOMPLETE_EXAMPLE_CONFIG"),
        ("shards", "AUTOCOMPLETE_EXAMPLE_SHARDS"),
        ("coordinators", "AUTOCOMPLETE_EXAMPLE_COORDINATORS"),
    ] {
        let argument = command
            .get_arguments()
            .find(|argument| argument.get_id() == option);
        let env = argument.unwrap().get_env().unwrap();
        assert_eq!(env, variable);
    }
}

#[test]
fn problems_of_the_file_and_of_the_command_line_come_together() {
    let (_folder, path) = file("shard = 5\n");
    let problems = settings(&["--config", &path, "--wait", "0s"])
        .load()
        .unwrap_err();
    let options: Vec<_> = problems.0.iter().map(|problem| problem.option).collect();
    assert_eq!(options, ["config", "wait", "coordinators"]);
    assert!(problems.0[0].text.contains("shard"), "{problems}");
}

#[test]
fn a_file_does_not_name_another_file() {
    let (_folder, path) = file("config = \"other.toml\"\n");
    let problems = settings(&["--config", &path, "--coordinators", "a:1"])
        .load()
        .unwrap_err();
    assert!(
        problems.0[0].text.contains("unknown field `config`"),
        "{problems}"
    );
}

#[test]
fn lists_are_given_with_commas() {
    let config = settings(&["--coordinators", "a:1,b:2"]).check().unwrap();
    assert_eq!(config.coordinators, ["a:1", "b:2"]);
}

#[test]
fn the_help_is_that_of_the_server_and_names_every_option() {
    let help = Cli::command().render_long_help().to_string();
    for part in [
        "A server of the tests",
        "--wait <DURATION>",
        "--config <FILE>",
    ] {
        assert!(help.contains(part), "{part} in {help}");
    }
}
