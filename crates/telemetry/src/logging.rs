//! Logging: one line an event on standard error, so that standard output stays free for answers.
//!
//! Set up once by `main`. Libraries write with `tracing` and fields, and never choose where it goes.

use std::io::{self, IsTerminal as _};
use std::str::FromStr;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::util::TryInitError;

/// How a line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people; in colour on a terminal.
    #[default]
    Text,
    /// One JSON object a line, for collectors.
    Json,
}

impl FromStr for LogFormat {
    type Err = LoggingError;

    fn from_str(text: &str) -> Result<Self, LoggingError> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(LoggingError::Format(text.to_owned())),
        }
    }
}

/// What is logged, and how.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogConfig {
    /// How a line looks.
    pub format: LogFormat,
    /// Levels by module, such as `info,wal=debug`.
    pub filter: String,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            format: LogFormat::Text,
            filter: "info,openraft=error".to_owned(),
        }
    }
}

impl LogConfig {
    /// Checks the filter without setting anything up, so that a configuration can list all its problems.
    ///
    /// # Errors
    /// When the filter cannot be read.
    pub fn check(&self) -> Result<(), LoggingError> {
        self.filter().map(drop)
    }

    fn filter(&self) -> Result<EnvFilter, LoggingError> {
        EnvFilter::builder()
            .parse(&self.filter)
            .map_err(|error| LoggingError::Filter {
                filter: self.filter.clone(),
                problem: error.to_string(),
            })
    }
}

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// No such format.
    #[error("log format {0:?} is neither text nor json")]
    Format(String),
    /// The filter cannot be read.
    #[error("log filter {filter:?}: {problem}")]
    Filter {
        /// The filter.
        filter: String,
        /// What is wrong with it.
        problem: String,
    },
    /// Logging was set up before in this process.
    #[error("logging was set up twice: {0}")]
    Twice(#[from] TryInitError),
}

/// Sets up logging for the whole process. Call it once, at the start of `main`.
///
/// # Errors
/// When the filter cannot be read, or logging was set up before.
pub fn init(config: &LogConfig) -> Result<(), LoggingError> {
    let lines = tracing_subscriber::fmt()
        .with_env_filter(config.filter()?)
        .with_writer(io::stderr);
    match config.format {
        LogFormat::Text => lines
            .with_ansi(io::stderr().is_terminal())
            .finish()
            .try_init()?,
        LogFormat::Json => lines.json().flatten_event(true).finish().try_init()?,
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_filters_and_formats_are_named() {
        let config = LogConfig {
            filter: "info,wal=loud".into(),
            ..LogConfig::default()
        };
        let problem = config.check().unwrap_err().to_string();
        assert!(problem.contains("info,wal=loud"), "{problem}");
        assert!(matches!(
            "xml".parse::<LogFormat>(),
            Err(LoggingError::Format(_))
        ));
        assert_eq!("json".parse::<LogFormat>().unwrap(), LogFormat::Json);
        LogConfig::default().check().unwrap();
    }

    #[test]
    fn logging_is_set_up_once() {
        init(&LogConfig::default()).unwrap();
        assert!(matches!(
            init(&LogConfig::default()),
            Err(LoggingError::Twice(_))
        ));
    }
}
