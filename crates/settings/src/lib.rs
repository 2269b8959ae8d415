//! What an operator can set, the same way in every server.
//!
//! A value comes from the command line, else from the environment, else from the file named by `--config`, else from its
//! default. A server lists its options once, with [`settings!`](crate::settings), and turns them into its checked configuration with the help
//! of [`Problems`], which takes what is wrong and goes on.
//!
//! What always holds:
//! - Every problem is reported, not only the first, under the name of its option; only then does a server refuse to start.
//! - Nothing but the file of `--config` is touched: no socket is bound, no directory made.
//! - A name that no option has is refused, in the file as on the command line, so that a slip of the pen does not go unseen.
//! - The same kind of value is written the same way everywhere: `host:port`, durations like `500ms` or `10m`, bytes as integers.
//!
//! This crate knows no server and none of their options, and does not end the process: `main` does, with exit code 64.

mod file;
mod layers;
mod problems;
pub mod values;

pub use file::{FILE_BYTES_MAX, FileError, file_layer};
pub use layers::is_name_in_environment;
pub use problems::{Problem, Problems};
