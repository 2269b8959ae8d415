//! Figures for people: medians over rounds, units, and tables of Markdown.

use std::fmt::Write as _;

use serde::Serialize;
use workload::Latencies;

/// Requests of one kind: medians over the rounds, and the longest that one took in any of them.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Figures {
    pub(crate) per_second: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) p999_us: f64,
    pub(crate) max_us: f64,
}

impl Figures {
    pub(crate) fn of<'a>(rounds: impl IntoIterator<Item = &'a Latencies>) -> Self {
        let rounds: Vec<&Latencies> = rounds.into_iter().collect();
        let middle = |value: fn(&Latencies) -> u64| median_of(&rounds, |at| float(value(at)));
        let longest = rounds.iter().map(|at| at.max_us).max();
        Self {
            per_second: middle(|at| at.requests_per_second),
            p50_us: middle(|at| at.p50_us),
            p99_us: middle(|at| at.p99_us),
            p999_us: middle(|at| at.p999_us),
            max_us: float(longest.unwrap_or(0)),
        }
    }
}

/// What has the same key, in the order in which the keys first came.
pub(crate) fn grouped<T, K: PartialEq>(all: &[T], key: impl Fn(&T) -> K) -> Vec<(K, Vec<&T>)> {
    let mut groups: Vec<(K, Vec<&T>)> = Vec::new();
    for at in all {
        let its = key(at);
        match groups.iter_mut().find(|(known, _)| *known == its) {
            Some((_, group)) => group.push(at),
            None => groups.push((its, vec![at])),
        }
    }
    groups
}

/// One value of each, in ascending order.
pub(crate) fn sorted<T>(all: &[T], value: impl Fn(&T) -> f64) -> Vec<f64> {
    let mut values: Vec<f64> = all.iter().map(value).collect();
    values.sort_unstable_by(f64::total_cmp);
    values
}

/// The middle of one value of each.
pub(crate) fn median_of<T>(all: &[T], value: impl Fn(&T) -> f64) -> f64 {
    median(&sorted(all, value))
}

/// The middle of sorted values, or of the two in the middle.
pub(crate) fn median(values: &[f64]) -> f64 {
    let upper = values.get(values.len() / 2).copied().unwrap_or(0.0);
    let lower = values.len().saturating_sub(1) / 2;
    let lower = values.get(lower).copied().unwrap_or(0.0);
    f64::midpoint(lower, upper)
}

/// A part of a whole, which may be nothing.
pub(crate) fn ratio(part: f64, whole: f64) -> f64 {
    part / whole.max(f64::EPSILON)
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a figure for people, exact to 53 bits"
)]
pub(crate) fn float(number: u64) -> f64 {
    number as f64
}

pub(crate) fn millis(micros: f64) -> String {
    format!("{:.2} ms", micros / 1_000.0)
}

/// A table of Markdown.
pub(crate) fn table(header: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let rule = "---|".repeat(header.len());
    let mut text = format!("| {} |\n|{rule}\n", header.join(" | "));
    for row in rows {
        // Writing to a string does not fail.
        let _ = writeln!(text, "| {} |", row.join(" | "));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn latencies(p50_us: u64, max_us: u64) -> Latencies {
        Latencies {
            requests_per_second: 100 * p50_us,
            p50_us,
            max_us,
            ..Latencies::default()
        }
    }

    #[test]
    fn the_middle_of_the_rounds_counts_and_the_longest_of_all() {
        let rounds = [latencies(3, 10), latencies(9, 40), latencies(4, 20)];
        let figures = Figures::of(&rounds);
        assert!((figures.p50_us - 4.0).abs() < 1e-9);
        assert!((figures.per_second - 400.0).abs() < 1e-9);
        assert!((figures.max_us - 40.0).abs() < 1e-9);
        let two = Figures::of(&rounds[..2]);
        assert!((two.p50_us - 6.0).abs() < 1e-9);
        assert!(Figures::of(&rounds[..0]).p50_us.abs() < 1e-9);
    }

    #[test]
    fn groups_come_in_the_order_of_their_first() {
        let groups = grouped(&[3_u32, 1, 13, 2, 11], |number| number % 10);
        assert_eq!(
            groups,
            [(3, vec![&3, &13]), (1, vec![&1, &11]), (2, vec![&2])]
        );
    }

    #[test]
    fn a_table_has_a_rule_below_its_header() {
        let rows = [vec!["1".to_owned(), "2".to_owned()]];
        assert_eq!(
            table(&["a", "b"], rows),
            "| a | b |\n|---|---|\n| 1 | 2 |\n"
        );
    }
}
