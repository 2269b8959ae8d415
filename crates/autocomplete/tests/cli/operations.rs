//! What operators are given: alerts and a dashboard that speak of metrics which exist, and units that start the programs.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use clap::CommandFactory as _;
use runtime::Runtime;

use crate::support::Up;

/// How long the metrics may take to appear.
const PATIENCE: Duration = Duration::from_secs(60);

fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy")
}

/// The metrics that an expression names.
fn named(text: &str) -> BTreeSet<String> {
    let is_part = |at: char| at.is_ascii_alphanumeric() || at == '_' || at == ':';
    let words = text.split(|at| !is_part(at));
    let ours = ["autocomplete_", "trie_", "grpc_", "shard_recovery_"];
    let metrics = words.filter(|word| ours.iter().any(|start| word.starts_with(start)));
    let families = metrics.map(|word| word.strip_suffix("_bucket").unwrap_or(word));
    families.map(str::to_owned).collect()
}

#[test]
fn alerts_and_the_dashboard_name_metrics_that_exist() {
    let dir = tempfile::tempdir().unwrap();
    let up = Up::start(dir.path(), &[]);
    up.answer(&["record", "ant"]);
    up.answer(&["top", "a"]);
    let mut wanted = BTreeSet::new();
    for file in ["prometheus/rules.yml", "grafana/autocomplete.json"] {
        let text = std::fs::read_to_string(deploy().join(file)).unwrap();
        let names = named(&text);
        assert!(names.len() > 8, "{file} names {names:?}");
        wanted.extend(names);
    }
    // What rules record begins with the name of the thing and a colon.
    wanted.retain(|name| !name.contains(':'));
    // The watchdog's series are there once it has looked at the shards.
    let runtime = Runtime::real();
    let until = runtime.now() + PATIENCE;
    loop {
        let page = up.metrics();
        let exposed: BTreeSet<&str> = page
            .lines()
            .filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next())
            .collect();
        wanted.retain(|name| !exposed.contains(name.as_str()));
        if wanted.is_empty() {
            let commits = page.lines().filter_map(|line| {
                let series = line.strip_prefix("autocomplete_wal_commit_seconds_count{")?;
                series.rsplit_once(' ')?.1.parse::<u64>().ok()
            });
            assert!(commits.sum::<u64>() > 0, "a record was committed: {page}");
            return;
        }
        assert!(runtime.now() < until, "no such metrics: {wanted:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn every_alert_is_explained() {
    let rules = std::fs::read_to_string(deploy().join("prometheus/rules.yml")).unwrap();
    let book = std::fs::read_to_string(deploy().join("../docs/operations.md")).unwrap();
    let mut explained = 0;
    for rule in rules.split("- alert: ").skip(1) {
        let alert = rule.lines().next().unwrap();
        assert!(book.contains(&format!("### {alert}\n")), "{alert}");
        // What is shown with the alert leads to the section.
        let anchor = alert.to_lowercase();
        let link = format!("runbook: \"docs/operations.md#{anchor}\"\n");
        assert!(rule.contains(&link), "{alert}: {link}");
        explained += 1;
    }
    assert!(explained > 8, "only {explained} alerts");
}

#[test]
fn every_alert_has_a_case_in_which_it_fires() {
    let read = |name: &str| std::fs::read_to_string(deploy().join("prometheus").join(name));
    let (rules, cases) = (read("rules.yml").unwrap(), read("rules_test.yml").unwrap());
    let alerts = rules.lines().filter_map(|line| line.split_once("alert: "));
    for (_, alert) in alerts {
        let named = format!("alertname: {alert}\n");
        let mut of_it = cases.split(named.as_str()).skip(1);
        let fires = of_it.any(|case| case.trim_start().starts_with("exp_alerts:\n"));
        assert!(fires, "{alert}");
    }
}

#[test]
fn the_rules_fire_when_they_should() {
    let promtool = |arguments: &[&str]| {
        Command::new("promtool")
            .args(arguments)
            .current_dir(deploy().join("prometheus"))
            .output()
    };
    if promtool(&["--version"]).is_err() {
        assert!(
            std::env::var_os("REQUIRE_ALL").is_none(),
            "promtool is required"
        );
        eprintln!("left out: the alerting rules, for there is no promtool here");
        return;
    }
    for arguments in [
        &["check", "config", "prometheus.yml"],
        &["check", "config", "prometheus-replicated.yml"],
        &["test", "rules", "rules_test.yml"],
    ] {
        let output = promtool(arguments).unwrap();
        assert!(output.status.success(), "{arguments:?}: {output:?}");
    }
}

#[test]
fn every_server_of_the_compose_files_is_scraped() {
    let read = |name: &str| std::fs::read_to_string(deploy().join(name)).unwrap();
    let single = read("../docker-compose.yml");
    let replicated = format!("{single}{}", read("docker/replicated.yml"));
    for (config, servers, number) in [
        ("prometheus/prometheus.yml", &single, 5),
        ("prometheus/prometheus-replicated.yml", &replicated, 8),
    ] {
        let targets = read(config);
        let names = servers
            .lines()
            .filter_map(|line| line.trim().strip_prefix("hostname: "));
        let mut scraped = 0;
        for name in names {
            assert!(targets.contains(&format!("\"{name}:")), "{config}: {name}");
            scraped += 1;
        }
        assert_eq!(scraped, number, "{config}");
    }
}

/// What a line of a unit sets.
fn setting<'a>(unit: &'a str, key: &str) -> Option<&'a str> {
    let mut lines = unit.lines();
    lines.find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
}

