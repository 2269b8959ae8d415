//! Values as people write them, and what is allowed. Pure; the text of an error says what was written and what would do.

use std::fmt;
use std::net::{Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::Duration;

/// Bytes of a name: of a node, or a region.
pub const NAME_BYTES_MAX: usize = 255;
/// Bytes of a host's name, as the domain name system has it.
const HOST_BYTES_MAX: usize = 253;

/// Why a value is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ValueError {
    /// Not an address of this machine.
    #[error("{text:?} is not an address and a port like 127.0.0.1:8080")]
    Address {
        /// What was written.
        text: String,
    },
    /// Not a host with a port.
    #[error("{text:?} is not host:port")]
    Authority {
        /// What was written.
        text: String,
    },
    /// Not a duration.
    #[error("{text:?} is not a duration like 500ms or 10m")]
    Duration {
        /// What was written.
        text: String,
    },
    /// Outside of what is allowed.
    #[error("{value} is not {min} to {max}")]
    Range {
        /// What was written.
        value: String,
        /// The smallest that is allowed.
        min: String,
        /// The largest that is allowed.
        max: String,
    },
    /// Not a name.
    #[error("{text:?} is not 1 to {NAME_BYTES_MAX} bytes without control characters")]
    Name {
        /// What was written.
        text: String,
    },
}

/// An address to listen on: an IP address and a port, which may be 0 for any that is free.
///
/// # Errors
/// [`ValueError::Address`], also for a host's name: what it stands for may change, and may be several.
pub fn address(text: &str) -> Result<SocketAddr, ValueError> {
    text.parse().map_err(|_| ValueError::Address {
        text: text.to_owned(),
    })
}

/// Where somebody else is reached: the name or the IP address of a host (IPv6 in brackets), and a port from 1 on.
///
/// # Errors
/// [`ValueError::Authority`], also where there is more, such as `http://` in front.
pub fn authority(text: &str) -> Result<String, ValueError> {
    let is_sound = text
        .rsplit_once(':')
        .is_some_and(|(host, port)| is_host(host) && is_port(port));
    is_sound
        .then(|| text.to_owned())
        .ok_or_else(|| ValueError::Authority {
            text: text.to_owned(),
        })
}

fn is_host(text: &str) -> bool {
    let bracketed = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'));
    match bracketed {
        Some(ip) => ip.parse::<Ipv6Addr>().is_ok(),
        None => {
            let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
            (1..=HOST_BYTES_MAX).contains(&text.len()) && text.bytes().all(allowed)
        }
    }
}

fn is_port(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit()) && text.parse::<u16>().is_ok_and(|port| port > 0)
}

/// A duration as text with units, such as `500ms`, `10m` or `1h 30m`.
///
/// # Errors
/// [`ValueError::Duration`], also for a number without a unit, and [`ValueError::Range`].
pub fn duration(text: &str, allowed: &RangeInclusive<Duration>) -> Result<Duration, ValueError> {
    let duration = humantime::parse_duration(text).map_err(|_| ValueError::Duration {
        text: text.to_owned(),
    })?;
    in_range(duration, allowed, |duration| {
        humantime::format_duration(*duration).to_string()
    })
}

/// A number in its range.
///
/// # Errors
/// [`ValueError::Range`].
pub fn number<T: PartialOrd + fmt::Display>(
    number: T,
    allowed: &RangeInclusive<T>,
) -> Result<T, ValueError> {
    in_range(number, allowed, ToString::to_string)
}

fn in_range<T: PartialOrd>(
    value: T,
    allowed: &RangeInclusive<T>,
    write: impl Fn(&T) -> String,
) -> Result<T, ValueError> {
    if allowed.contains(&value) {
        return Ok(value);
    }
    Err(ValueError::Range {
        value: write(&value),
        min: write(allowed.start()),
        max: write(allowed.end()),
    })
}

/// A name that goes into logs, metrics and file names of operators: 1 to [`NAME_BYTES_MAX`] bytes without control characters.
///
/// # Errors
/// [`ValueError::Name`].
pub fn name(text: &str) -> Result<String, ValueError> {
    let is_sound =
        (1..=NAME_BYTES_MAX).contains(&text.len()) && !text.chars().any(char::is_control);
    is_sound
        .then(|| text.to_owned())
        .ok_or_else(|| ValueError::Name {
            text: text.to_owned(),
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn addresses_are_of_this_machine() {
        for text in ["127.0.0.1:50051", "0.0.0.0:0", "[::1]:8080"] {
            assert_eq!(address(text).unwrap().to_string(), text);
        }
        for text in ["", "localhost:1", "127.0.0.1", "8080", "127.0.0.1:65536"] {
            assert!(address(text).is_err(), "{text}");
        }
    }

    #[test]
    fn authorities_are_hosts_with_ports() {
        for text in [
            "shard-1:50061",
            "a.example.org:1",
            "10.0.0.1:65535",
            "[::1]:7",
        ] {
            assert_eq!(authority(text).as_deref(), Ok(text));
        }
        for text in [
            "",
            "host",
            ":1",
            "host:",
            "host:0",
            "host:+1",
            "host:65536",
            "http://host:1",
            "host:1/path",
            "me@host:1",
            "ho st:1",
            "::1:7",
            "[::1:7",
            "[host]:7",
            "höst:1",
        ] {
            assert!(authority(text).is_err(), "{text}");
        }
        let longest = format!("{}:1", "a".repeat(HOST_BYTES_MAX));
        assert!(authority(&longest).is_ok());
        assert!(authority(&format!("a{longest}")).is_err());
    }

    #[test]
    fn durations_have_units_and_a_range() {
        let allowed = Duration::from_millis(10)..=Duration::from_hours(24);
        let read = |text| duration(text, &allowed);
        assert_eq!(read("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(read("10m"), Ok(Duration::from_secs(600)));
        assert_eq!(read("1h 30m"), Ok(Duration::from_secs(5_400)));
        for text in ["", "soon", "5", "-1s", "1.5.2s"] {
            assert!(
                matches!(read(text), Err(ValueError::Duration { .. })),
                "{text}"
            );
        }
        assert_eq!(
            read("1ms").unwrap_err().to_string(),
            "1ms is not 10ms to 1day"
        );
        assert!(read("2days").is_err());
    }

    #[test]
    fn names_are_short_and_printable() {
        assert_eq!(name("node-1").as_deref(), Ok("node-1"));
        assert!(name(&"n".repeat(NAME_BYTES_MAX)).is_ok());
        assert!(name(&"n".repeat(NAME_BYTES_MAX + 1)).is_err());
        for text in ["", "a\nb", "\u{7f}"] {
            assert!(name(text).is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn every_socket_address_is_an_authority(address: SocketAddr) {
            prop_assume!(address.port() > 0);
            // A scope is of this machine alone.
            let text = SocketAddr::new(address.ip(), address.port()).to_string();
            prop_assert_eq!(authority(&text), Ok(text));
        }

        #[test]
        fn every_duration_is_read_as_it_is_written(seconds in 0u64..1 << 40, nanos in 0u32..1_000_000_000) {
            let written = Duration::new(seconds, nanos);
            let text = humantime::format_duration(written).to_string();
            prop_assert_eq!(duration(&text, &(Duration::ZERO..=Duration::MAX)), Ok(written));
        }

        #[test]
        fn a_number_is_taken_exactly_in_its_range(value: i16, min: i16, max: i16) {
            prop_assert_eq!(number(value, &(min..=max)).is_ok(), value >= min && value <= max);
        }
    }
}
