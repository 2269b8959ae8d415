use super::*;
use proptest::prelude::*;

#[test]
fn the_default_split_tiles_and_names_every_shard_once() {
    for shards in [1, 2, 3, 4, 9, 16, 100, limits::SHARDS_MAX] {
        let layout = Layout::for_english(shards).unwrap();
        let ranges: Vec<KeyRange> = layout.iter().map(|(range, _)| range).collect();
        assert_eq!(ranges.len(), shards);
        assert!(KeyRange::full().is_tiled_by(&ranges));
        let owners: Vec<u64> = layout.iter().map(|(_, shard)| shard.0).collect();
        assert_eq!(owners, (1..=shards as u64).collect::<Vec<_>>());
    }
}

#[test]
fn a_layout_that_does_not_tile_cannot_be_built() {
    let at = |starts: &[&str]| {
        Layout::new(
            starts
                .iter()
                .zip(1..)
                .map(|(start, shard)| ((*start).to_owned(), ShardId(shard)))
                .collect(),
        )
    };
    assert_eq!(at(&[]), Err(MapError::NoRanges));
    assert_eq!(at(&["a"]), Err(MapError::FirstStart { start: "a".into() }));
    assert_eq!(
        at(&["", "m", "m"]),
        Err(MapError::Order { start: "m".into() })
    );
    assert_eq!(
        at(&["", "m", "c"]),
        Err(MapError::Order { start: "c".into() })
    );
    assert!(at(&["", "c", "m"]).is_ok());
}

proptest! {
    #[test]
    fn a_term_is_owned_by_the_shard_whose_range_holds_it(shards in 1usize..40, term in "[0-9a-zß ]{0,6}") {
        let layout = Layout::for_english(shards).unwrap();
        let holders: Vec<ShardId> = layout.iter().filter(|(range, _)| range.contains(&term)).map(|(_, shard)| shard).collect();
        prop_assert_eq!(holders, vec![layout.owner(&term)]);
    }

    #[test]
    fn a_cover_tiles_the_prefix(shards in 1usize..40, prefix in "[a-z]{0,3}") {
        let layout = Layout::for_english(shards).unwrap();
        let cover = layout.cover(&prefix);
        prop_assert!(KeyRange::of_prefix(&prefix).is_tiled_by(cover.iter().map(|(range, _)| range)));
    }

    /// Prefixes that are starts of ranges, or lie beside them, are the rule.
    #[test]
    fn a_cover_is_what_each_range_has_of_the_prefix(cuts in proptest::collection::btree_set("[abc]{1,2}", 0..4), prefix in "[abc\u{10ffff}]{0,3}") {
        let starts = std::iter::once(String::new()).chain(cuts);
        let layout = Layout::new(starts.zip((1..).map(ShardId)).collect()).unwrap();
        let whole = KeyRange::of_prefix(&prefix);
        let parts: Vec<_> = layout.within(whole.clone()).collect();
        let only = match parts.as_slice() {
            [(_, owner)] => Some(*owner),
            _ => None,
        };
        prop_assert_eq!(layout.owner_of_all(&whole), only);
        prop_assert_eq!(layout.cover(&prefix), parts);
    }
}
