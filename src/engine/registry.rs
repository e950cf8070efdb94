use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::domain::{Client, ClientBook, ClientChange, ClientId};

/// The registered clients: those of the file, and beside them those that come one change at a time.
#[derive(Default)]
pub struct Registry {
    /// `None`: there is no file.
    file: Option<Arc<ClientBook>>,
    further: HashMap<ClientId, Arc<Client>>,
    /// Both. Where both have a client, the file's counts.
    all: Option<Arc<ClientBook>>,
    /// Those that both have, which has been told.
    in_both: HashSet<ClientId>,
}

impl Registry {
    pub fn new(file: Option<&Arc<ClientBook>>) -> Self {
        Self { file: file.cloned(), all: file.cloned(), ..Self::default() }
    }

    pub fn all(&self) -> Option<&Arc<ClientBook>> {
        self.all.as_ref()
    }

    /// Whether the file has this client, which then counts.
    pub fn in_file(&self, id: &str) -> bool {
        self.file.as_ref().is_some_and(|file| file.get(id).is_some())
    }

    pub fn set_file(&mut self, file: Option<&Arc<ClientBook>>) {
        self.file = file.cloned();
        self.all = self.file.clone();
        let further = self.further.values().map(|client| ClientChange::Put(Arc::clone(client)));
        let further: Vec<_> = further.collect();
        if !further.is_empty() {
            self.put_beside_file(further);
        }
    }

    /// Costs the same however many clients there are.
    pub fn change(&mut self, changes: Vec<ClientChange>) {
        for change in &changes {
            match change {
                ClientChange::Put(client) => {
                    self.further.insert(client.id.clone(), Arc::clone(client));
                }
                ClientChange::Remove(id) => {
                    self.further.remove(id);
                }
            }
        }
        self.put_beside_file(changes);
    }

    fn put_beside_file(&mut self, changes: Vec<ClientChange>) {
        let mut beside = Vec::with_capacity(changes.len());
        for change in changes {
            let (id, put) = match &change {
                ClientChange::Put(client) => (&client.id, true),
                ClientChange::Remove(id) => (id, false),
            };
            if !self.in_file(id.as_str()) {
                self.in_both.remove(id);
                beside.push(change);
            } else if !put {
                self.in_both.remove(id);
            } else if self.in_both.insert(id.clone()) {
                tracing::warn!(
                    client = %id,
                    "registered in the state and in clients.yaml, which counts; take it out of one \
                     of them"
                );
            }
        }
        let all = self.all.as_deref().cloned().unwrap_or_default().with(beside);
        self.all = Some(Arc::new(all));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(id: &str, approved: bool) -> Client {
        Client { approved, ..Client::new(ClientId::parse(id).unwrap()) }
    }

    fn put(id: &str, approved: bool) -> ClientChange {
        ClientChange::Put(Arc::new(client(id, approved)))
    }

    fn file(clients: impl IntoIterator<Item = Client>) -> Option<Arc<ClientBook>> {
        Some(Arc::new(clients.into_iter().collect()))
    }

    #[test]
    fn the_file_counts_before_what_comes_beside_it() {
        let mut registry = Registry::new(file([client("a", false)]).as_ref());
        let approved = |registry: &Registry, id: &str| {
            registry.all().and_then(|all| all.get(id).map(|client| client.approved))
        };
        registry.change(vec![put("a", true), put("b", true)]);
        assert_eq!(["a", "b"].map(|id| approved(&registry, id)), [Some(false), Some(true)]);
        let in_both = |registry: &Registry| registry.in_both.len();
        registry.set_file(file([client("a", false)]).as_ref());
        assert_eq!(in_both(&registry), 1);
        registry.change(vec![ClientChange::Remove(ClientId::parse("a").unwrap()), put("b", false)]);
        assert_eq!(["a", "b"].map(|id| approved(&registry, id)), [Some(false), Some(false)]);
        assert_eq!(in_both(&registry), 0, "it is told again if it comes back");
        registry.set_file(file([client("c", true)]).as_ref());
        assert_eq!(
            ["a", "b", "c"].map(|id| approved(&registry, id)),
            [None, Some(false), Some(true)]
        );
        registry.set_file(None);
        assert_eq!(registry.all().unwrap().len(), 1);
        assert!(Registry::new(None).all().is_none());
    }
}
