//! Who is known at the moment: one mailbox for each user who is connected or has something unsaved. Everybody else is in the database alone.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crate::sync::Mutex;

use super::mailbox::Mailbox;
use super::seqs::Seqs;

/// Safe from any thread.
#[derive(Default)]
pub struct Registry {
    mailboxes: Mutex<HashMap<Arc<str>, Arc<Mailbox>>>, // lock: gate → registry → mailbox → outbox
}

impl Registry {
    /// The mailbox of the user with this key; a new one is not loaded yet.
    pub fn mailbox(&self, key: &Arc<str>) -> Arc<Mailbox> {
        let mut mailboxes = self.mailboxes.lock();
        if let Some(mailbox) = mailboxes.get(key) {
            return mailbox.clone();
        }
        let mailbox = Arc::new(Mailbox::new(key.clone()));
        mailboxes.insert(key.clone(), mailbox.clone());
        mailbox
    }

    /// The mailbox of the user with this key, if it is in memory.
    pub fn peek(&self, key: &str) -> Option<Arc<Mailbox>> {
        self.mailboxes.lock().get(key).cloned()
    }

    /// Lets a mailbox go that nobody needs. The caller's is the only other reference to it, or it stays.
    pub(crate) fn release(&self, mailbox: Arc<Mailbox>, seqs: &Seqs) {
        let mut mailboxes = self.mailboxes.lock();
        // Two references, the registry's and ours: under this lock nobody can get a third.
        if Arc::strong_count(&mailbox) == 2
            && let Some(last) = mailbox.is_idle()
        {
            seqs.retire(last);
            mailboxes.remove(mailbox.key());
        }
        // Still under the lock: of two who let go at the same time the second must see that it is the last.
        drop(mailbox);
    }

    /// All mailboxes in memory that know what waits.
    pub(crate) fn loaded(&self) -> Vec<Arc<Mailbox>> {
        self.mailboxes.lock().values().filter(|mailbox| mailbox.is_loaded()).cloned().collect()
    }

    /// All mailboxes in memory: 12,000 take half a millisecond. Let each go with `Delivery::release`.
    pub fn all(&self) -> Vec<Arc<Mailbox>> {
        self.mailboxes.lock().values().cloned().collect()
    }

    /// Whether its lock can be had within `patience`.
    pub fn responds(&self, patience: Duration) -> bool {
        self.mailboxes.try_lock_for(patience).is_some()
    }

    /// Number of mailboxes in memory.
    pub fn len(&self) -> usize {
        self.mailboxes.lock().len()
    }

    /// No mailbox is in memory.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mailbox_leaves_with_the_last_who_lets_it_go() {
        let (registry, seqs, key) = (Registry::default(), Seqs::new(0, 0), Arc::from("bob"));
        let (first, second) = (registry.mailbox(&key), registry.mailbox(&key));
        registry.release(first, &seqs);
        assert_eq!(registry.len(), 1, "somebody has it still");
        registry.release(second, &seqs);
        assert!(registry.is_empty());
    }
}
