//! The file of `--config`.

use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use vfs::{RealDisk, Vfs};

use crate::Problems;

/// Bytes that a configuration file may have. Nothing larger is read into memory.
pub const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// Why a file's settings cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It is not there, too large or not readable.
    #[error(transparent)]
    Disk(#[from] vfs::Error),
    /// It is no text.
    #[error("{} is not UTF-8", path.display())]
    Encoding {
        /// The file.
        path: PathBuf,
    },
    /// It is not TOML, or says something that cannot be set.
    #[error("{}: {problem}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong, with the line.
        problem: String,
    },
}

/// What the file says, or nothing where none was named. What is wrong with it goes to `problems`, under `config`.
pub fn file_layer<T: DeserializeOwned + Default>(
    path: Option<&Path>,
    problems: &mut Problems,
) -> T {
    path.and_then(|path| problems.keep("config", read(&RealDisk::new(), path)))
        .unwrap_or_default()
}

fn read<T: DeserializeOwned>(disk: &dyn Vfs, path: &Path) -> Result<T, FileError> {
    let bytes = vfs::durable::read(disk, path, FILE_BYTES_MAX)?;
    let text = String::from_utf8(bytes).map_err(|_| FileError::Encoding {
        path: path.to_owned(),
    })?;
    toml::from_str(&text).map_err(|error| FileError::Content {
        path: path.to_owned(),
        problem: error.to_string().trim_end().to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    type Any = BTreeMap<String, u32>;

    fn read_bytes(bytes: &[u8]) -> Result<Any, FileError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("server.toml");
        vfs::durable::replace(&RealDisk::new(), &path, bytes).unwrap();
        read(&RealDisk::new(), &path)
    }

    #[test]
    fn a_file_is_read_as_toml() {
        let read = read_bytes(b"# a comment\nshards = 5\n").unwrap();
        assert_eq!(read, Any::from([("shards".to_owned(), 5)]));
    }

    #[test]
    fn what_is_no_text_or_no_toml_is_refused_with_its_place() {
        assert!(matches!(
            read_bytes(b"a = \"\xff\"").unwrap_err(),
            FileError::Encoding { .. }
        ));
        let problem = read_bytes(b"a = 1\nb = \n").unwrap_err().to_string();
        assert!(problem.contains("server.toml"), "{problem}");
        assert!(problem.contains("line 2"), "{problem}");
    }

    #[test]
    fn a_file_has_a_largest_size() {
        let largest = usize::try_from(FILE_BYTES_MAX).unwrap();
        let mut bytes = vec![b'\n'; largest];
        assert_eq!(read_bytes(&bytes).unwrap(), Any::new());
        bytes.push(b'\n');
        assert!(matches!(
            read_bytes(&bytes).unwrap_err(),
            FileError::Disk(_)
        ));
    }

    #[test]
    fn a_file_that_is_not_there_is_a_problem_and_no_file_is_none() {
        let mut problems = Problems::default();
        assert_eq!(file_layer::<Any>(None, &mut problems), Any::new());
        assert!(problems.0.is_empty());
        let nowhere = Path::new("/nowhere/at/all.toml");
        assert_eq!(file_layer::<Any>(Some(nowhere), &mut problems), Any::new());
        assert_eq!(problems.0.len(), 1);
        assert_eq!(problems.0[0].option, "config");
        assert!(problems.0[0].text.contains("/nowhere/at/all.toml"));
    }
}
