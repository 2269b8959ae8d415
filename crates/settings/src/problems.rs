//! Everything that is wrong with a configuration, at once.

use std::fmt;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use telemetry::logging::LogConfig;

use crate::values;

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The option, as it is called on the command line without its dashes.
    pub option: &'static str,
    /// What is wrong, with the value and what is allowed.
    pub text: String,
}

/// All that is wrong. Each check that fails adds to it and gives a value to go on with, so that the next option is looked at, too;
/// [`Problems::none_or`] makes sure that no such value is ever used.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Problems(pub Vec<Problem>);

impl Problems {
    /// Adds one.
    pub fn add(&mut self, option: &'static str, text: impl Into<String>) {
        self.0.push(Problem {
            option,
            text: text.into(),
        });
    }

    /// The value, or a note of what is wrong with it.
    pub fn keep<T, E: fmt::Display>(
        &mut self,
        option: &'static str,
        result: Result<T, E>,
    ) -> Option<T> {
        result
            .map_err(|error| self.add(option, error.to_string()))
            .ok()
    }

    /// The value, if nothing is wrong.
    ///
    /// # Errors
    /// The problems, if there are any.
    pub fn none_or<T>(self, value: T) -> Result<T, Self> {
        if self.0.is_empty() {
            Ok(value)
        } else {
            Err(self)
        }
    }

    /// Whatever can be read from text, by its own rules.
    pub fn parsed<T: FromStr<Err: fmt::Display>>(
        &mut self,
        option: &'static str,
        given: Option<&str>,
        default: T,
    ) -> T {
        given
            .and_then(|text| self.keep(option, text.parse()))
            .unwrap_or(default)
    }

    /// What is logged and how, from the options `log-format` and `log-filter` that every server has.
    pub fn logging(&mut self, format: Option<&str>, filter: Option<&str>) -> LogConfig {
        let default = LogConfig::default();
        let logging = LogConfig {
            format: self.parsed("log-format", format, default.format),
            filter: filter.map_or(default.filter, ToOwned::to_owned),
        };
        self.keep("log-filter", logging.check());
        logging
    }

    /// A number in its range.
    pub fn number<T: PartialOrd + Copy + fmt::Display>(
        &mut self,
        option: &'static str,
        given: Option<T>,
        allowed: RangeInclusive<T>,
        default: T,
    ) -> T {
        given
            .and_then(|number| self.keep(option, values::number(number, &allowed)))
            .unwrap_or(default)
    }

    /// A duration in its range; see [`values::duration`].
    pub fn duration(
        &mut self,
        option: &'static str,
        given: Option<&str>,
        allowed: RangeInclusive<Duration>,
        default: Duration,
    ) -> Duration {
        given
            .and_then(|text| self.keep(option, values::duration(text, &allowed)))
            .unwrap_or(default)
    }

    /// A duration of at most `longest` after which something happens; zero for never.
    pub fn timeout(
        &mut self,
        option: &'static str,
        given: Option<&str>,
        longest: Duration,
        default: Option<Duration>,
    ) -> Option<Duration> {
        let zero = Duration::ZERO;
        let chosen = self.duration(option, given, zero..=longest, default.unwrap_or(zero));
        Some(chosen).filter(|chosen| !chosen.is_zero())
    }

    /// An address to listen on; see [`values::address`].
    pub fn address(&mut self, option: &'static str, given: Option<&str>) -> Option<SocketAddr> {
        given.and_then(|text| self.keep(option, values::address(text)))
    }

    /// Where somebody is reached; see [`values::authority`].
    pub fn authority(&mut self, option: &'static str, given: Option<&str>) -> Option<String> {
        given.and_then(|text| self.keep(option, values::authority(text)))
    }

    /// Where several are reached, at least one. Without a default, they must be given.
    pub fn authorities(
        &mut self,
        option: &'static str,
        given: Option<Vec<String>>,
        default: Option<Vec<String>>,
    ) -> Vec<String> {
        let Some(given) = given else {
            if default.is_none() {
                self.add(option, "must name at least one");
            }
            return default.unwrap_or_default();
        };
        if given.is_empty() {
            self.add(option, "must name at least one");
        }
        given
            .iter()
            .filter_map(|text| self.authority(option, Some(text.trim())))
            .collect()
    }

    /// A name; see [`values::name`]. Empty where none is given.
    pub fn name(&mut self, option: &'static str, given: Option<&str>) -> String {
        given
            .and_then(|text| self.keep(option, values::name(text)))
            .unwrap_or_default()
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "the configuration has problems:")?;
        self.0
            .iter()
            .try_for_each(|at| write!(formatter, "\n  --{}: {}", at.option, at.text))
    }
}

impl std::error::Error for Problems {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_problems_the_value_is_given_out() {
        assert_eq!(Problems::default().none_or(7), Ok(7));
    }

    #[test]
    fn a_value_is_never_given_out_beside_a_problem() {
        let mut problems = Problems::default();
        let shards = problems.number("shards", Some(0), 1..=64, 3);
        assert_eq!(shards, 3);
        assert!(problems.none_or(shards).is_err());
    }

    #[test]
    fn all_are_listed_in_their_order() {
        let second = Duration::from_secs(1);
        let mut problems = Problems::default();
        problems.number("shards", Some(0), 1..=64, 3);
        problems.address("grpc-addr", Some("localhost"));
        problems.duration("wait", Some("1ms"), second..=second * 60, second);
        problems.authorities("coordinators", None, None);
        problems.name("region", Some("a\nb"));
        problems.parsed("colour", Some("red"), false);
        assert_eq!(
            problems.to_string(),
            "the configuration has problems:\n  \
             --shards: 0 is not 1 to 64\n  \
             --grpc-addr: \"localhost\" is not an address and a port like 127.0.0.1:8080\n  \
             --wait: 1ms is not 1s to 1m\n  \
             --coordinators: must name at least one\n  \
             --region: \"a\\nb\" is not 1 to 255 bytes without control characters\n  \
             --colour: provided string was not `true` or `false`"
        );
    }

    #[test]
    fn what_is_not_given_has_its_default() {
        let second = Duration::from_secs(1);
        let mut problems = Problems::default();
        assert_eq!(problems.number("shards", None, 1..=64, 3), 3);
        assert_eq!(
            problems.duration("wait", None, second..=second * 60, second),
            second
        );
        assert_eq!(problems.address("grpc-addr", None), None);
        let default = vec!["a:1".to_owned()];
        assert_eq!(
            problems.authorities("coordinators", None, Some(default.clone())),
            default
        );
        assert_eq!(problems.name("region", None), "");
        assert!(problems.0.is_empty());
    }

    #[test]
    fn several_are_taken_one_by_one() {
        let mut problems = Problems::default();
        let given = ["a:1", " b:2", "ftp://c:3", "d"].map(ToOwned::to_owned);
        let taken = problems.authorities("coordinators", Some(given.to_vec()), None);
        assert_eq!(taken, ["a:1", "b:2"]);
        assert_eq!(problems.0.len(), 2);
    }
}
