//! What the watchdog counts. Labels are shard keys, of which there are as many as shards, and names of nodes that are registered.

use std::time::Duration;

use telemetry::{CounterFamily, Gauge, GaugeFamily, MetricsError, RecoveryMetrics};

use crate::detector::Health;
use crate::recovery::Outcome;

#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    recovery: RecoveryMetrics,
    failures: CounterFamily<2>,
    up: GaugeFamily<1>,
    unserved: GaugeFamily<1>,
    alerts: GaugeFamily<1>,
    node_up: GaugeFamily<1>,
    node_alerts: GaugeFamily<1>,
    node_restarts: CounterFamily<1>,
    frozen: Gauge,
    coordinator_up: Gauge,
}

impl Metrics {
    pub(crate) fn new(metrics: &telemetry::Metrics) -> Result<Self, MetricsError> {
        let part = metrics.part("watchdog")?;
        let shard = ["shard_key"];
        let node = ["node"];
        Ok(Self {
            recovery: metrics.recovery()?,
            failures: part.counters(
                "recovery_failures_total",
                "Recoveries that ended without the shard serving, by what they found.",
                ["shard_key", "outcome"],
            )?,
            up: part.gauges("shard_up", "1 while the shard serves.", shard)?,
            unserved: part.gauges(
                "shard_unserved_seconds",
                "How long the shard has not served; 0 while it does.",
                shard,
            )?,
            alerts: part.gauges(
                "shard_alert_state",
                "1 while a human should look at the shard.",
                shard,
            )?,
            node_up: part.gauges("node_up", "1 while the node's process answers.", node)?,
            node_alerts: part.gauges(
                "node_alert_state",
                "1 while a human should look at a node that holds no replicas.",
                node,
            )?,
            node_restarts: part.counters(
                "node_restarts_total",
                "Restarts of processes without replicas that were asked for.",
                node,
            )?,
            frozen: part.gauge(
                "frozen_state",
                "1 while most shards or nodes look down and nobody confirms it, so that nothing is begun.",
            )?,
            coordinator_up: part.gauge(
                "coordinator_up",
                "1 while a coordinator with a quorum answers.",
            )?,
        })
    }

    /// Brings a shard's series up to date, and makes them appear where nothing has happened yet.
    pub(crate) fn shard(&self, key: &str, health: Health, unserved: Duration, alert: bool) {
        self.recovery.announce(key);
        let up = u64::from(health.serves());
        self.up.with([key]).set_count(up);
        self.unserved.with([key]).set(unserved.as_secs_f64());
        self.alerts.with([key]).set_count(u64::from(alert));
    }

    /// Ends the gauges of a shard that is not watched any more.
    pub(crate) fn forget(&self, key: &str) {
        for gauges in [&self.up, &self.unserved, &self.alerts] {
            gauges.remove([key]);
        }
    }

    /// Brings a node's series up to date.
    pub(crate) fn node(&self, name: &str, up: bool, alert: bool) {
        self.node_restarts.with([name]).add(0);
        self.node_up.with([name]).set_count(u64::from(up));
        self.node_alerts.with([name]).set_count(u64::from(alert));
    }

    /// Ends the gauges of a node that is not watched any more.
    pub(crate) fn forget_node(&self, name: &str) {
        for gauges in [&self.node_up, &self.node_alerts] {
            gauges.remove([name]);
        }
    }

    pub(crate) fn node_restarted(&self, name: &str) {
        self.node_restarts.with([name]).increment();
    }

    pub(crate) fn attempt_began(&self, key: &str) {
        self.recovery.begun(key);
    }

    pub(crate) fn recovered(&self, key: &str, after: Duration) {
        self.recovery.ended(key, after);
    }

    /// An attempt ended without success; without an outcome if it panicked.
    pub(crate) fn attempt_failed(&self, key: &str, outcome: Option<Outcome>) {
        let outcome = outcome.map_or("panicked", Outcome::as_str);
        self.failures.with([key, outcome]).increment();
    }

    pub(crate) fn cluster(&self, frozen: bool, has_quorum: bool) {
        self.frozen.set_count(u64::from(frozen));
        self.coordinator_up.set_count(u64::from(has_quorum));
    }
}
