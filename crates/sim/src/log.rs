//! The servers' own logs, with the world's time.

use anyhow::Context as _;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;

use crate::trace;

struct WorldTime;

impl FormatTime for WorldTime {
    fn format_time(&self, writer: &mut Writer<'_>) -> std::fmt::Result {
        write!(writer, "{:>9.3}", trace::now().as_secs_f64())
    }
}

/// Prints the servers' logs to standard error from now on.
///
/// # Errors
/// When the filter cannot be read, or logs are printed already.
pub fn log_to_stderr(filter: &str) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(filter).context("reading the filter")?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_timer(WorldTime)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .try_init()
        .map_err(|error| anyhow::anyhow!("{error}"))
}

/// Has what the servers log go nowhere. Without this, spans that nobody listens to are still offered to the `log` crate, which costs a
/// seed some hundredths of its time.
///
/// # Errors
/// When something listens already.
pub fn log_nothing() -> anyhow::Result<()> {
    tracing::subscriber::set_global_default(tracing::subscriber::NoSubscriber::default())?;
    Ok(())
}
