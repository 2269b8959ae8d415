//! What becomes of a failed call.

use std::time::Duration;

use openraft::RPCTypes;
use openraft::errors::{NetworkError, Timeout, Unreachable};
use runtime::Runtime;
use tonic::{Code, Status};

use crate::raft::RpcError;

/// Between two tries of a replica that may not say anything.
const SILENT_PAUSE: Duration = Duration::from_millis(100);

/// The peer answered with an error. Where it is not there or not willing, openraft waits before it tries again.
pub(super) fn failed(status: &Status) -> RpcError {
    let reason = format!("{:?}: {}", status.code(), status.message());
    match status.code() {
        Code::Unavailable
        | Code::NotFound
        | Code::FailedPrecondition
        | Code::PermissionDenied
        | Code::Unimplemented
        | Code::ResourceExhausted
        | Code::Unauthenticated => RpcError::Unreachable(Unreachable::from_string(reason)),
        Code::Ok
        | Code::Cancelled
        | Code::Unknown
        | Code::InvalidArgument
        | Code::DeadlineExceeded
        | Code::AlreadyExists
        | Code::Aborted
        | Code::OutOfRange
        | Code::Internal
        | Code::DataLoss => RpcError::Network(NetworkError::from_string(reason)),
    }
}

/// The peer's answer makes no sense.
pub(super) fn malformed(problem: &impl ToString) -> RpcError {
    RpcError::Network(NetworkError::from_string(problem.to_string()))
}

/// Nobody can be asked.
pub(super) fn unreachable(problem: &str) -> RpcError {
    RpcError::Unreachable(Unreachable::from_string(problem))
}

/// This replica has ended, and says nothing to anybody.
pub(super) fn silent() -> RpcError {
    unreachable("this replica has ended")
}

/// As [`silent`], told after a pause: until such a replica is shut down, openraft goes on trying, and would do nothing else.
pub(super) async fn silent_after_pause(runtime: &Runtime) -> RpcError {
    runtime.sleep(SILENT_PAUSE).await;
    silent()
}

/// The peer is not sent entries any more, for it is too far behind. Openraft looks at once what else it is to be sent.
pub(super) fn left_behind() -> RpcError {
    malformed(&"the peer is too far behind")
}

pub(super) fn late(action: RPCTypes, id: u64, target: u64, timeout: Duration) -> RpcError {
    RpcError::Timeout(Timeout {
        action,
        id,
        target,
        timeout,
    })
}
