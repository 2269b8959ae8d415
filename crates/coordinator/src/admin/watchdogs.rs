//! What watchdogs did, beside their turns at recoveries, which are in the metadata: each tells whichever coordinator it polls.
//!
//! What always holds: of a watchdog the last report is kept, and of few watchdogs, those heard of last. In memory only: a watchdog tells all that
//! it remembers with every poll, so that a coordinator that has just started knows it within one.

use std::collections::BTreeMap;

use api::ApiError;
use api::admin::v1::{ActionReport, WatchdogReport};
use parking_lot::Mutex;
use runtime::{Instant, Runtime};

use super::turns;
use crate::actions::check_actions;

/// Watchdogs that are remembered. Each start of one is another one.
const WATCHDOGS_MAX: usize = 16;

/// The last reports.
#[derive(Debug, Default)]
pub(crate) struct Watchdogs {
    /// By name. Held while one is put in or all are read.
    heard: Mutex<BTreeMap<String, Heard>>,
}

#[derive(Debug)]
struct Heard {
    at: Instant,
    actions: Vec<ActionReport>,
}

impl Watchdogs {
    /// Takes a report in.
    ///
    /// # Errors
    /// When it is larger than a watchdog's.
    pub(super) fn hear(&self, runtime: &Runtime, report: WatchdogReport) -> Result<(), ApiError> {
        let name = turns::name("watchdog.name", report.name)?;
        let mut actions = report.actions;
        check_actions("watchdog.actions", &actions)?;
        if actions.is_empty() {
            return Ok(());
        }
        for action in &mut actions {
            action.coordinator_id = 0;
            action.by_node_id = 0;
            action.watchdog.clone_from(&name);
        }
        let at = runtime.now();
        let mut heard = self.heard.lock();
        heard.insert(name, Heard { at, actions });
        if heard.len() > WATCHDOGS_MAX {
            let oldest = heard.iter().min_by_key(|(_, heard)| heard.at);
            if let Some(oldest) = oldest.map(|(name, _)| name.clone()) {
                heard.remove(&oldest);
            }
        }
        Ok(())
    }

    /// All that is remembered.
    pub(super) fn told(&self) -> Vec<ActionReport> {
        let heard = self.heard.lock();
        let actions = heard.values().flat_map(|heard| &heard.actions);
        actions.cloned().collect()
    }
}

/// Of what a watchdog told several coordinators at different times, leaves the newest. Expects the newest last, and leaves it so.
pub(super) fn once_each(actions: &mut Vec<ActionReport>) {
    let what = |action: &ActionReport| ActionReport {
        times: 0,
        first_ms: 0,
        last_ms: 0,
        ..action.clone()
    };
    let mut seen: Vec<ActionReport> = Vec::new();
    actions.reverse();
    actions.retain(|action| {
        if action.watchdog.is_empty() {
            return true;
        }
        let what = what(action);
        let is_new = !seen.contains(&what);
        if is_new {
            seen.push(what);
        }
        is_new
    });
    actions.reverse();
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use cluster::limits::{ACTION_TEXT_BYTES_MAX, ACTIONS_TOLD_MAX, TURN_TEXT_BYTES_MAX};

    use super::*;

    fn action(reason: &str, last_ms: i64) -> ActionReport {
        ActionReport::of("freeze", reason, (None, None), "").seen(1, 1, last_ms)
    }

    fn report(name: &str, actions: &[ActionReport]) -> WatchdogReport {
        WatchdogReport {
            name: name.to_owned(),
            actions: actions.to_vec(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_report_of_the_last_watchdogs_is_kept() {
        let runtime = Runtime::real();
        let watchdogs = Watchdogs::default();
        for number in 0..=WATCHDOGS_MAX {
            let name = number.to_string();
            for ms in [1, 2] {
                let foreign = ActionReport {
                    by_node_id: 7,
                    ..action("no_quorum", ms)
                };
                watchdogs.hear(&runtime, report(&name, &[foreign])).unwrap();
            }
            runtime.sleep(Duration::from_millis(1)).await;
        }
        let told = watchdogs.told();
        assert_eq!(told.len(), WATCHDOGS_MAX);
        assert!(told.iter().all(|at| (at.last_ms, at.by_node_id) == (2, 0)));
        assert!(told.iter().all(|at| at.watchdog != "0"), "{told:?}");
    }

    #[test]
    fn what_is_too_large_is_refused_and_changes_nothing() {
        let runtime = Runtime::real();
        let watchdogs = Watchdogs::default();
        let long = ActionReport {
            error: "x".repeat(ACTION_TEXT_BYTES_MAX + 1),
            ..ActionReport::default()
        };
        let many = vec![action("no_quorum", 1); ACTIONS_TOLD_MAX + 1];
        for (report, field) in [
            (report("", &[]), "watchdog.name"),
            (
                report(&"x".repeat(TURN_TEXT_BYTES_MAX + 1), &[]),
                "watchdog.name",
            ),
            (report("w", &[long]), "watchdog.actions"),
            (report("w", &many), "watchdog.actions"),
        ] {
            let refused = watchdogs.hear(&runtime, report).unwrap_err();
            assert!(refused.to_string().contains(field), "{refused}");
        }
        assert_eq!(watchdogs.told(), []);
    }

    #[test]
    fn what_several_coordinators_were_told_is_told_once() {
        let of = |watchdog: &str, action: ActionReport| ActionReport {
            watchdog: watchdog.to_owned(),
            ..action
        };
        let coordinators = action("no_quorum", 4);
        let mut actions = vec![
            of("a", action("no_quorum", 1)),
            of("b", action("no_quorum", 2)),
            of("a", action("no_quorum", 3)),
            coordinators.clone(),
            coordinators,
        ];
        let expected = actions.get(1..).unwrap().to_vec();
        once_each(&mut actions);
        assert_eq!(actions, expected);
    }
}
