//! Made-up load: what is sent, in which order, and how long the answers take.
//!
//! - [`Choice`] and [`generate`] decide what is sent. Both depend on a seed alone, so that several servers can be asked the same.
//! - [`Target`] is whoever answers: one request in flight, and a pause after one that failed where it is to back off. [`Grpc`] is a
//!   cluster of ours; `bench` has other servers.
//! - [`run`] is the closed loop: every target sends a request, waits for its answer and sends the next, for a fixed time after a
//!   warm-up that does not count. A closed loop slows down with the server, so its tail is that of the offered concurrency, not of a fixed
//!   rate.
//! - [`Measured`] is what came of it, as a client sees it: from before the call to after its answer.
//!
//! What must not be known here: which servers are compared, and how a result is shown.

mod choice;
mod closed_loop;
mod generate;
mod grpc;
mod measured;

pub use choice::Choice;
pub use closed_loop::{Plan, Popularity, Prefixes, Target, run};
pub use generate::generate;
pub use grpc::{Grpc, GrpcOptions};
pub use measured::{Latencies, Measured, per_second};
