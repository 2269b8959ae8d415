use std::time::Duration;

use runtime::Runtime;

use super::*;

fn metrics() -> Metrics {
    Metrics::new(&Runtime::real()).unwrap()
}

#[test]
fn the_names_that_users_look_for_exist_exactly_so() {
    let metrics = metrics();
    metrics.rpc_ended("a.B/C", "OK", Duration::from_millis(3));
    metrics.rpc_stream_ended("a.B/D", "CANCELLED");
    metrics.trie_operations("record", "").add(2);
    let recovery = metrics.recovery().unwrap();
    recovery.announce("h");
    recovery.begun("q");
    recovery.ended("q", Duration::from_secs(3));
    assert_eq!((recovery.attempts("h"), recovery.attempts("q")), (0, 1));
    let text = metrics.encode().unwrap();
    for line in [
        "grpc_latency_seconds_bucket{method=\"a.B/C\",le=\"0.005\"} 1",
        "grpc_latency_seconds_count{method=\"a.B/C\"} 1",
        "trie_operations_total{operation=\"record\",shard_key=\"\"} 2",
        "shard_recovery_attempts_total{shard_key=\"h\"} 0",
        "shard_recovery_attempts_total{shard_key=\"q\"} 1",
        "shard_recovery_duration_seconds_bucket{shard_key=\"q\",le=\"4\"} 1",
        "shard_recovery_duration_seconds_sum{shard_key=\"q\"} 3",
        "autocomplete_rpc_calls_total{code=\"CANCELLED\",method=\"a.B/D\"} 1",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    }
    assert!(!text.contains("grpc_latency_seconds_count{method=\"a.B/D\"}"));
}

#[test]
fn calls_are_counted_once_each_also_when_their_series_are_known() {
    let metrics = metrics();
    let ms = Duration::from_millis(1);
    for _ in 0..3 {
        metrics.rpc_ended("a.B/C", "OK", ms);
        metrics.rpc_ended("a.B/C", "UNAVAILABLE", ms);
    }
    // First without a latency, then with one.
    metrics.rpc_stream_ended("a.B/D", "OK");
    metrics.rpc_ended("a.B/D", "OK", ms);
    metrics.rpc_ended("a.B/D", "OK", ms);
    let text = metrics.encode().unwrap();
    for line in [
        "grpc_latency_seconds_count{method=\"a.B/C\"} 6",
        "autocomplete_rpc_calls_total{code=\"OK\",method=\"a.B/C\"} 3",
        "autocomplete_rpc_calls_total{code=\"UNAVAILABLE\",method=\"a.B/C\"} 3",
        "grpc_latency_seconds_count{method=\"a.B/D\"} 2",
        "autocomplete_rpc_calls_total{code=\"OK\",method=\"a.B/D\"} 3",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    }
}

#[test]
fn parts_name_their_metrics_and_share_them_by_name() {
    let metrics = metrics();
    let wal = metrics.part("wal").unwrap();
    let appended = wal
        .counter("appended_bytes_total", "Bytes appended.")
        .unwrap();
    appended.add(5);
    // Another node of the same process asks for the same.
    let again = metrics.part("wal").unwrap();
    let same = again
        .counter("appended_bytes_total", "Bytes appended.")
        .unwrap();
    same.increment();
    assert_eq!(appended.value(), 6);
    wal.gauge("segments_count", "Segments.")
        .unwrap()
        .set_count(3);
    wal.latency("sync_seconds", "Syncs.").unwrap().observe(0.01);
    let text = metrics.encode().unwrap();
    for line in [
        "autocomplete_wal_appended_bytes_total 6",
        "autocomplete_wal_segments_count 3",
        "autocomplete_wal_sync_seconds_count 1",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let metrics = metrics();
    for name in [
        "", "Wal", "1wal", "wal__x", "_wal", "wal_", "wal-x", "wal é",
    ] {
        let error = metrics.part(name).unwrap_err();
        assert_eq!(error, MetricsError::Name { name: name.into() });
    }
    let part = metrics.part("x").unwrap();
    part.counters("a_total", "A.", ["shard_key"]).unwrap();
    let other_label = part.counters("a_total", "A.", ["node"]).unwrap_err();
    let other_kind = part.gauge("a_total", "A.").unwrap_err();
    for error in [other_label, other_kind] {
        let expected = MetricsError::Mismatch {
            name: "autocomplete_x_a_total".into(),
            exists: "counter",
        };
        assert_eq!(error, expected);
    }
}

#[test]
fn series_are_bounded_and_the_rest_is_other() {
    let metrics = metrics();
    let part = metrics.part("x").unwrap();
    let family = part.counters("a_total", "A.", ["who"]).unwrap();
    for number in 0..SERIES_MAX + 10 {
        family.with([&number.to_string()]).increment();
    }
    assert_eq!(family.with(["0"]).value(), 1, "early ones keep their own");
    assert_eq!(family.with([&SERIES_MAX.to_string()]).value(), 10);
    assert_eq!(family.with(["other"]).value(), 10);
    let text = metrics.encode().unwrap();
    let series = text.matches("autocomplete_x_a_total{").count();
    assert_eq!(series, SERIES_MAX + 1);

    family.remove(["0"]);
    let text = metrics.encode().unwrap();
    assert!(!text.contains("autocomplete_x_a_total{who=\"0\"}"));
}

#[tokio::test(start_paused = true)]
async fn the_process_is_measured_when_asked() {
    let runtime = Runtime::real();
    let metrics = Metrics::new(&runtime).unwrap();
    runtime.sleep(Duration::from_secs(90)).await;
    let text = metrics.encode().unwrap();
    assert!(
        text.contains("autocomplete_process_uptime_seconds 90\n"),
        "{text}"
    );
    #[cfg(target_os = "linux")]
    for name in [
        "memory_bytes",
        "open_files",
        "open_files_max",
        "cpu_seconds",
    ] {
        assert!(
            text.contains(&format!("\nautocomplete_process_{name} ")),
            "{text}"
        );
    }
}
