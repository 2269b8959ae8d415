//! `coordinator transfer-leader`

use std::io::Write as _;

use api::admin::v1::{GetStatusRequest, TransferLeaderRequest};

use super::connection::{Connect, Connection};
use super::{Done, EXIT_FAILED, Failure};

/// The options of `transfer-leader`.
#[derive(Debug, clap::Args)]
pub(super) struct TransferLeader {
    /// Number of the shard
    #[arg(value_name = "SHARD")]
    shard: u64,

    /// Number or name of the node that should lead; without it the replica that is best prepared
    #[arg(long, value_name = "NODE")]
    to: Option<String>,
}

impl TransferLeader {
    pub(super) async fn run(self, connect: &impl Connect) -> Done {
        let mut connection = connect.connect()?;
        let to_node_id = match &self.to {
            Some(node) => named(&mut connection, node).await?,
            None => 0,
        };
        let request = TransferLeaderRequest {
            shard_id: self.shard,
            to_node_id,
        };
        let handed = connection
            .call(request, |mut admin, request| async move {
                admin.transfer_leader(request).await
            })
            .await?;
        let (shard, leader) = (self.shard, handed.leader_node_id);
        writeln!(std::io::stdout(), "node {leader} leads shard {shard}")?;
        Ok(())
    }
}

/// The node of a number or a name. Of several identities with one name it is the one that is not lost.
async fn named(connection: &mut Connection, node: &str) -> Result<u64, Failure> {
    if let Ok(number) = node.parse() {
        return Ok(number);
    }
    let status = connection
        .call(
            GetStatusRequest::default(),
            |mut admin, request| async move { admin.get_status(request).await },
        )
        .await?;
    let mut nodes = status.nodes.iter().filter(|at| !at.lost);
    let found = nodes.find(|at| at.name == node);
    found.map(|at| at.node_id).ok_or_else(|| {
        let message = format!("there is no node {node:?}");
        Failure::new(EXIT_FAILED, message)
    })
}