#[test]
fn the_units_start_the_programs_with_options_that_they_have() {
    for (name, program) in [
        ("coordinator", coordinator::cli::Cli::command()),
        ("shard", shard_server::cli::Cli::command()),
        ("watchdog", watchdog::command()),
    ] {
        let file = format!("systemd/autocomplete-{name}.service");
        let unit = std::fs::read_to_string(deploy().join(file)).unwrap();
        let started = setting(&unit, "ExecStart").unwrap();
        let path = format!("/usr/local/bin/{} ", program.get_name());
        assert!(started.starts_with(&path), "{started}");
        let parsed = program.try_get_matches_from(started.split_whitespace());
        assert!(parsed.is_ok(), "{started}: {parsed:?}");
        let data = started.split_once("--data-dir /var/lib/");
        let data = data.map(|(_, directory)| directory);
        assert_eq!(data, setting(&unit, "StateDirectory"), "{name}");
    }
}

#[test]
fn a_request_is_followed_through_coordinator_and_shard() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    let file = std::fs::File::create(&log).unwrap();
    let data = dir.path().join("data");
    let up = Up::start_logging(&data, &["--log-format", "json"], file);
    // Before the first record there is no dictionary, and no shard is asked.
    up.answer(&["record", "apple"]);
    let id = "4bf92f3577b34da6a3ce929d0e0e4736";
    let header = format!("traceparent: 00-{id}-00f067aa0ba902b7-01\r\n");
    up.page("/v1/suggest?q=a", &header);
    up.page("/v1/suggest?q=b", "");
    assert!(up.terminate().success());
    let log = std::fs::read_to_string(&log).unwrap();
    let called = |call: &str| {
        // With what follows in the line's own fields: those of the call around it have no code.
        let own = format!("\"call\":\"{call}\",\"code\"");
        let has = |line: &&str| line.contains(id) && line.contains(&own);
        log.lines().filter(has).count()
    };
    assert_eq!(called("/v1/suggest"), 1, "{log}");
    assert_eq!(called("TopK"), 1, "{log}");
    let ended = log.lines().filter(|line| line.contains("traced call"));
    assert_eq!(ended.count(), 2, "{log}");
}
