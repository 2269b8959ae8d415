//! The names of held files: `{incarnation}-{index}-{raft term}-{taken at}-{hash}.snapshot`, numbers in decimal, the hash in hex. The
//! folder is the shard's number. A name that is not exactly so is not one of ours. A clock that was before 1970 gives a time with a sign.

use cluster::{Incarnation, ShardId};

use super::store::Held;

const SUFFIX: &str = ".snapshot";

pub(crate) fn of(held: &Held) -> String {
    let hash: String = held.hash.iter().map(|byte| format!("{byte:02x}")).collect();
    format!(
        "{}-{}-{}-{}-{hash}{SUFFIX}",
        held.incarnation, held.index, held.raft_term, held.taken_at_ms
    )
}

pub(crate) fn parse(shard: ShardId, name: &str, bytes: u64) -> Option<Held> {
    let (numbers, hash) = name.strip_suffix(SUFFIX)?.rsplit_once('-')?;
    let mut parts = numbers.splitn(4, '-');
    let incarnation = Incarnation(parts.next()?.parse().ok()?);
    let index = parts.next()?.parse().ok()?;
    let raft_term = parts.next()?.parse().ok()?;
    let taken_at_ms = parts.next()?.parse().ok()?;
    let hash = parse_hash(hash)?;
    let held = Held {
        shard,
        incarnation,
        raft_term,
        index,
        bytes,
        hash,
        taken_at_ms,
    };
    (of(&held) == name).then_some(held)
}

fn parse_hash(text: &str) -> Option<[u8; 32]> {
    let mut hash = [0; 32];
    if text.len() != 64 {
        return None;
    }
    for (at, byte) in hash.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    Some(hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_were_written_and_others_are_refused() {
        let held = Held {
            shard: ShardId(3),
            incarnation: Incarnation(2),
            raft_term: 4,
            index: 500,
            bytes: 77,
            hash: [0xab; 32],
            taken_at_ms: 1_700_000_000_000,
        };
        let early = Held {
            taken_at_ms: -1,
            ..held.clone()
        };
        assert_eq!(parse(ShardId(3), &of(&early), 77), Some(early));
        let name = of(&held);
        assert_eq!(parse(ShardId(3), &name, 77), Some(held));
        for other in [
            "",
            "x.snapshot",
            "../2-500-4-1700000000000.snapshot",
            &name.replace("500", "0500"),
            &name.to_uppercase(),
            &name.replace(".snapshot", ".snapshot.tmp"),
        ] {
            assert_eq!(parse(ShardId(3), other, 77), None, "{other}");
        }
    }
}
