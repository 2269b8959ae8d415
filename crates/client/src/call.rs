//! One operation with its tries: where each goes, how long it may take, and what follows from its failure.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use api::v1::autocomplete_service_client::AutocompleteServiceClient;
use api::{ApiError, Reason, Retry, v1};
use cluster::{NodeId, ShardId};
use runtime::{Instant, Runtime};
use tonic::transport::Channel;
use tonic::{Response, Status};

use crate::connections::{Coordinators, pool};
use crate::retry::{Attempts, Kind, Patience, Pause, Step};
use crate::routing::{Route, Routing};
use crate::session::Session;
use crate::{ClientError, ClientOptions};

pub(crate) type Service = AutocompleteServiceClient<Channel>;

/// With less than this left no further try is begun: it would hardly be answered, and its end would hide why the tries before it failed.
pub(crate) const TRY_MIN: Duration = Duration::from_millis(20);

/// What every operation of a client shares.
#[derive(Debug)]
pub(crate) struct Caller {
    pub(crate) runtime: Runtime,
    pub(crate) options: ClientOptions,
    pub(crate) coordinators: Coordinators,
    pub(crate) routing: Routing,
    pub(crate) session: Session,
}

/// An answer, which may leave something to be tried again.
#[derive(Debug)]
pub(crate) struct Answer<T> {
    pub(crate) value: T,
    /// Why parts of it should be asked for again, with the same request.
    pub(crate) unfinished: Option<ApiError>,
    /// Where in the value the results of the items are, if it is made of such.
    pub(crate) items: fn(&mut T) -> &mut [v1::ItemResult],
}

impl<T> Answer<T> {
    pub(crate) fn whole(response: Response<T>) -> Self {
        Self {
            value: response.into_inner(),
            unfinished: None,
            items: no_items,
        }
    }

    fn items(&mut self) -> &mut [v1::ItemResult] {
        (self.items)(&mut self.value)
    }

    /// What the caller gets after all tries.
    fn conclude(mut self, attempts: &Attempts) -> T {
        attempts.cover(self.items());
        self.value
    }
}

fn no_items<T>(_: &mut T) -> &mut [v1::ItemResult] {
    &mut []
}

/// Where one try goes.
#[derive(Debug)]
struct Target {
    channel: Channel,
    place: Place,
}

#[derive(Debug, Clone, Copy)]
enum Place {
    Coordinator(usize),
    Owner(ShardId, NodeId),
}

impl Caller {
    pub(crate) fn new(runtime: Runtime, options: ClientOptions) -> Result<Arc<Self>, ClientError> {
        options.check()?;
        let pool = pool(&runtime, &options);
        let coordinators = Coordinators::new(pool.clone(), &options.endpoints)?;
        let routing = Routing::new(runtime.clone(), pool);
        Ok(Arc::new(Self {
            runtime,
            options,
            coordinators,
            routing,
            session: Session::default(),
        }))
    }

    pub(crate) fn patience(&self) -> Patience {
        Patience {
            retries: self.options.retries,
            backoff_min: self.options.backoff_min,
            backoff_max: self.options.backoff_max,
            servers: self.coordinators.len(),
        }
    }

    /// Calls until there is a whole answer, nothing more can be hoped for, or the time is up. An answer that stays
    /// unfinished is handed out as it is.
    pub(crate) async fn run<T, F, Fut>(
        &self,
        kind: Kind,
        route: Route<'_>,
        call: F,
    ) -> Result<T, ClientError>
    where
        F: Fn(Channel, Duration) -> Fut,
        Fut: Future<Output = Result<Answer<T>, Status>>,
    {
        let deadline = self.runtime.now() + self.options.deadline;
        let mut attempts = Attempts::new(kind);
        let mut direct = self.options.direct;
        loop {
            let target = self.target(route, direct, deadline).await?;
            let left = deadline.saturating_since(self.runtime.now());
            let limit = left.min(self.options.attempt_timeout);
            let answer = self
                .runtime
                .timeout(limit, call(target.channel.clone(), limit))
                .await;
            let (mut partial, error) = match answer {
                Ok(Ok(mut answer)) => match answer.unfinished.take() {
                    Some(error) => (Some(answer), error),
                    None => return Ok(answer.conclude(&attempts)),
                },
                Ok(Err(status)) => (None, ApiError::from(status)),
                Err(elapsed) => (None, ApiError::deadline(elapsed.to_string())),
            };
            let patience = self.patience();
            let step = match &mut partial {
                Some(answer) => attempts.decide_in_part(answer.items(), &error, &patience),
                None => attempts.decide(&error, &patience),
            };
            self.learn(&error, &target);
            // A second failure of the direct way leaves the rest to the coordinator.
            direct &= error.retry() == Retry::Reroute && attempts.failed() < 2;
            let goes_on = match step {
                Step::Retry(pause) => self.pause(pause, deadline).await,
                Step::GiveUp => false,
            };
            if !goes_on {
                return match partial {
                    Some(answer) => Ok(answer.conclude(&attempts)),
                    None => Err(ClientError::Call {
                        error: attempts.conclude(error),
                        attempts: attempts.failed(),
                    }),
                };
            }
        }
    }

