//! The coordinators as the command line reaches them: the first that answers will do.

use std::collections::VecDeque;
use std::time::Duration;

use api::admin::v1::cluster_admin_service_client::ClusterAdminServiceClient;
use api::{ApiError, Reason};
use futures::future::join_all;
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
    admins: VecDeque<Named>,
}

/// A coordinator, as it was named.
#[derive(Debug)]
struct Named {
    address: String,
    admin: ClusterAdminServiceClient<Channel>,
}

/// What each coordinator said, by its address.
pub(super) type Said<A> = Vec<(String, Result<A, ApiError>)>;

impl Connection {
    pub(super) fn new(runtime: &Runtime, addresses: &[String]) -> Result<Self, ApiError> {
        let config = PoolConfig {
            connect_timeout: CONNECT_PATIENCE,
            ..PoolConfig::default()
        };
        let admin = |address: &String| {
            let channel = connect(runtime, address, &config)?;
            let admin = ClusterAdminServiceClient::new(channel);
            Ok(Named {
                address: address.clone(),
                admin: admin.max_decoding_message_size(ANSWER_BYTES_MAX),
            })
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

    /// Asks every coordinator for what only it can tell, all at the same time.
    pub(super) async fn each<Q, A, F>(
        &self,
        message: &Q,
        call: impl Fn(ClusterAdminServiceClient<Channel>, Request<Q>) -> F,
    ) -> Said<A>
    where
        Q: Clone,
        F: Future<Output = Result<Response<A>, Status>>,
    {
        let patience = match self.admins.len() {
            1 => PATIENCE,
            _ => READ_PATIENCE,
        };
        let deadline = Deadline::after(&self.runtime, patience);
        let asked = self.admins.iter().map(|Named { address, admin }| {
            let request = deadline.request(&self.runtime, message.clone());
            let answer = request.map(|request| call(admin.clone(), request));
            async move {
                let said = match answer {
                    Ok(answer) => deadline.call(&self.runtime, answer).await,
                    Err(error) => Err(error),
                };
                (address.clone(), said.map(Response::into_inner))
            }
        });
        join_all(asked).await
    }

    /// From now on asks this coordinator alone: what it holds, the others may not.
    pub(super) fn pin(&mut self, address: &str) {
        self.admins.retain(|named| named.address == address);
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
            let Some(named) = self.admins.front() else {
                break;
            };
            let admin = named.admin.clone();
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
