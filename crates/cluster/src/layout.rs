//! How the terms of a namespace are spread over shards.

use crate::{KeyRange, ShardId, limits};

/// Why a map or a layout cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MapError {
    /// A layout without ranges.
    #[error("a layout needs at least one range")]
    NoRanges,
    /// The first range must start at the empty term.
    #[error("the first range starts at {start:?}, not at the empty term")]
    FirstStart {
        /// Where it starts.
        start: String,
    },
    /// Starts must ascend strictly.
    #[error("the range that starts at {start:?} does not lie behind the one before it")]
    Order {
        /// The start that is out of order.
        start: String,
    },
    /// More shards than a cluster may have.
    #[error("{shards} shards, at most {limit} are allowed", limit = limits::SHARDS_MAX)]
    TooManyShards {
        /// How many were asked for.
        shards: usize,
    },
    /// The name of the field and what is wrong with it, from decoding.
    #[error("{field}: {problem}")]
    Malformed {
        /// The field of the message.
        field: &'static str,
        /// What is wrong.
        problem: String,
    },
}

/// Sorted start terms with their shards; each range ends where the next begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    ranges: Vec<(String, ShardId)>,
}

impl Layout {
    /// A layout of the given starts.
    ///
    /// # Errors
    /// When the ranges do not tile the space of terms, or are too many.
    pub fn new(ranges: Vec<(String, ShardId)>) -> Result<Self, MapError> {
        let Some((first, _)) = ranges.first() else {
            return Err(MapError::NoRanges);
        };
        if !first.is_empty() {
            return Err(MapError::FirstStart {
                start: first.clone(),
            });
        }
        if ranges.len() > limits::SHARDS_MAX {
            return Err(MapError::TooManyShards {
                shards: ranges.len(),
            });
        }
        for pair in ranges.windows(2) {
            if let [(before, _), (start, _)] = pair
                && start <= before
            {
                return Err(MapError::Order {
                    start: start.clone(),
                });
            }
        }
        Ok(Self { ranges })
    }

    /// The default split points for `shards` shards: English query text spreads about evenly.
    ///
    /// # Errors
    /// When `shards` is 0 or above [`limits::SHARDS_MAX`].
    pub fn for_english(shards: usize) -> Result<Self, MapError> {
        if shards == 0 {
            return Err(MapError::NoRanges);
        }
        if shards > limits::SHARDS_MAX {
            return Err(MapError::TooManyShards { shards });
        }
        let starts =
            std::iter::once(String::new()).chain((1..shards).map(|i| split_point(i, shards)));
        let shard_ids = (1..).map(ShardId);
        Self::new(starts.zip(shard_ids).collect())
    }

    /// The ranges in order, with their owners.
    pub fn iter(&self) -> impl Iterator<Item = (KeyRange, ShardId)> + '_ {
        self.within(KeyRange::full())
    }

    /// What of a range each shard owns, in order.
    fn within(&self, whole: KeyRange) -> impl Iterator<Item = (KeyRange, ShardId)> + '_ {
        let starts = self.ranges.iter().map(|(start, _)| start.as_str());
        let ends = starts.skip(1).map(Some).chain(std::iter::once(None));
        let ranges = self.ranges.iter().zip(ends);
        ranges.filter_map(move |((start, shard), end)| Some((whole.clipped(start, end)?, *shard)))
    }

    /// The shard that owns a term.
    #[must_use]
    pub fn owner(&self, term: &str) -> ShardId {
        let behind = self
            .ranges
            .partition_point(|(start, _)| start.as_str() <= term);
        // The first start is "", which lies at or before every term, so `behind` is at least 1.
        self.ranges
            .get(behind.saturating_sub(1))
            .map_or(ShardId(0), |(_, shard)| *shard)
    }

    /// The shard of which one range holds all terms of another; `None` where several ranges share them.
    #[must_use]
    pub fn owner_of_all(&self, wanted: &KeyRange) -> Option<ShardId> {
        let behind = self
            .ranges
            .partition_point(|(start, _)| start.as_str() <= wanted.start());
        let ends_before = |next: &str| wanted.end().is_some_and(|end| end <= next);
        let next = self.ranges.get(behind);
        let (_, owner) = self.ranges.get(behind.checked_sub(1)?)?;
        next.is_none_or(|(next, _)| ends_before(next))
            .then_some(*owner)
    }

    /// The shards that own terms below a prefix, in order, each with the part of the prefix's range that it owns.
    #[must_use]
    pub fn cover(&self, prefix: &str) -> Vec<(KeyRange, ShardId)> {
        let whole = KeyRange::of_prefix(prefix);
        // So it is with nearly every prefix.
        if let Some(owner) = self.owner_of_all(&whole) {
            return vec![(whole, owner)];
        }
        self.within(whole).collect()
    }

    /// The ranges that a shard owns, in order.
    #[must_use]
    pub fn ranges_of(&self, shard: ShardId) -> Vec<KeyRange> {
        self.iter()
            .filter_map(|(range, owner)| (owner == shard).then_some(range))
            .collect()
    }

    /// Start terms and owners, as they are kept.
    #[must_use]
    pub fn starts(&self) -> &[(String, ShardId)] {
        &self.ranges
    }
}

/// Where the part numbered `part` of `parts` even parts of English query text begins. Each letter divides what the
/// letters before it left, until the point is met within a fiftieth of a part.
fn split_point(part: usize, parts: usize) -> String {
    let target = part as f64 / parts as f64;
    let tolerance = 0.02 / parts as f64;
    let (mut low, mut width) = (0.0, 1.0);
    let mut text = String::new();
    for _ in 0..SPLIT_LETTERS_MAX {
        let mut letter = '0';
        let mut letter_low = low;
        let mut letter_width = 0.0;
        for (next, share) in LETTERS {
            letter_low += letter_width;
            (letter, letter_width) = (next, share * width);
            if target < letter_low + letter_width {
                break;
            }
        }
        text.push(letter);
        (low, width) = (letter_low, letter_width);
        if target - low < tolerance {
            break;
        }
    }
    text
}

/// Three letters tell 27^3 points apart, far more than shards can be.
const SPLIT_LETTERS_MAX: usize = 3;

/// Shares of the distinct queries of a public sample of web searches (TREC 2005 efficiency topics) by their first
/// character, digits and signs counted at '0', in thousandths. The same shares stand in for the letters that follow.
const LETTERS: [(char, f64); 27] = [
    ('0', 0.015),
    ('a', 0.062),
    ('b', 0.064),
    ('c', 0.090),
    ('d', 0.046),
    ('e', 0.026),
    ('f', 0.049),
    ('g', 0.034),
    ('h', 0.053),
    ('i', 0.022),
    ('j', 0.023),
    ('k', 0.020),
    ('l', 0.042),
    ('m', 0.066),
    ('n', 0.033),
    ('o', 0.019),
    ('p', 0.065),
    ('q', 0.003),
    ('r', 0.041),
    ('s', 0.086),
    ('t', 0.056),
    ('u', 0.015),
    ('v', 0.015),
    ('w', 0.041),
    ('x', 0.002),
    ('y', 0.008),
    ('z', 0.004),
];

#[cfg(test)]
mod tests;