    /// Draws the conclusions of a failure for whatever is asked next, by this operation or another.
    fn learn(&self, error: &ApiError, target: &Target) {
        if error.retry() == Retry::Never {
            return;
        }
        match target.place {
            Place::Coordinator(index) => self.coordinators.failed(index),
            Place::Owner(shard, node) => {
                // Who has too much to do, no room, or no majority for a moment leads as before.
                let leads_on =
                    error.retry() == Retry::AfterDelay || error.reason() == Reason::NoQuorum;
                if !leads_on {
                    self.routing.leads(shard, error.leader());
                }
                if is_unreached(error) {
                    self.routing.failed(node);
                }
                if error.retry() == Retry::Reroute {
                    self.routing.doubt_map();
                }
            }
        }
    }

    /// Waits, if there is time for another try after that. Whether there still is then.
    pub(crate) async fn pause(&self, pause: Pause, deadline: Instant) -> bool {
        let wait = self.length(pause);
        let has_time = |at: Instant| at + TRY_MIN <= deadline;
        if !has_time(self.runtime.now() + wait) {
            return false;
        }
        self.runtime.sleep(wait).await;
        has_time(self.runtime.now())
    }

    pub(crate) fn length(&self, pause: Pause) -> Duration {
        match pause {
            Pause::None => Duration::ZERO,
            Pause::UpTo(max) => self.runtime.jitter(max),
            Pause::AtLeast { delay, spread } => delay.saturating_add(self.runtime.jitter(spread)),
        }
    }

    async fn target(
        &self,
        route: Route<'_>,
        direct: bool,
        deadline: Instant,
    ) -> Result<Target, ClientError> {
        if direct && !matches!(route, Route::Coordinator) {
            if self.routing.doubts_map() {
                self.refresh_map(deadline).await;
            }
            let owner = self.routing.shard(route);
            if let Some((shard, (node, channel))) =
                owner.and_then(|shard| self.routing.owner(shard).map(|found| (shard, found)))
            {
                return Ok(Target {
                    channel,
                    place: Place::Owner(shard, node),
                });
            }
        }
        let (index, channel) = self.coordinators.preferred()?;
        Ok(Target {
            channel,
            place: Place::Coordinator(index),
        })
    }

    /// Fetches the map, while that leaves time for a try. A failure leaves the old one: the coordinators can do without.
    async fn refresh_map(&self, deadline: Instant) {
        let Ok((index, channel)) = self.coordinators.preferred() else {
            return;
        };
        let left = deadline.saturating_since(self.runtime.now() + TRY_MIN);
        if left.is_zero() {
            return;
        }
        let limit = left.min(self.options.attempt_timeout);
        let refreshed = self
            .runtime
            .timeout(limit, self.routing.refresh(channel))
            .await;
        let problem = match refreshed {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error.to_string(),
            Err(elapsed) => elapsed.to_string(),
        };
        self.coordinators.failed(index);
        tracing::debug!(problem, "the shard map could not be refreshed");
    }
}

/// Whether the server itself failed, and not what it was asked for.
fn is_unreached(error: &ApiError) -> bool {
    let reason = error.reason();
    let is_gone = matches!(reason, Reason::Disconnected | Reason::Stopped);
    is_gone || reason == Reason::Deadline
}
