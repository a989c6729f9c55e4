//! What is run: the settings of a world, and how far its users go.

use std::sync::Arc;

use crate::client::Client;
use crate::sync::{Ordering, below, one_in};
use crate::world::{Settings, World, spawn, tell};

pub struct Scenario {
    pub name: &'static str,
    pub run: fn(),
}

const LEVEL_2: [(&str, u32); 2] = [("ann", 2), ("bob", 2)];

fn calm() -> Settings {
    Settings {
        users: LEVEL_2.into(),
        sessions: 2,
        texts: 3,
        to_self: false,
        one_writes: false,
        crashes: 0,
        failing: 0,
        outbox_bytes: 4096,
        socket_bytes: 4096,
        memory_bytes: 1 << 20,
        max_writers: 4,
        stalls: false,
        is_impatient: false,
        few_threads: false,
    }
}

pub const ALL: [Scenario; 8] = [
    // Every login takes over, while others write.
    Scenario { name: "takeover", run: || run(Settings { sessions: 4, ..calm() }) },
    // A server dies while its disk fails, and what has no receipt is sent again.
    Scenario { name: "crash", run: || run(Settings { sessions: 2, crashes: 1 + below(2), failing: 4, ..calm() }) },
    // Sockets that take little, readers that stall, writers that wait their turn.
    Scenario { name: "slow", run: || run(Settings { few_threads: one_in(3), ..narrow() }) },
    // What waits leaves memory, and comes from disk in several reads.
    Scenario { name: "evict", run: || run(Settings { texts: 6, failing: 5, one_writes: true, ..tight() }) },
    // Not all speak level 2.
    Scenario { name: "mixed", run: || run(Settings { users: mixed(), sessions: 2, ..narrow() }) },
    // Two write to one, who has a mailbox in which it writes to itself as well.
    Scenario { name: "crowd", run: || run(Settings { users: CROWD.into(), to_self: true, sessions: 1, ..calm() }) },
    // No room for all that is written.
    Scenario {
        name: "memory",
        run: || run(Settings { texts: 6, memory_bytes: 1200 + below(600), is_impatient: one_in(3), ..narrow() }),
    },
    // All of it at once.
    Scenario { name: "storm", run: || run(storm()) },
];

const CROWD: [(&str, u32); 3] = [("ann", 2), ("bob", 2), ("cem", 2)];

fn mixed() -> Vec<(&'static str, u32)> {
    let level = || if one_in(2) { 1 } else { 2 };
    vec![("ann", 1), ("bob", 2), ("cem", level())]
}

/// Sockets and outboxes of a packet or two, and few writers: so a writer whose client has fallen silent must not wait for ever.
fn narrow() -> Settings {
    Settings {
        stalls: true,
        outbox_bytes: 60 + below(200),
        socket_bytes: 60 + below(300) as u64,
        max_writers: 1 + below(2),
        ..calm()
    }
}

/// Memory for a few messages.
fn tight() -> Settings {
    Settings { memory_bytes: 2000, ..narrow() }
}

fn storm() -> Settings {
    let narrow = if one_in(2) { narrow() } else { calm() };
    Settings {
        users: if one_in(2) { mixed() } else { LEVEL_2.into() },
        sessions: 1 + below(3),
        texts: 2 + below(4),
        to_self: one_in(2),
        crashes: below(3),
        failing: if one_in(2) { 0 } else { 3 },
        memory_bytes: if one_in(2) { 2500 } else { 1 << 20 },
        is_impatient: one_in(3),
        few_threads: one_in(3),
        ..narrow
    }
}

/// Lets the users live, and a server die; then everybody comes a last time, and everything must be in order.
fn run(settings: Settings) {
    let world = World::begin(settings);
    let crashes = world.settings.crashes;
    let clients: Vec<Client> = (0..world.settings.users.len()).map(|user| Client::new(world.clone(), user)).collect();
    let killer = {
        let world = world.clone();
        spawn("killer".into(), move || {
            for _ in 0..crashes {
                for _ in 0..below(300) {
                    shuttle::thread::yield_now();
                }
                world.crash();
            }
        })
    };
    let mut clients = everybody(&world, clients, Client::live);
    killer.join().expect("no thread panics");
    world.calm_down();
    loop {
        world.begin_round();
        clients = everybody(&world, clients, Client::settle);
        world.join_connections();
        nobody_is_left(&world);
        // A copy that was sent again after a crash, and that its recipient will drop, may be there still.
        if world.is_complete() && !world.is_rough() && world.disk.content().rows.is_empty() {
            break;
        }
        tell!("not everything may have been heard: another round");
    }
    let delivery = world.server().delivery.clone();
    delivery.stop();
    delivery.agenda.stop(std::time::Instant::now());
    world.join_timers();
}

fn everybody(world: &Arc<World>, clients: Vec<Client>, act: fn(&mut Client)) -> Vec<Client> {
    let (sender, receiver) = std::sync::mpsc::channel();
    let threads: Vec<_> = clients
        .into_iter()
        .enumerate()
        .map(|(user, mut client)| {
            let sender = sender.clone();
            spawn(world.name(user).into(), move || {
                act(&mut client);
                sender.send((user, client)).expect("it is received below");
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().expect("no thread panics"));
    drop(sender);
    let mut clients: Vec<(usize, Client)> = receiver.into_iter().collect();
    clients.sort_by_key(|(user, _)| *user);
    clients.into_iter().map(|(_, client)| client).collect()
}

/// Everybody has left, and what waits is on disk: the server comes to know it by itself.
fn nobody_is_left(world: &World) {
    let server = world.server();
    let delivery = &server.delivery;
    for _ in 0..20_000 {
        if delivery.registry.is_empty() && server.writers.running() == 0 {
            break;
        }
        shuttle::thread::yield_now();
    }
    assert_eq!(delivery.registry.len(), 0, "mailboxes in memory that nobody needs");
    assert_eq!(server.writers.running(), 0, "writers");
    assert_eq!(delivery.counters.present.now(), 0, "sessions");
    assert_eq!(delivery.memory.used_bytes(), 0, "bytes charged");
}
