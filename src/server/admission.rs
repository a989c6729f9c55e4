//! Who may come in: caps on connections, on connections of one address, and on strangers, who have not logged in yet.
//!
//! A connection holds a ticket; dropping it gives the place back, whatever ended the connection.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::health::{Counter, Counters};

/// Which cap refused a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Full {
    /// As many connections as the machine carries.
    Connections,
    /// As many as one address may have.
    Address,
    /// As many that have not logged in.
    Strangers,
    /// As many of one address that have not logged in.
    AddressStrangers,
}

impl Full {
    /// What counts the connections that it refuses.
    pub fn counter(self, counters: &Counters) -> &Counter {
        match self {
            Full::Connections => &counters.refused_max_connections,
            Full::Address => &counters.refused_max_per_address,
            Full::Strangers => &counters.refused_max_strangers,
            Full::AddressStrangers => &counters.refused_max_strangers_per_address,
        }
    }
}

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Full::Connections => "max_connections is reached",
            Full::Address => "max_per_address is reached",
            Full::Strangers => "max_strangers is reached",
            Full::AddressStrangers => "max_strangers_per_address is reached",
        })
    }
}

/// The caps.
#[derive(Debug, Clone)]
pub struct Caps {
    /// All connections.
    pub connections: usize,
    /// Of one address.
    pub per_address: usize,
    /// Not logged in.
    pub strangers: usize,
    /// Not logged in, of one address.
    pub strangers_per_address: usize,
    /// Addresses without per-address caps.
    pub exempt: Vec<IpAddr>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Count {
    connections: usize,
    strangers: usize,
}

/// Safe from any thread.
pub struct Admission {
    state: Mutex<State>, // lock: a leaf
}

struct State {
    caps: Caps,
    all: Count,
    by_address: HashMap<IpAddr, Count>,
}

impl Admission {
    /// Nobody is in yet.
    pub fn new(caps: Caps) -> Arc<Admission> {
        Arc::new(Admission { state: Mutex::new(State { caps, all: Count::default(), by_address: HashMap::new() }) })
    }

    /// New caps, for connections to come; nobody who is in is sent away.
    pub fn set_caps(&self, change: impl FnOnce(&mut Caps)) {
        change(&mut self.state.lock().caps);
    }

    /// Connections, strangers among them, and the cap on connections.
    pub fn count(&self) -> (usize, usize, usize) {
        let state = self.state.lock();
        (state.all.connections, state.all.strangers, state.caps.connections)
    }

    /// Whether its lock can be had within `patience`.
    pub fn responds(&self, patience: Duration) -> bool {
        self.state.try_lock_for(patience).is_some()
    }

    /// A ticket for a new connection, or the cap that is reached.
    ///
    /// # Errors
    /// The connection is to be closed; nothing was counted.
    pub fn admit(self: &Arc<Admission>, address: IpAddr) -> Result<Ticket, Full> {
        let address = address.to_canonical();
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let caps = &state.caps;
        let here = state.by_address.get(&address).copied().unwrap_or_default();
        let is_exempt = caps.exempt.contains(&address);
        match () {
            () if state.all.connections >= caps.connections => return Err(Full::Connections),
            () if state.all.strangers >= caps.strangers => return Err(Full::Strangers),
            () if !is_exempt && here.connections >= caps.per_address => return Err(Full::Address),
            () if !is_exempt && here.strangers >= caps.strangers_per_address => {
                return Err(Full::AddressStrangers);
            }
            () => {}
        }
        state.all.connections += 1;
        state.all.strangers += 1;
        let here = state.by_address.entry(address).or_default();
        here.connections += 1;
        here.strangers += 1;
        Ok(Ticket { admission: self.clone(), address, is_stranger: true })
    }

    fn leave(&self, address: IpAddr, connections: usize, strangers: usize) {
        let mut state = self.state.lock();
        state.all.connections -= connections;
        state.all.strangers -= strangers;
        let here = state.by_address.entry(address).or_default();
        here.connections -= connections;
        here.strangers -= strangers;
        if here.connections == 0 {
            state.by_address.remove(&address);
        }
    }
}

/// A place among the connections.
pub struct Ticket {
    admission: Arc<Admission>,
    address: IpAddr,
    is_stranger: bool,
}

impl Ticket {
    /// The stranger has logged in.
    pub fn logged_in(&mut self) {
        if self.is_stranger {
            self.is_stranger = false;
            self.admission.leave(self.address, 0, 1);
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.admission.leave(self.address, 1, usize::from(self.is_stranger));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admission() -> Arc<Admission> {
        Admission::new(Caps {
            connections: 5,
            per_address: 3,
            strangers: 4,
            strangers_per_address: 2,
            exempt: vec![[127, 0, 0, 1].into()],
        })
    }

    #[test]
    fn each_cap_refuses_and_a_dropped_ticket_gives_the_place_back() {
        let admission = admission();
        let (one, two): (IpAddr, IpAddr) = ([10, 0, 0, 1].into(), [127, 0, 0, 1].into());
        let mut tickets = vec![admission.admit(one).unwrap(), admission.admit(one).unwrap()];
        assert_eq!(admission.admit(one).err(), Some(Full::AddressStrangers));
        tickets[0].logged_in();
        tickets.push(admission.admit(one).unwrap());
        assert_eq!(admission.admit(one).err(), Some(Full::Address));
        tickets.push(admission.admit(two).unwrap());
        tickets.push(admission.admit(two).unwrap());
        assert_eq!(admission.admit(two).err(), Some(Full::Connections));
        tickets.pop();
        tickets.push(admission.admit(two).unwrap());
        tickets.clear();
        assert_eq!(admission.state.lock().all, Count::default());
        assert!(admission.state.lock().by_address.is_empty());
    }

    #[test]
    fn strangers_are_capped_also_where_addresses_are_not() {
        let admission = admission();
        let tickets: Vec<Ticket> = (0..4).map(|_| admission.admit([127, 0, 0, 1].into()).unwrap()).collect();
        assert_eq!(admission.admit([127, 0, 0, 1].into()).err(), Some(Full::Strangers));
        drop(tickets);
        assert!(admission.admit("::ffff:127.0.0.1".parse().unwrap()).is_ok());
    }
}
