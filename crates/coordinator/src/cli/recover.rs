//! `coordinator recover`

use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::time::Duration;

use api::admin::v1::{RecoverShardRequest, RecoveryAction};
use cluster::ShardId;

use super::connection::{Connect, Connection};
use super::outlook::{Outlook, tell};
use super::{Done, EXIT_NOT_SO, EXIT_USAGE, Failure};
use crate::recovery::words_of_loss;

/// Between two questions whether a recovery has ended.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// The options of `recover`.
#[derive(Debug, clap::Args)]
pub(super) struct Recover {
    /// Number of the shard
    #[arg(value_name = "SHARD")]
    shard: u64,
    /// Give up what is lost and begin the shard anew from the newest snapshot held by a coordinator, or from a sound replica that reaches
    /// as far
    #[arg(long)]
    accept_loss: bool,
    /// Begin the shard anew empty where no snapshot is held and no replica is sound
    #[arg(long, requires = "accept_loss")]
    accept_empty: bool,
    /// The words "lose shard SHARD" (with --accept-empty "lose all of shard SHARD"), instead of typing them when asked
    #[arg(long, value_name = "WORDS", requires = "accept_loss")]
    confirm: Option<String>,
}

impl Recover {
    pub(super) async fn run(self, connect: &impl Connect) -> Done {
        let mut connection = connect.connect()?;
        let confirmation = self.confirmation(&mut connection).await?;
        let mut said = String::new();
        loop {
            let request = RecoverShardRequest {
                shard_id: self.shard,
                accept_loss: self.accept_loss,
                confirmation: confirmation.clone(),
                accept_empty: self.accept_empty,
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

    /// The words that a person must have typed, after being told what is left. Whoever holds most of it is asked from then on.
    async fn confirmation(&self, connection: &mut Connection) -> Result<String, Failure> {
        if !self.accept_loss {
            return Ok(String::new());
        }
        let outlook = Outlook::of_the_holder(connection, self.shard).await;
        tell(&outlook.of_recovery())?;
        let loss = format!(
            "What shard {} acknowledged beyond that will be gone for good.",
            self.shard
        );
        let words = words_of_loss(ShardId(self.shard), self.accept_empty);
        confirmed(words, self.confirm.as_deref(), &loss)
    }
}

/// The words by which a person accepts a loss: given, or typed after being told of the loss.
pub(super) fn confirmed(words: String, given: Option<&str>, loss: &str) -> Result<String, Failure> {
    if let Some(words) = given {
        return Ok(words.to_owned());
    }
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
