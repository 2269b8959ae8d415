//! The coordinators as the command line reaches them: the first that answers will do.

use std::collections::VecDeque;
use std::time::Duration;

use api::admin::v1::cluster_admin_service_client::ClusterAdminServiceClient;
use api::{ApiError, Reason};
use rpc::Deadline;
use rpc::channel::{PoolConfig, connect};
use runtime::Runtime;
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status};

use super::{EXIT_USAGE, Failure};
use crate::status::ANSWER_BYTES_MAX;

/// The longest that one call may take; longer work is asked for again.
const PATIENCE: Duration = cluster::limits::DEADLINE_MAX;

/// How long one that cannot be connected to keeps the next from being asked.
const CONNECT_PATIENCE: Duration = Duration::from_secs(1);

/// How long one that takes a question and does not answer, as a stopped process does, keeps the next from being asked.
const READ_PATIENCE: Duration = Duration::from_secs(2);

/// The coordinators' admin service.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) runtime: Runtime,
    /// The one that answered last stands first.
    admins: VecDeque<ClusterAdminServiceClient<Channel>>,
}

impl Connection {
    pub(super) fn new(runtime: &Runtime, addresses: &[String]) -> Result<Self, ApiError> {
        let config = PoolConfig {
            connect_timeout: CONNECT_PATIENCE,
            ..PoolConfig::default()
        };
        let admin = |address: &String| {
            let channel = connect(runtime, address, &config)?;
            let admin = ClusterAdminServiceClient::new(channel);
            Ok(admin.max_decoding_message_size(ANSWER_BYTES_MAX))
        };
        Ok(Self {
            runtime: runtime.clone(),
            admins: addresses
                .iter()
                .map(admin)
                .collect::<Result<_, ApiError>>()?,
        })
    }

    /// Makes one call, for as long as one may take. Where a coordinator is not there, the next is asked: what this asks for is
    /// safe to repeat.
    pub(super) async fn call<Q, A, F>(
        &mut self,
        message: Q,
        call: impl Fn(ClusterAdminServiceClient<Channel>, Request<Q>) -> F,
    ) -> Result<A, ApiError>
    where
        Q: Clone,
        F: Future<Output = Result<Response<A>, Status>>,
    {
        self.ask_in_turn(PATIENCE, message, call).await
    }

    /// Asks for what every coordinator can tell at once: one that does not is soon passed over.
    pub(super) async fn read<Q, A, F>(
        &mut self,
        message: Q,
        call: impl Fn(ClusterAdminServiceClient<Channel>, Request<Q>) -> F,
    ) -> Result<A, ApiError>
    where
        Q: Clone,
        F: Future<Output = Result<Response<A>, Status>>,
    {
        self.ask_in_turn(READ_PATIENCE, message, call).await
    }

    /// The last of them is given all the time that is left.
    async fn ask_in_turn<Q, A, F>(
        &mut self,
        patience: Duration,
        message: Q,
        call: impl Fn(ClusterAdminServiceClient<Channel>, Request<Q>) -> F,
    ) -> Result<A, ApiError>
    where
        Q: Clone,
        F: Future<Output = Result<Response<A>, Status>>,
    {
        let end = Deadline::after(&self.runtime, PATIENCE);
        let mut failure = ApiError::new(Reason::BadArgument, "no coordinator was named");
        for others in (0..self.admins.len()).rev() {
            let Some(admin) = self.admins.front().cloned() else {
                break;
            };
            let deadline = match others {
                0 => end,
                _ => end.min(Deadline::after(&self.runtime, patience)),
            };
            let request = deadline.request(&self.runtime, message.clone())?;
            match deadline.call(&self.runtime, call(admin, request)).await {
                Ok(answer) => return Ok(answer.into_inner()),
                Err(error)
                    if error.code() == Code::Unavailable
                        || (deadline < end && error.code() == Code::DeadlineExceeded) =>
                {
                    failure = error;
                    self.admins.rotate_left(1);
                }
                Err(error) => return Err(error),
            }
        }
        Err(failure)
    }
}

/// Makes a connection when a command wants one.
pub(super) trait Connect {
    fn connect(&self) -> Result<Connection, Failure>;
}

impl<F: Fn() -> Result<Connection, ApiError>> Connect for F {
    fn connect(&self) -> Result<Connection, Failure> {
        // Nothing is called yet: what can be wrong is an address.
        self().map_err(|error| Failure::new(EXIT_USAGE, error.to_string()))
    }
}
