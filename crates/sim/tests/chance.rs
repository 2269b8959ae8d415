//! Whether chance and time are really in our hands: what libraries draw behind our back depends on the thread's name alone.

#![expect(clippy::unwrap_used, reason = "a test helper may panic")]

use std::collections::HashSet;
use std::hash::{BuildHasher as _, RandomState};

fn drawn(name: &str) -> (u64, Vec<u32>, u64, bool) {
    let thread = std::thread::Builder::new().name(name.to_owned());
    let draw = || {
        let hashed = RandomState::new().hash_one("a word");
        let order: HashSet<u32> = (0..1_000).collect();
        // The generator of libraries that look the function up at run time.
        let random = runtime::Runtime::real().random_u64();
        (hashed, order.into_iter().collect(), random, clock_stands())
    };
    thread.spawn(draw).unwrap().join().unwrap()
}

#[expect(clippy::disallowed_types, reason = "the clock itself is under test")]
fn clock_stands() -> bool {
    let begun = std::time::Instant::now();
    let wall = std::time::SystemTime::now();
    let mut waste = 0_u64;
    for number in 0..3_000_000 {
        waste = std::hint::black_box(waste ^ number);
    }
    begun == std::time::Instant::now() && wall == std::time::SystemTime::now()
}

#[test]
fn a_seed_draws_the_same_again_and_another_seed_does_not() {
    let one = drawn("seed-1");
    assert_eq!(one, drawn("seed-1"));
    assert!(one.3, "the clock of a simulation moves");
    let other = drawn("seed-2");
    assert_ne!((one.0, one.2), (other.0, other.2));
}

#[test]
fn other_threads_are_left_alone() {
    let one = drawn("ordinary");
    let other = drawn("ordinary");
    assert_ne!((one.0, one.2), (other.0, other.2));
    assert!(!one.3, "the clock stands");
}
