//! Which coordinators there are, by the data directories that their promises lie in. Pure.
//!
//! A coordinator has a number, which its configuration names, and for each data directory that ever served under that number an
//! identity of its own in the metadata's Raft group: [`member`]. The directories that the cluster was begun with have the number
//! itself; each later one a number of life that is given once ([`Coordinators::admit`]).
//!
//! What always holds: an identity is never given twice, and there is one for each number; so an empty directory cannot pass for
//! the one that was lost, whatever that one has voted for.
//!
//! On failure: nothing changes.

use std::collections::BTreeMap;

use cluster::NodeId;

use super::codec::{CodecError, Reader, Writer};
use super::response::Refusal;

/// An identity is the life above so many bits and the number below.
const LIFE_SHIFT: u32 = 32;
/// Lives that are given in all.
const LIVES_MAX: u64 = 1 << 24;

/// The number of a coordinator, which its configuration names.
#[must_use]
pub(crate) const fn number_of(member: NodeId) -> NodeId {
    NodeId(member.0 & ((1 << LIFE_SHIFT) - 1))
}

/// Whether an identity is one that the cluster was begun with.
#[must_use]
pub(crate) const fn is_first(member: NodeId) -> bool {
    member.0 >> LIFE_SHIFT == 0
}

const fn member(number: NodeId, life: u64) -> NodeId {
    NodeId(life << LIFE_SHIFT | number.0)
}

/// A request for the place of a coordinator whose data directory was lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admission {
    /// The coordinator's number.
    pub number: NodeId,
    /// Drawn for the new directory.
    pub instance: [u8; 16],
    /// The coordinators that the cluster was begun with, and the instances of their directories; looked at for the first admission only.
    pub begun: BTreeMap<NodeId, [u8; 16]>,
}

/// The coordinators, once one of them was replaced; before that they are those that the cluster was begun with.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Coordinators {
    /// The instance of each directory, by its identity. Empty until one was replaced.
    pub members: BTreeMap<NodeId, [u8; 16]>,
    /// Lives that were given.
    pub lives: u64,
}

impl Coordinators {
    /// Gives a new data directory the place of the one that served under a number until now.
    pub(crate) fn admit(&mut self, admission: Admission) -> Result<(), Refusal> {
        let Admission {
            number,
            instance,
            begun,
        } = admission;
        let mut members = if self.members.is_empty() {
            begun
        } else {
            self.members.clone()
        };
        if members.values().any(|known| *known == instance) {
            return Ok(());
        }
        let replaced = members.keys().find(|id| number_of(**id) == number).copied();
        let replaced = replaced.ok_or(Refusal::UnknownNode { node: number })?;
        if self.lives >= LIVES_MAX {
            return Err(Refusal::TooManyNodes);
        }
        self.lives += 1;
        members.remove(&replaced);
        members.insert(member(number, self.lives), instance);
        self.members = members;
        Ok(())
    }
}

pub(super) fn write_admission(out: &mut Writer, admission: &Admission) {
    out.u64(admission.number.0);
    out.fixed(&admission.instance);
    write_members(out, &admission.begun);
}

pub(super) fn read_admission(from: &mut Reader<'_>) -> Result<Admission, CodecError> {
    Ok(Admission {
        number: NodeId(from.u64("number")?),
        instance: from.fixed("instance")?,
        begun: read_members(from)?,
    })
}

fn write_members(out: &mut Writer, members: &BTreeMap<NodeId, [u8; 16]>) {
    out.len(members.len());
    for (id, instance) in members {
        out.u64(id.0);
        out.fixed(instance);
    }
}

fn read_members(from: &mut Reader<'_>) -> Result<BTreeMap<NodeId, [u8; 16]>, CodecError> {
    let members = from.list("coordinators", |from| {
        Ok((
            NodeId(from.u64("coordinator")?),
            from.fixed("coordinator instance")?,
        ))
    })?;
    Ok(members.into_iter().collect())
}

pub(super) fn write(out: &mut Writer, coordinators: &Coordinators) {
    write_members(out, &coordinators.members);
    out.u64(coordinators.lives);
}

pub(super) fn read(from: &mut Reader<'_>) -> Result<Coordinators, CodecError> {
    Ok(Coordinators {
        members: read_members(from)?,
        lives: from.u64("coordinator lives")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begun() -> BTreeMap<NodeId, [u8; 16]> {
        (1..=3).map(|id| (NodeId(id), [id as u8; 16])).collect()
    }

    fn admission(number: u64, instance: u8) -> Admission {
        Admission {
            number: NodeId(number),
            instance: [instance; 16],
            begun: begun(),
        }
    }

    fn numbers(coordinators: &Coordinators) -> Vec<u64> {
        let numbers = coordinators.members.keys().map(|id| number_of(*id).0);
        let mut numbers: Vec<u64> = numbers.collect();
        numbers.sort_unstable();
        numbers
    }

    #[test]
    fn a_new_directory_gets_an_identity_that_nobody_had() {
        let mut coordinators = Coordinators::default();
        let mut given = begun();
        for (round, number) in [2, 2, 1, 3, 1].into_iter().enumerate() {
            let instance = [100 + round as u8; 16];
            let asked = admission(number, 100 + round as u8);
            coordinators.admit(asked).unwrap();
            assert_eq!(numbers(&coordinators), [1, 2, 3]);
            let newest = *coordinators.members.keys().next_back().unwrap();
            assert_eq!(coordinators.members[&newest], instance);
            assert_eq!(given.insert(newest, instance), None, "{newest} was given");
            assert!(!is_first(newest) && number_of(newest) == NodeId(number));
        }
    }

    #[test]
    fn asking_twice_is_asking_once_and_strangers_stay_outside() {
        let mut coordinators = Coordinators::default();
        coordinators.admit(admission(2, 9)).unwrap();
        let before = coordinators.clone();
        coordinators.admit(admission(2, 9)).unwrap();
        assert_eq!(coordinators, before);
        let refused = coordinators.admit(admission(4, 8));
        assert_eq!(refused, Err(Refusal::UnknownNode { node: NodeId(4) }));
        assert_eq!(coordinators, before);
        // Who has been there from the beginning needs no new identity.
        let mut untouched = Coordinators::default();
        untouched.admit(admission(3, 3)).unwrap();
        assert_eq!(untouched, Coordinators::default());
    }
}
