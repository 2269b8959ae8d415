//! A 64-bit fingerprint of a payload, to tell a retry from another request under the same id.
//!
//! It is XXH64 with seed 0, after its public specification, over the parts of the payload, each behind its length as 8
//! little-endian bytes. Fingerprints are stored in logs and snapshots, so it never changes. It is no protection against an adversary, who could
//! at most spoil a retry of his own.

const PRIME_1: u64 = 0x9E37_79B1_85EB_CA87;
const PRIME_2: u64 = 0xC2B2_AE3D_27D4_EB4F;
const PRIME_3: u64 = 0x1656_67B1_9E37_79F9;
const PRIME_4: u64 = 0x85EB_CA77_C2B2_AE63;
const PRIME_5: u64 = 0x27D4_EB2F_1656_67C5;

const STRIPE: usize = 32;

/// The fingerprint of a payload of several parts. Where one part ends and the next begins makes a difference.
#[must_use]
pub fn fingerprint<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> u64 {
    parts
        .into_iter()
        .fold(Fingerprint::default(), Fingerprint::part)
        .finish()
}

/// Takes the parts of a payload one after another.
#[derive(Debug, Clone)]
pub struct Fingerprint {
    lanes: [u64; 4],
    waiting: [u8; STRIPE],
    waiting_len: usize,
    total_len: u64,
}

impl Default for Fingerprint {
    fn default() -> Self {
        Self {
            lanes: [
                PRIME_1.wrapping_add(PRIME_2),
                PRIME_2,
                0,
                0_u64.wrapping_sub(PRIME_1),
            ],
            waiting: [0; STRIPE],
            waiting_len: 0,
            total_len: 0,
        }
    }
}

impl Fingerprint {
    /// Adds a part, behind its length.
    #[must_use]
    pub fn part(mut self, bytes: &[u8]) -> Self {
        self.write(&(bytes.len() as u64).to_le_bytes());
        self.write(bytes);
        self
    }

    /// Adds a number, in 8 bytes without a length.
    #[must_use]
    pub fn number(mut self, number: u64) -> Self {
        self.write(&number.to_le_bytes());
        self
    }

    /// The fingerprint of what was added.
    #[must_use]
    pub fn finish(self) -> u64 {
        let [a, b, c, d] = self.lanes;
        let mut hash = if self.total_len < STRIPE as u64 {
            PRIME_5
        } else {
            let sum = [(a, 1), (b, 7), (c, 12), (d, 18)]
                .iter()
                .fold(0_u64, |sum, &(lane, by)| {
                    sum.wrapping_add(lane.rotate_left(by))
                });
            [a, b, c, d].into_iter().fold(sum, |sum, lane| {
                (sum ^ round(0, lane))
                    .wrapping_mul(PRIME_1)
                    .wrapping_add(PRIME_4)
            })
        };
        hash = hash.wrapping_add(self.total_len);
        let (waiting, _) = self.waiting.split_at(self.waiting_len);
        let (words, rest) = waiting.as_chunks::<8>();
        for word in words {
            hash = (hash ^ round(0, u64::from_le_bytes(*word)))
                .rotate_left(27)
                .wrapping_mul(PRIME_1)
                .wrapping_add(PRIME_4);
        }
        let (halves, rest) = rest.as_chunks::<4>();
        for half in halves {
            let half = u64::from(u32::from_le_bytes(*half));
            hash = (hash ^ half.wrapping_mul(PRIME_1))
                .rotate_left(23)
                .wrapping_mul(PRIME_2)
                .wrapping_add(PRIME_3);
        }
        for &byte in rest {
            hash = (hash ^ u64::from(byte).wrapping_mul(PRIME_5))
                .rotate_left(11)
                .wrapping_mul(PRIME_1);
        }
        hash = (hash ^ hash >> 33).wrapping_mul(PRIME_2);
        hash = (hash ^ hash >> 29).wrapping_mul(PRIME_3);
        hash ^ hash >> 32
    }

    fn write(&mut self, mut bytes: &[u8]) {
        self.total_len = self.total_len.wrapping_add(bytes.len() as u64);
        while !bytes.is_empty() {
            let (_, free) = self.waiting.split_at_mut(self.waiting_len);
            let take = free.len().min(bytes.len());
            let (taken, left) = bytes.split_at(take);
            let (filled, _) = free.split_at_mut(take);
            filled.copy_from_slice(taken);
            bytes = left;
            self.waiting_len += take;
            if self.waiting_len == STRIPE {
                let (words, _) = self.waiting.as_chunks::<8>();
                for (lane, word) in self.lanes.iter_mut().zip(words) {
                    *lane = round(*lane, u64::from_le_bytes(*word));
                }
                self.waiting_len = 0;
            }
        }
    }
}

fn round(lane: u64, word: u64) -> u64 {
    lane.wrapping_add(word.wrapping_mul(PRIME_2))
        .rotate_left(31)
        .wrapping_mul(PRIME_1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(bytes: &[u8]) -> u64 {
        let mut state = Fingerprint::default();
        state.write(bytes);
        state.finish()
    }

    #[test]
    fn published_values_of_the_hash() {
        assert_eq!(raw(b""), 0xEF46_DB37_51D8_E999);
        assert_eq!(raw(b"a"), 0xD24E_C4F1_A98C_6E5B);
        assert_eq!(raw(b"abc"), 0x44BC_2CF5_AD77_0999);
        assert_eq!(
            raw(b"Nobody inspects the spammish repetition"),
            0xFBCE_A83C_8A37_8BF1
        );
    }

    #[test]
    fn values_that_logs_already_hold() {
        assert_eq!(fingerprint([]), 0xEF46_DB37_51D8_E999);
        assert_eq!(
            Fingerprint::default().part(b"paris").number(3).finish(),
            fingerprint_of_paris()
        );
    }

    /// Spelled out by hand: length, text, number.
    fn fingerprint_of_paris() -> u64 {
        raw(b"\x05\0\0\0\0\0\0\0paris\x03\0\0\0\0\0\0\0")
    }

    #[test]
    fn borders_and_order_of_parts_count() {
        let whole = fingerprint([b"ab".as_slice(), b"c"]);
        assert_ne!(whole, fingerprint([b"a".as_slice(), b"bc"]));
        assert_ne!(whole, fingerprint([b"abc".as_slice()]));
        assert_ne!(whole, fingerprint([b"c".as_slice(), b"ab"]));
    }

    #[test]
    fn how_the_bytes_arrive_does_not_matter() {
        let bytes: Vec<u8> = (0..=255).collect();
        for cut in 0..bytes.len() {
            let mut state = Fingerprint::default();
            state.write(&bytes[..cut]);
            state.write(&bytes[cut..]);
            assert_eq!(state.finish(), raw(&bytes));
        }
    }
}
