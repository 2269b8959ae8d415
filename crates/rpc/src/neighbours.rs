//! Services of the same process, called without a socket.
//!
//! Where several servers share a process, each opens a door under the address by which others reach it; whoever is about to call that
//! address looks here first. What always holds: a door is open only while its server serves, and says what the server would say. What a
//! socket brings of its own (message limits, load shedding, the end of a panic) is the business of the server that calls on.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use parking_lot::RwLock;

/// Open doors by address; clones share them. `S` is the service as its callers see it.
pub struct Neighbours<S: ?Sized>(Arc<RwLock<HashMap<String, Arc<S>>>>);

impl<S: ?Sized> Neighbours<S> {
    /// Lets calls in until the returned door is dropped. A door that was open at this address leads to the new service from now on.
    #[must_use]
    pub fn open(&self, address: &str, service: Arc<S>) -> Door<S> {
        let known = Arc::clone(&service);
        self.0.write().insert(address.to_owned(), service);
        Door {
            neighbours: self.clone(),
            address: address.to_owned(),
            service: known,
        }
    }

    /// Whether no server of this process has a door open.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.read().is_empty()
    }

    /// The service at an address, if it is in this process.
    #[must_use]
    pub fn get(&self, address: &str) -> Option<Arc<S>> {
        self.0.read().get(address).map(Arc::clone)
    }
}

impl<S: ?Sized> Clone for Neighbours<S> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<S: ?Sized> Default for Neighbours<S> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<S: ?Sized> fmt::Debug for Neighbours<S> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let doors = self.0.read();
        formatter.debug_set().entries(doors.keys()).finish()
    }
}

/// An open door; closed when this is dropped. Calls that are inside go on.
pub struct Door<S: ?Sized> {
    neighbours: Neighbours<S>,
    address: String,
    service: Arc<S>,
}

impl<S: ?Sized> fmt::Debug for Door<S> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Door")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

impl<S: ?Sized> Drop for Door<S> {
    fn drop(&mut self) {
        let mut doors = self.neighbours.0.write();
        // Another server may have come to this address since.
        let is_ours = |open: &Arc<S>| Arc::ptr_eq(open, &self.service);
        if doors.get(&self.address).is_some_and(is_ours) {
            doors.remove(&self.address);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_door_is_open_until_it_is_dropped() {
        let neighbours: Neighbours<str> = Neighbours::default();
        let first = neighbours.open("a:1", Arc::from("first"));
        assert_eq!(neighbours.get("a:1").as_deref(), Some("first"));
        assert!(neighbours.get("a:2").is_none());
        let second = neighbours.clone().open("a:1", Arc::from("second"));
        drop(first);
        assert_eq!(neighbours.get("a:1").as_deref(), Some("second"));
        assert!(!neighbours.is_empty());
        drop(second);
        assert!(neighbours.get("a:1").is_none());
        assert!(neighbours.is_empty());
    }
}
