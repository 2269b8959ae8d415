//! `autocomplete wal dump`: a line a record.

use std::fmt::Write as _;
use std::io::{self, BufWriter, Write as _};
use std::path::PathBuf;

use vfs::RealDisk;
use wal::inspect::{self, Compression, RecordInfo, RecordKind};

use super::logs;

#[derive(Debug, Clone, clap::Args)]
pub(super) struct DumpArgs {
    /// The data directory
    #[arg(value_name = "DIR")]
    dir: PathBuf,

    /// Only this segment
    #[arg(long, value_name = "NUMBER")]
    segment: Option<u64>,

    /// Only records of this group (a shard)
    #[arg(long, value_name = "NUMBER")]
    group: Option<u64>,

    /// Show payloads in hexadecimal
    #[arg(long)]
    payload: bool,
}

pub(super) fn run(arguments: &DumpArgs) -> Result<(), anyhow::Error> {
    let disk = RealDisk::new();
    let mut out = BufWriter::new(io::stdout().lock());
    for log in logs(&disk, &arguments.dir)? {
        writeln!(out, "{}", log.display())?;
        let mut failed = None;
        inspect::dump(&disk, &log, &mut |record| {
            let is_wanted = arguments
                .segment
                .is_none_or(|wanted| wanted == record.place.segment)
                && (arguments.group.is_none() || group(&record.kind) == arguments.group);
            if is_wanted && failed.is_none() {
                failed = writeln!(out, "{}", line(record, arguments.payload)).err();
            }
        })?;
        if let Some(error) = failed {
            return Err(error.into());
        }
    }
    out.flush()?;
    Ok(())
}

fn group(kind: &RecordKind) -> Option<u64> {
    match kind {
        RecordKind::Segment { .. } | RecordKind::Marker { .. } | RecordKind::Damage { .. } => None,
        RecordKind::Entry { group, .. }
        | RecordKind::Vote { group, .. }
        | RecordKind::Committed { group, .. }
        | RecordKind::Truncate { group, .. }
        | RecordKind::Purge { group, .. }
        | RecordKind::Remove { group }
        | RecordKind::State { group, .. } => Some(group.0),
    }
}

fn line(record: &RecordInfo, payload: bool) -> String {
    format!(
        "{} {:>8} B  {}",
        record.place,
        record.bytes,
        describe(&record.kind, payload)
    )
}

fn describe(kind: &RecordKind, with_payload: bool) -> String {
    match kind {
        RecordKind::Segment {
            identity,
            previous_end,
            dictionary,
        } => format!(
            "segment  node {} previous ends at {previous_end}, dictionary {dictionary}",
            identity.node_id
        ),
        RecordKind::Entry {
            group,
            term,
            node,
            index,
            kind,
            stored_bytes,
            compression,
            chain,
            payload,
        } => {
            let stored = match compression {
                Compression::None => String::new(),
                Compression::Zstd => format!(", {stored_bytes} B by zstd"),
                Compression::ZstdDictionary => {
                    format!(", {stored_bytes} B by zstd with dictionary")
                }
            };
            let mut text = format!(
                "entry    group {group} index {index} term {term} of node {node}, kind {kind}, {} B{stored}, chain {chain:08x}",
                payload.len()
            );
            if with_payload {
                text.push_str("  ");
                for byte in payload {
                    // Writing to a string does not fail.
                    let _ = write!(text, "{byte:02x}");
                }
            }
            text
        }
        RecordKind::Vote { group, vote } => format!(
            "vote     group {group} term {} for node {}{}",
            vote.term,
            vote.node,
            if vote.committed { ", granted" } else { "" }
        ),
        RecordKind::Committed { group, index } => format!("commit   group {group} index {index}"),
        RecordKind::Truncate { group, from_index } => {
            format!("truncate group {group} from index {from_index}")
        }
        RecordKind::Purge { group, upto_index } => {
            format!("purge    group {group} up to index {upto_index}")
        }
        RecordKind::Remove { group } => format!("remove   group {group}"),
        RecordKind::State {
            group,
            purged_index,
            last_index,
            vote: _,
        } => format!(
            "state    group {group} purged {}, last {}",
            index_or_none(*purged_index),
            index_or_none(*last_index)
        ),
        RecordKind::Marker { durable } => format!("marker   durable below {durable}"),
        RecordKind::Damage { reason } => format!("DAMAGE   {reason}"),
    }
}

fn index_or_none(index: Option<u64>) -> String {
    index.map_or_else(|| "none".to_owned(), |index| index.to_string())
}
