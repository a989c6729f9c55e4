//! Who may come in: caps on connections, on connections of one address, and on strangers, who have not logged in yet; and how often one address
//! may log in. Of IPv6 a network of 64 bits counts as one address: who has one address there has all of them.
//!
//! A connection holds a ticket; dropping it gives the place back, whatever ended the connection.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::pace::Bucket;
use crate::health::{Counter, Counters};
use crate::limits::LOGIN_ADDRESSES;

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
    /// Logins of one address in a minute.
    pub logins_per_address: u64,
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
    /// Of addresses that have logged in lately: who has a full bucket again need not be in here.
    logins: HashMap<IpAddr, Bucket>,
    swept_at: Option<Instant>,
}

impl Admission {
    /// Nobody is in yet.
    pub fn new(caps: Caps) -> Arc<Admission> {
        Arc::new(Admission {
            state: Mutex::new(State {
                caps,
                all: Count::default(),
                by_address: HashMap::new(),
                logins: HashMap::new(),
                swept_at: None,
            }),
        })
    }

    /// New caps, for connections to come; nobody who is in is sent away.
    pub fn set_caps(&self, change: impl FnOnce(&mut Caps)) {
        let mut state = self.state.lock();
        let logins_per_address = state.caps.logins_per_address;
        change(&mut state.caps);
        if state.caps.logins_per_address != logins_per_address {
            // Their buckets have the old size.
            state.logins.clear();
        }
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
        let (address, network) = (address.to_canonical(), network(address));
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let caps = &state.caps;
        let here = state.by_address.get(&network).copied().unwrap_or_default();
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
        let network = (!is_exempt).then_some(network);
        if let Some(network) = network {
            let here = state.by_address.entry(network).or_default();
            here.connections += 1;
            here.strangers += 1;
        }
        Ok(Ticket { admission: self.clone(), network, is_stranger: true })
    }

    fn leave(&self, network: Option<IpAddr>, connections: usize, strangers: usize) {
        let mut state = self.state.lock();
        state.all.connections -= connections;
        state.all.strangers -= strangers;
        let Some(network) = network else { return };
        let here = state.by_address.entry(network).or_default();
        here.connections -= connections;
        here.strangers -= strangers;
        if here.connections == 0 {
            state.by_address.remove(&network);
        }
    }
}

impl State {
    fn may_log_in(&mut self, network: IpAddr, now: Instant) -> Result<(), Duration> {
        if self.logins.len() >= LOGIN_ADDRESSES && self.swept_at.is_none_or(|at| now > at + Duration::from_secs(1)) {
            self.swept_at = Some(now);
            self.logins.retain(|_, bucket| {
                bucket.fill(now);
                !bucket.is_full()
            });
        }
        if self.logins.len() >= LOGIN_ADDRESSES && !self.logins.contains_key(&network) {
            return Ok(());
        }
        let period = Duration::from_secs(60);
        let full = || Bucket::full(self.caps.logins_per_address, period, now);
        let bucket = self.logins.entry(network).or_insert_with(full);
        bucket.fill(now);
        if bucket.is_spent() {
            return Err(bucket.wait());
        }
        bucket.take(1);
        Ok(())
    }
}

/// What counts as one address.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
        address => address,
    }
}

/// A place among the connections.
pub struct Ticket {
    admission: Arc<Admission>,
    /// `None`: it is exempt from the caps of addresses.
    network: Option<IpAddr>,
    is_stranger: bool,
}

impl Ticket {
    /// Counts a try to log in.
    ///
    /// # Errors
    /// Too many came from there; how long until the next one may.
    pub fn may_log_in(&self, now: Instant) -> Result<(), Duration> {
        self.network.map_or(Ok(()), |network| self.admission.state.lock().may_log_in(network, now))
    }

    /// The stranger has logged in.
    pub fn logged_in(&mut self) {
        if self.is_stranger {
            self.is_stranger = false;
            self.admission.leave(self.network, 0, 1);
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.admission.leave(self.network, 1, usize::from(self.is_stranger));
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
            logins_per_address: 2,
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

    #[test]
    fn an_address_logs_in_so_often_and_then_at_its_rate() {
        let admission = admission();
        let start = Instant::now();
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        let of = |text: &str| admission.admit(address(text)).unwrap();
        let one = of("10.0.0.1");
        assert_eq!([one.may_log_in(start), one.may_log_in(start)], [Ok(()), Ok(())]);
        assert_eq!(one.may_log_in(start), Err(Duration::from_secs(30)));
        drop(one);
        let again = of("10.0.0.1");
        assert!(again.may_log_in(start).is_err(), "whoever leaves and comes back has not got more");
        assert_eq!(again.may_log_in(start + Duration::from_secs(31)), Ok(()));
        assert_eq!(of("10.0.0.2").may_log_in(start), Ok(()));
        let exempt = of("127.0.0.1");
        assert!((0..100).all(|_| exempt.may_log_in(start).is_ok()));
        // A reload reaches those who are counted already, too.
        let two = of("10.0.0.3");
        assert_eq!([two.may_log_in(start), two.may_log_in(start)], [Ok(()), Ok(())]);
        admission.set_caps(|caps| caps.logins_per_address = 1);
        assert_eq!(two.may_log_in(start), Ok(()));
        assert_eq!(two.may_log_in(start), Err(Duration::from_secs(60)));
        admission.set_caps(|caps| caps.logins_per_address = 3);
        assert!((0..3).all(|_| two.may_log_in(start).is_ok()));
    }

    #[test]
    fn a_network_of_ipv6_is_one_address() {
        let admission = admission();
        let of = |text: &str| admission.admit(text.parse().unwrap());
        let _first = (of("2001:db8::1").unwrap(), of("2001:db8::2").unwrap());
        assert_eq!(of("2001:db8::ffff:0:0:3").err(), Some(Full::AddressStrangers));
        assert!(of("2001:db8:0:1::1").is_ok());
        // Who is exempt takes nobody's place.
        admission.set_caps(|caps| caps.exempt.push("2001:db8:0:2::1".parse().unwrap()));
        let _exempt = of("2001:db8:0:2::1").unwrap();
        assert_eq!(admission.state.lock().by_address.len(), 1);
    }

    #[test]
    fn addresses_that_come_once_are_forgotten_in_time_and_never_too_many() {
        let admission = admission();
        let start = Instant::now();
        let mut state = admission.state.lock();
        let address = |number: usize| IpAddr::from((number as u32).to_be_bytes());
        for number in 0..LOGIN_ADDRESSES {
            assert_eq!(state.may_log_in(address(number), start), Ok(()));
        }
        let crowd = LOGIN_ADDRESSES..LOGIN_ADDRESSES + 1000;
        assert!(crowd.clone().all(|number| state.may_log_in(address(number), start).is_ok()));
        assert_eq!(state.logins.len(), LOGIN_ADDRESSES, "no more than that are remembered");
        let later = start + Duration::from_secs(61);
        assert_eq!(state.may_log_in(address(crowd.start), later), Ok(()));
        assert_eq!(state.logins.len(), 1, "who has a full bucket again is forgotten");
    }
}
