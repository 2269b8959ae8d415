//! `coordinator recover`

use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::time::Duration;

use api::admin::v1::{RecoverShardRequest, RecoveryAction};

use super::connection::Connect;
use super::{Done, EXIT_NOT_SO, EXIT_USAGE, Failure};

/// Between two questions whether a recovery has ended.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// The options of `recover`.
#[derive(Debug, clap::Args)]
pub(super) struct Recover {
    /// Number of the shard
    #[arg(value_name = "SHARD")]
    shard: u64,
    /// Give up what is lost and begin the shard anew from the newest snapshot held by the coordinator, or from a sound replica that reaches
    /// further
    #[arg(long)]
    accept_loss: bool,
    /// The words "lose shard SHARD", instead of typing them when asked
    #[arg(long, value_name = "WORDS", requires = "accept_loss")]
    confirm: Option<String>,
}

impl Recover {
    pub(super) async fn run(self, connect: &impl Connect) -> Done {
        let confirmation = self.confirmation()?;
        let mut connection = connect.connect()?;
        let mut said = String::new();
        loop {
            let request = RecoverShardRequest {
                shard_id: self.shard,
                accept_loss: self.accept_loss,
                confirmation: confirmation.clone(),
            };
            let done = connection
                .call(request, |mut admin, request| async move {
                    admin.recover_shard(request).await
                })
                .await?;
            if done.message != said {
                writeln!(std::io::stdout(), "{}", done.message)?;
                said.clone_from(&done.message);
            }
            match RecoveryAction::try_from(done.action) {
                Ok(RecoveryAction::None) => return Ok(()),
                Ok(RecoveryAction::NewIncarnation) => {
                    writeln!(
                        std::io::stdout(),
                        "snapshot index {}, last known index {}, life {}",
                        done.snapshot_index,
                        done.last_known_index,
                        done.incarnation
                    )?;
                    return Ok(());
                }
                // What the operator set in motion is waited for; a process that is away is the supervisor's.
                Ok(RecoveryAction::WaitForProcess) if self.accept_loss => {
                    connection.runtime.sleep(ASK_AGAIN).await;
                }
                Ok(
                    RecoveryAction::WaitForProcess
                    | RecoveryAction::NeedsAcceptLoss
                    | RecoveryAction::Unspecified,
                )
                | Err(_) => return Err(Failure::new(EXIT_NOT_SO, "the shard does not serve")),
            }
        }
    }

    /// The words that a person must have typed.
    fn confirmation(&self) -> Result<String, Failure> {
        if !self.accept_loss {
            return Ok(String::new());
        }
        let loss = format!(
            "What shard {} acknowledged after the newest snapshot held by the coordinator, or after what a sound replica has, will be gone for good.",
            self.shard
        );
        confirmed(self.shard, self.confirm.as_deref(), &loss)
    }
}

/// The words by which a person accepts a loss: given, or typed after being told of the loss.
pub(super) fn confirmed(shard: u64, given: Option<&str>, loss: &str) -> Result<String, Failure> {
    if let Some(words) = given {
        return Ok(words.to_owned());
    }
    let words = format!("lose shard {shard}");
    if !std::io::stdin().is_terminal() {
        let message =
            format!("accepting a loss needs --confirm {words:?}, or a terminal to type it");
        return Err(Failure::new(EXIT_USAGE, message));
    }
    let mut out = std::io::stdout();
    writeln!(out, "{loss}")?;
    write!(out, "Type \"{words}\" to go on: ")?;
    out.flush()?;
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line)?;
    if line.trim_end_matches(['\r', '\n']) == words {
        Ok(words)
    } else {
        Err(Failure::new(EXIT_NOT_SO, "not confirmed; nothing was done"))
    }
}
