//! Namespaces by name: from the map, else from what the registry answered since.
//!
//! The map brings every namespace each second. Between two maps a name that was created, or cleared, is known from the answer of the
//! registry. Entries are dropped when the map has caught up with them, so the cache holds only what is newer than the map.

use std::collections::HashMap;

use api::registry::v1::{ResolveNamespaceRequest, ResolveNamespaceResponse};
use api::{ApiError, Reason};
use cluster::{Generation, Namespace, limits};
use parking_lot::Mutex;
use rpc::Deadline;
use term::NamespaceName;

use super::Node;
use super::view::View;
use crate::state::Scope;

/// Namespaces that are newer than the map.
#[derive(Debug, Default)]
pub(crate) struct Names {
    newer: Mutex<HashMap<NamespaceName, Namespace>>,
    /// Held while the registry is asked, so that many calls about a new name ask once.
    asking: tokio::sync::Mutex<()>,
}

impl Names {
    fn get(&self, name: &NamespaceName, view: &View) -> Option<Namespace> {
        let mapped = view.map().and_then(|map| map.namespaces.get(name));
        let newer = self.newer.lock().get(name).cloned();
        match (mapped, newer) {
            (Some(mapped), Some(newer)) if newer.generation > mapped.generation => Some(newer),
            (Some(mapped), _) => Some(mapped.clone()),
            (None, newer) => newer,
        }
    }

    fn put(&self, namespace: Namespace) {
        let mut names = self.newer.lock();
        if names.len() < limits::NAMESPACES_MAX || names.contains_key(&namespace.name) {
            names.insert(namespace.name.clone(), namespace);
        }
    }

    /// Forgets what a new map knows as well.
    pub(crate) fn caught_up(&self, view: &View) {
        let Some(map) = view.map() else {
            return;
        };
        self.newer.lock().retain(|name, newer| {
            map.namespaces
                .get(name)
                .is_none_or(|mapped| mapped.generation < newer.generation)
        });
    }
}

impl Node {
    /// The dictionary of a name. `None` where it does not exist and was not to be created.
    pub(crate) async fn resolve(
        &self,
        name: &NamespaceName,
        create: bool,
        deadline: Deadline,
    ) -> Result<Option<Scope>, ApiError> {
        let known = || self.names.get(name, &self.view());
        if let Some(known) = known() {
            return Ok(Some(scope(&known)));
        }
        let asking = self.names.asking.lock();
        let _single = deadline.limit(&self.runtime, asking).await?;
        match known() {
            Some(known) => Ok(Some(scope(&known))),
            None => self.ask(name, create, deadline).await,
        }
    }

    /// As [`Node::resolve`], for a name whose generation has turned out to be older than `seen`.
    pub(crate) async fn resolve_again(
        &self,
        name: &NamespaceName,
        seen: Generation,
        deadline: Deadline,
    ) -> Result<Option<Scope>, ApiError> {
        let asking = self.names.asking.lock();
        let _single = deadline.limit(&self.runtime, asking).await?;
        match self.names.get(name, &self.view()) {
            Some(known) if known.generation >= seen => Ok(Some(scope(&known))),
            Some(_) | None => self.ask(name, true, deadline).await,
        }
    }

    async fn ask(
        &self,
        name: &NamespaceName,
        create: bool,
        deadline: Deadline,
    ) -> Result<Option<Scope>, ApiError> {
        let message = ResolveNamespaceRequest {
            name: name.as_str().to_owned(),
            create,
        };
        let answer: ResolveNamespaceResponse = self
            .registry
            .call(deadline, message, |mut client, request| async move {
                client.resolve_namespace(request).await
            })
            .await?;
        let Some(namespace) = resolved(answer)? else {
            return Ok(None);
        };
        let found = scope(&namespace);
        self.names.put(namespace);
        Ok(Some(found))
    }
}

/// The namespace that the registry found, if it did.
pub(crate) fn resolved(answer: ResolveNamespaceResponse) -> Result<Option<Namespace>, ApiError> {
    let found = answer.namespace.map(Namespace::try_from).transpose();
    found.map_err(|error| ApiError::new(Reason::Internal, format!("the registry: {error}")))
}

fn scope(namespace: &Namespace) -> Scope {
    Scope {
        namespace: namespace.id,
        generation: namespace.generation,
    }
}
