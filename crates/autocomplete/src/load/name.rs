//! What names a load, so that its repetition is recognised.

use client::{Client, ClientError};
use cluster::Generation;
use term::NamespaceName;
use tonic::Code;

/// Changes whenever the same file would be cut into other batches.
const BATCHING_VERSION: &str = "autocomplete load, batching version 1";

/// The file, the cluster, the namespace and its generation. A cleared namespace is another one: what was loaded into it is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LoadName {
    digest: [u8; 32],
}

impl LoadName {
    /// The name of loading a file with this hash.
    ///
    /// # Errors
    /// When the cluster does not answer.
    pub(crate) async fn find(
        client: &Client,
        file: blake3::Hash,
        namespace: &NamespaceName,
    ) -> Result<Self, ClientError> {
        let cluster_id = allowed(client.status().await)?.map(|status| status.cluster_id);
        let map = allowed(client.map().await)?;
        let generation = map
            .and_then(|map| map.namespaces.get(namespace).map(|found| found.generation))
            .unwrap_or(Generation::FIRST);
        Ok(Self::new(
            &cluster_id.unwrap_or_default(),
            file,
            namespace,
            generation,
        ))
    }

    pub(super) fn new(
        cluster_id: &[u8],
        file: blake3::Hash,
        namespace: &NamespaceName,
        generation: Generation,
    ) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key(BATCHING_VERSION);
        for part in [cluster_id, file.as_bytes(), namespace.as_str().as_bytes()] {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        hasher.update(&generation.0.to_le_bytes());
        Self {
            digest: *hasher.finalize().as_bytes(),
        }
    }

    /// The client id of the load's writes. `again` is 0 for the first load, and another number whenever the file is meant to count once more.
    pub(super) fn client_id(&self, again: u64) -> [u8; 16] {
        let mut hasher = blake3::Hasher::new_keyed(&self.digest);
        hasher.update(&again.to_le_bytes());
        let mut id = [0; 16];
        hasher.finalize_xof().fill(&mut id);
        id
    }

    /// The name of its state file.
    pub(super) fn file_name(&self) -> String {
        let digest = blake3::Hash::from_bytes(self.digest).to_hex();
        let start: String = digest.chars().take(32).collect();
        format!("load-{start}.json")
    }
}

/// `None` where the cluster does not let everybody ask: the name is then made without that part.
fn allowed<T>(result: Result<T, ClientError>) -> Result<Option<T>, ClientError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(ClientError::Call { error, attempts: _ })
            if matches!(
                error.code(),
                Code::PermissionDenied | Code::Unauthenticated | Code::Unimplemented
            ) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_of_the_name_makes_a_difference() {
        let name = |cluster: &[u8], file: &[u8], namespace: &str, generation| {
            let namespace = NamespaceName::new(namespace).unwrap();
            LoadName::new(
                cluster,
                blake3::hash(file),
                &namespace,
                Generation(generation),
            )
        };
        let base = name(b"c", b"f", "n", 1);
        assert_eq!(base, name(b"c", b"f", "n", 1));
        let others = [
            name(b"d", b"f", "n", 1),
            name(b"c", b"g", "n", 1),
            name(b"c", b"f", "m", 1),
            name(b"c", b"f", "n", 2),
        ];
        for other in others {
            assert_ne!(base.client_id(0), other.client_id(0));
            assert_ne!(base.file_name(), other.file_name());
        }
        assert_ne!(base.client_id(0), base.client_id(1));
        assert_eq!(base.client_id(1), base.client_id(1));
    }
}
