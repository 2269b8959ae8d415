//! Worlds with one fault that stays, in which the cluster must help itself.

use super::*;
use crate::dice::Dice;
use crate::net::HostId;
use crate::oracle::Oracle;
use crate::seed::{build, on_a_thread_of_its_own};
use crate::trace::Trace;

/// A world of this seed in which all serves and only what a test does goes wrong.
fn begun(seed: u64) -> (World, Judge) {
    let mut dice = Dice::new(seed);
    let shape = loop {
        let shape = Shape::draw(&mut dice);
        if shape.watchdogs().is_empty() {
            break shape;
        }
    };
    let trace = Trace::new(false);
    let judge = Arc::new(Mutex::new(Oracle::new(trace.clone(), false)));
    let mut world = World::new(dice.fork(), trace, shape);
    build(&mut world, &mut dice, None).unwrap();
    until_serving(&mut world, HEAL).unwrap();
    (world, judge)
}

/// The machine that leads a shard.
fn leader(world: &mut World, shard: u64) -> HostId {
    let shape = world.shape;
    let status = ask(world, QUESTION, move |runtime| async move {
        client(runtime, shape).unwrap().status().await.unwrap()
    })
    .unwrap();
    let shard = status.shards.iter().find(|at| at.shard_id == shard);
    let mut replicas = shard.unwrap().replicas.iter();
    let leads = replicas.find(|at| at.role() == ReplicaRole::Leader);
    let leads = leads.unwrap().node_id;
    let node = status.nodes.iter().find(|at| at.node_id == leads).unwrap();
    let mut hosts = shape.shard_servers().iter().copied();
    hosts
        .find(|host| cast::shard_address(*host) == node.address)
        .unwrap()
}

#[test]
fn a_leader_that_nobody_but_its_peers_reaches_gives_its_lead_to_one_of_them() {
    for seed in 0..6 {
        let ran = on_a_thread_of_its_own(seed, move || {
            let (mut world, judge) = begun(seed);
            let before = leader(&mut world, 1);
            let hosts: Vec<HostId> = world.machines.iter().map(|at| at.host).collect();
            for other in hosts {
                if !cast::serves_shards(other) {
                    world.net.cut(before, other, true);
                    world.net.cut(other, before, true);
                }
            }
            let key = |term: &str| Key {
                namespace: NAMESPACES[0],
                term: term.to_owned(),
            };
            fresh_write(&mut world, &judge, &key("b-cut")).unwrap();
            assert_ne!(leader(&mut world, 1), before);
            // It follows now, and takes part in what the others decide.
            world.net.heal();
            until(&mut world, HEAL, equal).unwrap();
            fresh_write(&mut world, &judge, &key("b-healed")).unwrap();
            assert_eq!(judge.lock().violations, Vec::<String>::new());
        });
        ran.unwrap();
    }
}
