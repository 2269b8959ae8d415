//! `coordinator drain`, `coordinator promote`, `coordinator replace`

use std::io::Write as _;
use std::time::Duration;

use api::admin::v1::{DrainNodeRequest, PromoteReplicaRequest, ReplaceReplicaRequest};
use cluster::ShardId;

use super::connection::Connect;
use super::outlook::{Outlook, tell};
use super::recover::confirmed;
use super::{Done, Failure};
use crate::recovery::words_of_loss;

/// Between two questions whether a change is done.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// The options of `drain`.
#[derive(Debug, clap::Args)]
pub(super) struct Drain {
    /// Number or name of the node
    #[arg(value_name = "NODE")]
    node: String,
    /// Let it hold replicas again
    #[arg(long)]
    undo: bool,
}

impl Drain {
    pub(super) async fn run(self, connect: &impl Connect) -> Done {
        let request = DrainNodeRequest {
            node: self.node,
            undo: self.undo,
        };
        let mut connection = connect.connect()?;
        let done = connection
            .call(request, |mut admin, request| async move {
                admin.drain_node(request).await
            })
            .await?;
        writeln!(std::io::stdout(), "{}", done.message)?;
        Ok(())
    }
}

/// The options of `promote`.
#[derive(Debug, clap::Args)]
pub(super) struct Promote {
    /// Number of the shard
    #[arg(value_name = "SHARD")]
    shard: u64,
    /// Number or name of the node
    #[arg(value_name = "NODE")]
    node: String,
    /// The shard has lost its majority for good: begin it anew from what this node's replica has
    #[arg(long)]
    accept_loss: bool,
    /// The words "lose shard SHARD", instead of typing them when asked
    #[arg(long, value_name = "WORDS", requires = "accept_loss")]
    confirm: Option<String>,
}

impl Promote {
    pub(super) async fn run(self, connect: &impl Connect) -> Done {
        let mut connection = connect.connect()?;
        let confirmation = if self.accept_loss {
            let outlook = Outlook::of(&mut connection, self.shard).await;
            tell(&outlook.of_promotion(&self.node))?;
            let loss = format!(
                "What shard {} acknowledged and node {} does not have will be gone for good.",
                self.shard, self.node
            );
            let words = words_of_loss(ShardId(self.shard), false);
            confirmed(words, self.confirm.as_deref(), &loss)?
        } else {
            String::new()
        };
        let request = PromoteReplicaRequest {
            shard_id: self.shard,
            node: self.node,
            accept_loss: self.accept_loss,
            confirmation,
        };
        let mut said = Said::default();
        loop {
            let done = connection
                .call(request.clone(), |mut admin, request| async move {
                    admin.promote_replica(request).await
                })
                .await?;
            said.say(&done.message)?;
            if done.done {
                return Ok(());
            }
            connection.runtime.sleep(ASK_AGAIN).await;
        }
    }
}

/// The options of `replace`.
#[derive(Debug, clap::Args)]
pub(super) struct Replace {
    /// Number of the shard
    #[arg(value_name = "SHARD")]
    shard: u64,
    /// Number or name of the node whose replica leaves
    #[arg(value_name = "NODE")]
    node: String,
    /// Number or name of the node that takes its place [default: the one that holds least]
    #[arg(long, value_name = "NODE")]
    with: Option<String>,
}

impl Replace {
    pub(super) async fn run(self, connect: &impl Connect) -> Done {
        let mut request = ReplaceReplicaRequest {
            shard_id: self.shard,
            node: self.node,
            with: self.with.unwrap_or_default(),
        };
        let mut connection = connect.connect()?;
        let mut said = Said::default();
        loop {
            let done = connection
                .call(request.clone(), |mut admin, request| async move {
                    admin.replace_replica(request).await
                })
                .await?;
            said.say(&done.message)?;
            if done.done {
                return Ok(());
            }
            // The node that was chosen is asked after from now on.
            if request.with.is_empty() && done.with_node_id > 0 {
                request.with = done.with_node_id.to_string();
            }
            connection.runtime.sleep(ASK_AGAIN).await;
        }
    }
}

/// Says each thing once.
#[derive(Debug, Default)]
struct Said(String);

impl Said {
    fn say(&mut self, message: &str) -> Result<(), Failure> {
        if self.0 != message {
            writeln!(std::io::stdout(), "{message}")?;
            message.clone_into(&mut self.0);
        }
        Ok(())
    }
}
