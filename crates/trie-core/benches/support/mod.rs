//! Terms to measure with: a file of `term<TAB>count` lines, or generated ones where there is none.

use std::fs::File;
use std::io::{BufRead, BufReader};

/// Where terms come from. Read again for each pass, so that they are not in memory while that is measured.
pub(crate) enum Source {
    File(String),
    /// This many terms, made from their number.
    Generated(u64),
}

impl Source {
    /// The file if there is one, else generated terms.
    pub(crate) fn new(file: Option<String>, generated: u64) -> Self {
        file.map_or(Self::Generated(generated), Self::File)
    }

    /// Calls `each` with up to `max` terms and their counts.
    pub(crate) fn for_each(&self, max: u64, mut each: impl FnMut(&[u8], u64)) {
        match self {
            Self::File(path) => {
                let file = File::open(path).expect("the file of terms can be opened");
                let mut input = BufReader::with_capacity(1 << 16, file);
                let mut line = Vec::new();
                for _ in 0..max {
                    line.clear();
                    if input
                        .read_until(b'\n', &mut line)
                        .expect("the file of terms can be read")
                        == 0
                    {
                        break;
                    }
                    let text = line.strip_suffix(b"\n").unwrap_or(&line);
                    let tab = text
                        .iter()
                        .rposition(|&byte| byte == b'\t')
                        .expect("a tab before the count");
                    let count = std::str::from_utf8(&text[tab + 1..])
                        .expect("a count")
                        .parse()
                        .expect("a count");
                    each(&text[..tab], count);
                }
            }
            Self::Generated(terms) => {
                let mut term = String::new();
                for n in 0..(*terms).min(max) {
                    generate(n, &mut term);
                    each(
                        term.as_bytes(),
                        scatter(n) % 64 / 60 * (scatter(n) % 9_000) + 1,
                    );
                }
            }
        }
    }
}

/// Two or three made-up words, the same for the same number, mostly different for different ones.
fn generate(n: u64, term: &mut String) {
    const SYLLABLES: [&str; 32] = [
        "ba", "ne", "ri", "to", "lu", "ma", "ke", "si", "do", "fu", "pa", "ve", "li", "no", "gu",
        "ra", "te", "mi", "so", "hu", "la", "de", "ni", "co", "bu", "sha", "tre", "ing", "ston",
        "er", "an", "st",
    ];
    term.clear();
    let mut bits = scatter(n);
    for word in 0..2 + n % 2 {
        if word > 0 {
            term.push(' ');
        }
        for _ in 0..2 + bits % 3 {
            bits = scatter(bits);
            term.push_str(SYLLABLES[(bits % 32 * (bits >> 8) % 32 % 32) as usize]);
        }
    }
}

/// Deterministic numbers that look random.
pub(crate) fn scatter(n: u64) -> u64 {
    let mut x = n.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// Terms to work with: drawn alike, or in proportion to their counts.
pub(crate) struct Samples {
    pub(crate) uniform: Vec<Vec<u8>>,
    pub(crate) hot: Vec<Vec<u8>>,
}

impl Samples {
    /// Draws `len` of each from the first `terms` terms, whose counts add up to `total`.
    pub(crate) fn draw(source: &Source, terms: u64, total: u64, len: u64) -> Self {
        let positions = |below: u64, seed: u64| {
            let mut out: Vec<(u64, u64)> = (0..len)
                .map(|i| (scatter(seed + i) % below.max(1), i))
                .collect();
            out.sort_unstable();
            out
        };
        let (by_term, by_count) = (positions(terms, 1 << 40), positions(total, 1 << 50));
        let mut out = Self {
            uniform: vec![Vec::new(); len as usize],
            hot: vec![Vec::new(); len as usize],
        };
        let (mut next_term, mut next_count) = (0, 0);
        let (mut seen, mut sum) = (0, 0);
        source.for_each(terms, |term, count| {
            seen += 1;
            sum += count;
            while by_term.get(next_term).is_some_and(|&(at, _)| at < seen) {
                out.uniform[by_term[next_term].1 as usize] = term.to_vec();
                next_term += 1;
            }
            while by_count.get(next_count).is_some_and(|&(at, _)| at < sum) {
                out.hot[by_count[next_count].1 as usize] = term.to_vec();
                next_count += 1;
            }
        });
        out
    }
}

/// What somebody has typed on the way to `term`: `i` says how far.
pub(crate) fn typed(term: &[u8], i: usize) -> &[u8] {
    &term[..1 + i % term.len()]
}
