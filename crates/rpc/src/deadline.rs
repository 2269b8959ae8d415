//! How long a call may still take.
//!
//! The server stores a [`Deadline`] in every unary request. A handler asks for it with [`Deadline::of`] and hands it on to
//! the calls it makes itself, so that work ends everywhere when nobody waits for it any more. On a stream
//! each message gets a deadline of its own, which the handler begins with [`Deadline::after`].

use std::future::Future;
use std::time::Duration;

use api::ApiError;
use cluster::limits;
use runtime::{Instant, Runtime};
use tonic::{Request, Status};

/// The header that carries the caller's patience.
pub(crate) const TIMEOUT_HEADER: &str = "grpc-timeout";

/// The moment when the caller stops waiting, on this process's monotonic clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline(Instant);

impl Deadline {
    /// From now on for this long.
    #[must_use]
    pub fn after(runtime: &Runtime, patience: Duration) -> Self {
        Self(runtime.now() + patience)
    }

    /// What the server stored in a request. A request that did not come through the server (a test, a call in the same
    /// process) or a stream's gets the default of [`limits::DEADLINE_DEFAULT`] from now on.
    #[must_use]
    pub fn of<T>(request: &Request<T>, runtime: &Runtime) -> Self {
        request
            .extensions()
            .get::<Self>()
            .copied()
            .unwrap_or_else(|| Self::after(runtime, limits::DEADLINE_DEFAULT))
    }

    /// The moment itself.
    #[must_use]
    pub fn at(self) -> Instant {
        self.0
    }

    /// What is left; zero when it has passed.
    #[must_use]
    pub fn remaining(self, runtime: &Runtime) -> Duration {
        self.0.saturating_since(runtime.now())
    }

    /// Whether nothing is left.
    #[must_use]
    pub fn has_passed(self, runtime: &Runtime) -> bool {
        self.remaining(runtime).is_zero()
    }

    /// The error of a call that ran out of time.
    #[must_use]
    pub fn error() -> ApiError {
        ApiError::deadline("the deadline passed")
    }

    /// A request for another server that may take what is left.
    ///
    /// # Errors
    /// `DEADLINE` when nothing is left.
    pub fn request<T>(self, runtime: &Runtime, message: T) -> Result<Request<T>, ApiError> {
        let left = self.remaining(runtime);
        if left.is_zero() {
            return Err(Self::error());
        }
        Ok(crate::request(message, left))
    }

    /// Runs any future for at most what is left.
    ///
    /// # Errors
    /// `DEADLINE` when the time was up first; the future is dropped then.
    pub async fn limit<F: Future>(
        self,
        runtime: &Runtime,
        future: F,
    ) -> Result<F::Output, ApiError> {
        runtime
            .timeout(self.remaining(runtime), future)
            .await
            .map_err(|_| Self::error())
    }

    /// Runs a call to another server for at most what is left, and speaks of its error as ours.
    ///
    /// # Errors
    /// The call's error, or `DEADLINE` when the time was up first.
    pub async fn call<T, F>(self, runtime: &Runtime, call: F) -> Result<T, ApiError>
    where
        F: Future<Output = Result<T, Status>>,
    {
        let answer = self.limit(runtime, call).await?;
        answer.map_err(|status| ApiError::from_status(&status))
    }
}

/// Reads the header. At most eight digits and a unit, as the protocol has it; zero means that the time was up when the
/// request was sent. `None` for what is not in this form.
pub(crate) fn parse_timeout(text: &str) -> Option<Duration> {
    let digits = text
        .len()
        .checked_sub(1)
        .filter(|digits| (1..=8).contains(digits))?;
    let (number, unit) = text.split_at_checked(digits)?;
    if !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number: u64 = number.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(number * 3600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use api::Reason;

    use super::*;

    #[test]
    fn timeouts_are_read_as_the_protocol_has_them() {
        for (text, expected) in [
            ("1S", Duration::from_secs(1)),
            ("2H", Duration::from_secs(7200)),
            ("3M", Duration::from_secs(180)),
            ("250m", Duration::from_millis(250)),
            ("99999999u", Duration::from_micros(99_999_999)),
            ("0n", Duration::ZERO),
        ] {
            assert_eq!(parse_timeout(text), Some(expected), "{text}");
        }
        for text in [
            "",
            "S",
            "1",
            "1s",
            "-1S",
            "+1S",
            "123456789S",
            "1.5S",
            "1 S",
            "é1S",
            "1é",
        ] {
            assert_eq!(parse_timeout(text), None, "{text:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_left_shrinks_and_is_passed_on() {
        let runtime = Runtime::real();
        let deadline = Deadline::after(&runtime, Duration::from_secs(2));
        runtime.sleep(Duration::from_millis(500)).await;
        assert_eq!(deadline.remaining(&runtime), Duration::from_millis(1500));
        let request = deadline.request(&runtime, ()).unwrap();
        let header = request.metadata().get(TIMEOUT_HEADER).unwrap();
        assert_eq!(
            parse_timeout(header.to_str().unwrap()),
            Some(Duration::from_millis(1500))
        );
        runtime.sleep(Duration::from_secs(2)).await;
        assert!(deadline.has_passed(&runtime));
        let error = deadline.request(&runtime, ()).unwrap_err();
        assert_eq!(error.reason(), Reason::Deadline);
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_hangs_ends_with_the_deadline() {
        let runtime = Runtime::real();
        let deadline = Deadline::after(&runtime, Duration::from_secs(2));
        let hangs = std::future::pending::<Result<(), Status>>();
        let error = deadline.call(&runtime, hangs).await.unwrap_err();
        assert_eq!(error.reason(), Reason::Deadline);
        assert!(deadline.has_passed(&runtime));
    }

    #[tokio::test]
    async fn a_call_that_the_transport_gave_up_is_overdue_too() {
        let runtime = Runtime::real();
        let deadline = Deadline::after(&runtime, Duration::from_secs(2));
        let late = std::future::ready(Err::<(), _>(Status::cancelled("Timeout expired")));
        let error = deadline.call(&runtime, late).await.unwrap_err();
        assert_eq!(error.reason(), Reason::Deadline);
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_without_a_deadline_gets_the_default() {
        let runtime = Runtime::real();
        let deadline = Deadline::of(&Request::new(()), &runtime);
        assert_eq!(deadline.remaining(&runtime), limits::DEADLINE_DEFAULT);
    }
}
