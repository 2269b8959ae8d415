//! A coordinator as the command line reaches it.

use std::time::Duration;

use api::ApiError;
use api::admin::v1::cluster_admin_service_client::ClusterAdminServiceClient;
use rpc::Deadline;
use rpc::channel::{PoolConfig, connect};
use runtime::Runtime;
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

/// The longest that one call may take; longer work is asked for again.
const PATIENCE: Duration = cluster::limits::DEADLINE_MAX;
/// A whole map or status of a large cluster.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;

/// A coordinator's admin service.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) runtime: Runtime,
    pub(super) admin: ClusterAdminServiceClient<Channel>,
}

impl Connection {
    pub(super) fn new(runtime: &Runtime, address: &str) -> Result<Self, ApiError> {
        let channel = connect(runtime, address, &PoolConfig::default())?;
        let admin = ClusterAdminServiceClient::new(channel);
        Ok(Self {
            runtime: runtime.clone(),
            admin: admin.max_decoding_message_size(ANSWER_BYTES_MAX),
        })
    }

    /// Makes one call, for as long as one may take.
    pub(super) async fn call<Q, A, F>(
        &mut self,
        message: Q,
        call: impl FnOnce(ClusterAdminServiceClient<Channel>, Request<Q>) -> F,
    ) -> Result<A, ApiError>
    where
        F: Future<Output = Result<Response<A>, Status>>,
    {
        let deadline = Deadline::after(&self.runtime, PATIENCE);
        let request = deadline.request(&self.runtime, message)?;
        let answer = deadline
            .call(&self.runtime, call(self.admin.clone(), request))
            .await?;
        Ok(answer.into_inner())
    }
}

/// Makes a connection when a command wants one.
pub(super) trait Connect {
    fn connect(&self) -> Result<Connection, ApiError>;
}

impl<F: Fn() -> Result<Connection, ApiError>> Connect for F {
    fn connect(&self) -> Result<Connection, ApiError> {
        self()
    }
}
