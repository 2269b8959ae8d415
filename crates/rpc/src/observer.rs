//! What a server tells about its calls, to whoever keeps metrics.

use std::time::Duration;

use tonic::Code;

/// A call that ended.
#[derive(Debug, Clone, Copy)]
pub struct Call<'a> {
    /// `package.Service/Method`; `unknown` where the server has no such method, so that callers cannot make names up.
    pub method: &'a str,
    /// How it ended; `Cancelled` when the caller went away first.
    pub code: Code,
    /// From the request's headers to the end of the answer.
    pub took: Duration,
    /// The method has a stream on one side; `took` is then how long the caller kept it open.
    pub streaming: bool,
}

impl Call<'_> {
    /// The name of the status code as the protocol writes it, such as `INVALID_ARGUMENT`.
    #[must_use]
    pub fn code_name(&self) -> &'static str {
        code_name(self.code)
    }
}

/// The name of a status code as the protocol writes it, such as `INVALID_ARGUMENT`.
#[must_use]
pub const fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

/// Is told of every call that ends. Called on the task of the call: must be quick and must not block.
pub trait RpcObserver: Send + Sync {
    /// A call ended.
    fn call_ended(&self, call: Call<'_>);
}

impl<F: Fn(Call<'_>) + Send + Sync> RpcObserver for F {
    fn call_ended(&self, call: Call<'_>) {
        self(call);
    }
}
