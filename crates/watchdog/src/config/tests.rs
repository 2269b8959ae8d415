use clap::Parser;

use super::*;

#[derive(Debug, Parser)]
struct Cli {
    #[command(flatten)]
    settings: Settings,
}

fn settings(arguments: &[&str]) -> Settings {
    Cli::try_parse_from(std::iter::once(&"watchdog").chain(arguments))
        .unwrap()
        .settings
}

#[test]
fn the_defaults_are_those_of_the_contract() {
    let config = Settings::default().check().unwrap();
    assert_eq!(config.poll_interval, Duration::from_secs(5));
    assert_eq!(config.probe_timeout, Duration::from_secs(1));
    assert_eq!(config.detector.misses, 3);
    assert_eq!(
        (config.policy.backoff_min, config.policy.backoff_max),
        (Duration::from_secs(1), Duration::from_secs(60))
    );
    assert_eq!(config.policy.concurrent_percent, 10);
    assert!(config.restart_command.is_none());
    assert!(config.restart_containers.is_none());
}

#[test]
fn every_problem_is_listed_at_once() {
    let problems = settings(&[
        "--coordinators",
        "one:1,ftp://two:2,three",
        "--grpc-addr",
        "localhost",
        "--poll-interval",
        "soon",
        "--probe-timeout",
        "1ms",
        "--misses",
        "0",
        "--backoff-min",
        "2m",
        "--restart-command",
        "run \"{node}",
        "--restart-containers",
        "/var/run/docker.sock",
        "--log-format",
        "xml",
        "--log-filter",
        "a=b=c",
    ])
    .check()
    .unwrap_err();
    let mut options: Vec<_> = problems.0.iter().map(|problem| problem.option).collect();
    options.sort_unstable();
    assert_eq!(
        options,
        [
            "backoff-min",
            "coordinators",
            "coordinators",
            "grpc-addr",
            "log-filter",
            "log-format",
            "misses",
            "poll-interval",
            "probe-timeout",
            "restart-command",
            "restart-containers"
        ]
    );
    let text = problems.to_string();
    assert!(text.contains("\n  --misses: 0 is not 1 to 100"), "{text}");
}

#[test]
fn the_command_line_wins_over_the_file_and_the_file_over_the_default() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("watchdog.toml");
    let text = "coordinators = [\"a:1\", \"b:2\"]\npoll_interval = \"2s\"\nmisses = 7\n";
    vfs::durable::replace(&vfs::RealDisk::new(), &path, text.as_bytes()).unwrap();
    let path = path.to_str().unwrap();
    let config = settings(&["--config", path, "--poll-interval", "300ms"])
        .load()
        .unwrap();
    assert_eq!(config.coordinators, ["a:1", "b:2"]);
    assert_eq!(config.poll_interval, Duration::from_millis(300));
    assert_eq!(config.detector.misses, 7);
    assert_eq!(config.probe_timeout, Duration::from_secs(1));
}

#[test]
fn a_file_with_an_unknown_name_or_without_a_place_is_a_problem() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("watchdog.toml");
    vfs::durable::replace(&vfs::RealDisk::new(), &path, b"pol_interval = \"2s\"\n").unwrap();
    let problems = settings(&["--config", path.to_str().unwrap(), "--misses", "0"])
        .load()
        .unwrap_err();
    assert_eq!(problems.0.len(), 2);
    assert!(problems.0[0].text.contains("pol_interval"), "{problems}");
    let problems = settings(&["--config", "/nowhere/at/all.toml"])
        .load()
        .unwrap_err();
    assert_eq!(problems.0[0].option, "config");
}

#[test]
fn the_help_names_every_option() {
    use clap::CommandFactory;
    let help = Cli::command().render_long_help().to_string();
    for option in [
        "--coordinators",
        "--poll-interval",
        "--restart-command",
        "AUTOCOMPLETE_WATCHDOG_HTTP_ADDR",
        "{address}",
    ] {
        assert!(help.contains(option), "{option} in {help}");
    }
}

#[test]
fn containers_are_restarted_through_a_socket_that_is_named() {
    let config = settings(&["--restart-containers", "/run/docker.sock"]);
    let socket = config.check().unwrap().restart_containers;
    assert_eq!(socket.as_deref(), Some("/run/docker.sock".as_ref()));
    let nowhere = settings(&["--restart-containers", ""]).check();
    let text = nowhere.unwrap_err().to_string();
    assert!(text.contains("--restart-containers: must name"), "{text}");
}
