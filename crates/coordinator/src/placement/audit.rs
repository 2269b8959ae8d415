//! Whether the replicas of a shard are the same, by what they say of one entry of their log. Pure and deterministic.
//!
//! Every replica that applies an audit's entry hashes its state as of that entry ([`Voice`]). What always holds: a hash is right only
//! where a majority of all voters has it, those that are silent counted against it; where none can have a majority, nobody is chosen
//! and nobody is refuted, for then nothing says who is right. A shard with one voter has nobody to compare it with.

use std::collections::{BTreeMap, BTreeSet};

use cluster::NodeId;

/// The state of a replica as of one entry.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Audit {
    /// The entry.
    pub index: u64,
    /// By which rule it was hashed; hashes of different rules say nothing of each other.
    pub version: u32,
    /// The hash.
    pub hash: Vec<u8>,
}

/// What one replica has said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Voice {
    /// Who holds it.
    pub node: NodeId,
    /// Whether it votes.
    pub voter: bool,
    /// Its last audits.
    pub audits: Vec<Audit>,
}

/// What follows from the newest audit that decides anything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The entry.
    pub index: u64,
    /// What a majority of the voters has; `None` where no majority can agree any more.
    pub agreed: Option<Audit>,
    /// Who has that, or nobody.
    pub agreeing: Vec<NodeId>,
    /// Who has something else; all that have said anything, where no majority agrees.
    pub differing: Vec<NodeId>,
}

impl Verdict {
    /// Whether replicas differ and nothing says which of them is right.
    #[must_use]
    pub fn is_undecided(&self) -> bool {
        self.agreed.is_none()
    }
}

/// Judges by the newest entry that enough voters have spoken of; `None` while there is none.
#[must_use]
pub fn judge(voices: &[Voice]) -> Option<Verdict> {
    let voters = voices.iter().filter(|voice| voice.voter).count();
    if voters < 2 {
        return None;
    }
    let all = voices.iter().flat_map(|voice| &voice.audits);
    let places: BTreeSet<(u64, u32)> = all.map(|audit| (audit.index, audit.version)).collect();
    let mut newest_first = places.into_iter().rev();
    newest_first.find_map(|place| judge_at(voices, voters, place))
}

fn judge_at(voices: &[Voice], voters: usize, place: (u64, u32)) -> Option<Verdict> {
    let mut camps: BTreeMap<&Audit, Vec<&Voice>> = BTreeMap::new();
    for voice in voices {
        let mut audits = voice.audits.iter();
        if let Some(said) = audits.find(|audit| (audit.index, audit.version) == place) {
            camps.entry(said).or_default().push(voice);
        }
    }
    let votes = |camp: &[&Voice]| camp.iter().filter(|voice| voice.voter).count();
    let (largest, camp) = camps.iter().max_by_key(|(_, camp)| votes(camp))?;
    let spoken: usize = camps.values().map(|camp| votes(camp)).sum();
    let agreed = votes(camp) > voters / 2;
    let may_agree = votes(camp) + voters.saturating_sub(spoken) > voters / 2;
    if !agreed && may_agree {
        return None;
    }
    let agreed = agreed.then(|| (*largest).clone());
    let (agreeing, differing) = camps
        .iter()
        .flat_map(|(said, camp)| camp.iter().map(move |voice| (*said, voice.node)))
        .partition::<Vec<_>, _>(|(said, _)| Some(*said) == agreed.as_ref());
    let nodes = |said: Vec<(&Audit, NodeId)>| said.into_iter().map(|(_, node)| node).collect();
    Some(Verdict {
        index: place.0,
        agreeing: nodes(agreeing),
        differing: nodes(differing),
        agreed,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn audit(index: u64, hash: u8) -> Audit {
        Audit {
            index,
            version: 1,
            hash: vec![hash; 32],
        }
    }

    fn voice(node: u64, audits: &[(u64, u8)]) -> Voice {
        Voice {
            node: NodeId(node),
            voter: true,
            audits: audits.iter().map(|at| audit(at.0, at.1)).collect(),
        }
    }

    #[test]
    fn a_minority_is_found_where_a_majority_agrees() {
        let voices = [
            voice(1, &[(5, 1), (9, 2)]),
            voice(2, &[(5, 1), (9, 7)]),
            voice(3, &[(5, 1), (9, 2)]),
        ];
        let verdict = judge(&voices).unwrap();
        assert_eq!(verdict.agreed, Some(audit(9, 2)));
        assert_eq!(verdict.agreeing, [NodeId(1), NodeId(3)]);
        assert_eq!(verdict.differing, [NodeId(2)]);
    }

    #[test]
    fn no_majority_nobody_is_chosen() {
        let all_differ = [
            voice(1, &[(9, 1)]),
            voice(2, &[(9, 2)]),
            voice(3, &[(9, 3)]),
        ];
        let two = [voice(1, &[(9, 1)]), voice(2, &[(9, 2)])];
        for voices in [all_differ.as_slice(), two.as_slice()] {
            let verdict = judge(voices).unwrap();
            assert!(verdict.is_undecided());
            assert_eq!(verdict.agreeing, []);
            assert_eq!(verdict.differing.len(), voices.len());
        }
    }

    #[test]
    fn who_is_silent_counts_against_a_majority_and_is_waited_for() {
        let voices = [
            voice(1, &[(9, 1)]),
            voice(2, &[(9, 2)]),
            voice(3, &[(8, 4)]),
        ];
        assert_eq!(judge(&voices), None);
        let alone = [voice(1, &[(9, 1)])];
        assert_eq!(judge(&alone), None);
    }

    #[test]
    fn a_learner_is_judged_and_does_not_judge() {
        let mut voices = [
            voice(1, &[(9, 1)]),
            voice(2, &[(9, 1)]),
            voice(3, &[(9, 2)]),
        ];
        voices[2].voter = false;
        assert_eq!(judge(&voices).unwrap().differing, [NodeId(3)]);
        voices[1].voter = false;
        assert_eq!(judge(&voices), None, "one voter is no majority of anything");
    }

    #[test]
    fn other_rules_are_not_compared() {
        let mut voices = [
            voice(1, &[(9, 1)]),
            voice(2, &[(9, 1)]),
            voice(3, &[(9, 2)]),
        ];
        voices[2].audits[0].version = 2;
        assert_eq!(judge(&voices).unwrap().differing, []);
    }

    proptest! {
        #[test]
        fn nobody_of_a_majority_is_ever_refuted(said in prop::collection::vec(prop::option::of(0_u8..3), 2..8)) {
            let voices: Vec<Voice> = (1..)
                .zip(&said)
                .map(|(node, hash)| voice(node, &hash.map_or(vec![], |hash| vec![(9, hash)])))
                .collect();
            let most = |hash| said.iter().filter(|at| **at == Some(hash)).count() > said.len() / 2;
            let right = (0..3).find(|hash| most(*hash));
            let verdict = judge(&voices);
            match (right, verdict) {
                (Some(right), Some(verdict)) => {
                    prop_assert_eq!(verdict.agreed, Some(audit(9, right)));
                    for node in verdict.differing {
                        prop_assert!(!voices[node.0 as usize - 1].audits.contains(&audit(9, right)));
                    }
                }
                (None, Some(verdict)) => prop_assert!(verdict.is_undecided()),
                (None, None) => {}
                (Some(_), None) => prop_assert!(false, "a majority agrees, and nothing follows"),
            }
        }
    }
}
