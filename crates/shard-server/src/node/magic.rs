//! How the node's own small files begin: six letters that say what it is, two digits of the format version.
//!
//! Asked only of bytes whose checksum held: a version that rotted is damage and never taken for a newer program's.

/// Why a file cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unusable {
    /// It is not what was written.
    Damaged(&'static str),
    /// A newer program wrote it.
    Newer { version: u8, known: u8 },
}

impl From<&'static str> for Unusable {
    fn from(problem: &'static str) -> Self {
        Self::Damaged(problem)
    }
}

/// Checks that a file begins as it must, or says by what version it was written.
pub(super) fn check(found: &[u8; 8], known: &[u8; 8]) -> Result<(), Unusable> {
    let (kind, version) = split(found);
    let (known_kind, known_version) = split(known);
    match (version, known_version) {
        _ if found == known => Ok(()),
        (Some(version), Some(known)) if kind == known_kind && version > known => {
            Err(Unusable::Newer { version, known })
        }
        _ => Err("it has a format that this program does not know".into()),
    }
}

fn split(magic: &[u8; 8]) -> (&[u8], Option<u8>) {
    let [kind @ .., tens, ones] = magic;
    let digit = |byte: u8| byte.is_ascii_digit().then(|| byte - b'0');
    let version = digit(*tens).zip(digit(*ones));
    (kind, version.map(|(tens, ones)| tens * 10 + ones))
}
