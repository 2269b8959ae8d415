//! How a display form is kept beside its term.
//!
//! Most display forms differ from the key in capitals alone. Such a form is kept as a mask: bit `i`
//! (low bits first) says that byte `i` of the term, an ASCII letter, changes its case; zero bytes at the end are
//! left out. Any other form is kept as it is. The code is `varint(payload length * 2 + is mask)`, then the
//! payload.

use crate::varint;

/// The bit by which the two cases of an ASCII letter differ.
const CASE_BIT: u8 = 0x20;

/// A display form in coded shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Display<'a> {
    is_mask: bool,
    payload: &'a [u8],
}

/// Appends the code of `display`, the display form of `term`.
pub(crate) fn put(out: &mut Vec<u8>, term: &[u8], display: &[u8]) {
    if !term.eq_ignore_ascii_case(display) {
        varint::put(out, (display.len() as u64) << 1);
        out.extend_from_slice(display);
        return;
    }
    let used = term
        .iter()
        .zip(display)
        .rposition(|(a, b)| a != b)
        .map_or(0, |last| last / 8 + 1);
    varint::put(out, (used as u64) << 1 | 1);
    let start = out.len();
    out.resize(start + used, 0);
    for (i, (a, b)) in term.iter().zip(display).enumerate() {
        if a != b {
            out[start + i / 8] |= 1 << (i % 8);
        }
    }
}

impl<'a> Display<'a> {
    /// Reads a code at `at` and moves `at` behind it. `None` if it is cut off.
    pub(crate) fn get(bytes: &'a [u8], at: &mut usize) -> Option<Self> {
        let head = varint::get(bytes, at)?;
        let end = at.checked_add(usize::try_from(head >> 1).ok()?)?;
        let payload = bytes.get(*at..end)?;
        *at = end;
        Some(Self {
            is_mask: head & 1 == 1,
            payload,
        })
    }

    /// Appends the same code again.
    pub(crate) fn put_again(self, out: &mut Vec<u8>) {
        varint::put(
            out,
            (self.payload.len() as u64) << 1 | u64::from(self.is_mask),
        );
        out.extend_from_slice(self.payload);
    }

    /// Length of the display form of a term of `term_len` bytes.
    pub(crate) fn len_for(self, term_len: usize) -> usize {
        if self.is_mask {
            term_len
        } else {
            self.payload.len()
        }
    }

    /// The display form of `term`.
    pub(crate) fn of(self, term: &[u8]) -> Vec<u8> {
        if !self.is_mask {
            return self.payload.to_vec();
        }
        let mut out = term.to_vec();
        for (i, byte) in out.iter_mut().enumerate() {
            let bits = self.payload.get(i / 8).copied().unwrap_or(0);
            if bits >> (i % 8) & 1 == 1 {
                *byte ^= CASE_BIT;
            }
        }
        out
    }

    /// Whether this is the code that [`put`] makes for some display form of `term`.
    pub(crate) fn is_canonical_for(self, term: &[u8]) -> bool {
        if !self.is_mask {
            return self.payload != term && !term.eq_ignore_ascii_case(self.payload);
        }
        let letters_only = self.payload.iter().enumerate().all(|(i, bits)| {
            (0..8)
                .filter(|bit| bits >> bit & 1 == 1)
                .all(|bit| term.get(i * 8 + bit).is_some_and(u8::is_ascii_alphabetic))
        });
        letters_only && self.payload.last().is_some_and(|&bits| bits != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip(term: &[u8], display: &[u8]) -> usize {
        let mut out = Vec::new();
        put(&mut out, term, display);
        let mut at = 0;
        let code = Display::get(&out, &mut at).unwrap();
        assert_eq!(at, out.len());
        assert_eq!(code.of(term), display);
        assert_eq!(code.len_for(term.len()), display.len());
        assert!(code.is_canonical_for(term));
        let mut again = Vec::new();
        code.put_again(&mut again);
        assert_eq!(again, out);
        out.len()
    }

    #[test]
    fn capitals_cost_a_bit_each() {
        assert_eq!(round_trip(b"new york", b"New York"), 2);
        assert_eq!(round_trip(b"san francisco bay", b"San francisco bay"), 2);
        assert_eq!(round_trip(b"san francisco baY", b"San francisco bay"), 4);
    }

    #[test]
    fn other_forms_are_kept_whole() {
        assert_eq!(round_trip("strasse".as_bytes(), "Straße".as_bytes()), 8);
        assert_eq!(round_trip(b"a", b""), 1);
        assert_eq!(round_trip("é".as_bytes(), "É".as_bytes()), 3);
    }

    #[test]
    fn foreign_codes_are_not_canonical() {
        let mask = Display {
            is_mask: true,
            payload: &[2],
        };
        assert!(!mask.is_canonical_for(b"a"));
        assert!(!mask.is_canonical_for(b"a "));
        assert!(mask.is_canonical_for(b"ab"));
        assert!(
            !Display {
                is_mask: true,
                payload: &[1, 0]
            }
            .is_canonical_for(b"abcdefghij")
        );
        assert!(
            !Display {
                is_mask: true,
                payload: &[]
            }
            .is_canonical_for(b"ab")
        );
        assert!(
            !Display {
                is_mask: false,
                payload: b"AB"
            }
            .is_canonical_for(b"ab")
        );
    }
}
