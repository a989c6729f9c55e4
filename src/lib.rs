//! A TCP chat server that is hard to lose a message with, and its client library.
//!
//! Blocking sockets, one thread per connection, one SQLite file; the wire protocol is the one that clients have spoken since 2014.
//!
//! ```text
//!           thread "accept"           a thread per connection, with its user's name          thread "timer"
//! clients ─▶ listener ── spawn ──▶ read → frame → open → decode → dispatch → handler             │
//!                                                                   │                            ▼
//!                                                        mailbox (one per user: a window) ──▶ storage: one
//!                                                                   │                         transaction for all
//!                                next to send is in memory ─▶ outbox ─▶ send() now, never waiting
//!                                next to send is on disk   ─▶ the session's writer reads it and sends it
//! ```
//!
//! # Rooms
//!
//! Arrows of use go one way: `cli → server → jobs → delivery → storage` and `cli → client`; all may use `protocol`, which uses none of them.
//!
//! | room | what it is |
//! |---|---|
//! | [`protocol`] | the wire, pure: packets, cipher, messages, names |
//! | [`delivery`] | from acceptance to acknowledgement: window, mailbox, outbox |
//! | [`server`] | listener, connections, dispatch, one handler per message, writers |
//! | [`jobs`] | what happens by the clock: saves, the watch, reports and alerts |
//! | [`storage`] | the one SQLite file, and the only SQL |
//! | [`client`] | the blocking client library |
//! | [`cli`] | one file per subcommand |
//! | `conformance` | checks any server of this protocol from outside |
//! | `capture`, `decode`, `tap` | captures of the network; packets explained byte by byte; a proxy that shows what passes, and misbehaves |
//! | [`config`] | what an operator may change |
//! | [`mail`] | letters to the operator, by SMTP |
//! | [`limits`], [`clock`], [`threads`], [`logging`], [`notify`] | fixed caps, time, named threads, the log, what systemd is told |
//! | [`sync`], [`socket`] | locks, and what is asked of a socket: with [`threads`] and [`storage`] what the model check puts its own in the place of |
//!
//! # The walk
//!
//! User A writes to user B. A's thread reads; [`protocol::Frame::parse`] finds a packet; [`protocol::Decoder::decode`] opens it and gives a
//! [`protocol::Chat`]; `dispatch` asks its table whether that is legal now; `handlers::chat` checks the sender; [`delivery::Mailbox::accept`]
//! puts it into B's window. If B is there, [`delivery::Outbox::push`] takes the packet, and [`delivery::Outbox::flush`] writes it when all
//! packets of the read are executed. If not, it stays in the window, and the timer saves it ([`storage::Storage::save`]). Each step is one
//! call forward; nothing comes back but errors. ARCHITECTURE.md walks more slowly, and says what each room must not know.
//!
//! # Embedding
//!
//! ```no_run
//! use chatserver::{config::Config, server::Server};
//!
//! let config = Config { listen: "127.0.0.1:0".parse()?, data: "./data".into(), ..Config::default() };
//! let server = Server::start(config)?;
//! println!("listening on {}", server.local_addr());
//! std::io::stdin().read_line(&mut String::new())?; // until somebody presses Enter
//! println!("{:?}", server.stop()); // what was delivered and saved
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Packet types of a program's own get handlers: [`server::Handlers`], [`server::Server::start_with`], and on the other side
//! [`client::Client::send_custom`]. `examples/custom_packet.rs` is a server and a client with one: `cargo run --example custom_packet`.
//!
//! The library installs no signal handler and no log: it logs through the crate `log`, and whoever embeds it decides where that goes.
//! One server per data directory; the program `chatserver` keeps a second one away with a lock file, an embedder sees to it itself.

#[cfg(feature = "tools")]
pub mod bench;
#[cfg(feature = "tools")]
pub mod capture;
pub mod cli;
pub mod client;
pub mod clock;
pub mod config;
#[cfg(feature = "tools")]
pub mod conformance;
#[cfg(feature = "tools")]
pub mod decode;
pub mod delivery;
pub mod faults;
pub mod health;
pub mod heap;
pub mod jobs;
pub mod language;
pub mod limits;
pub mod logging;
pub mod mail;
pub mod notify;
pub mod protocol;
pub mod server;
pub mod socket;
pub mod storage;
pub mod sync;
#[cfg(feature = "tools")]
pub mod tap;
pub mod terminal;
pub mod threads;
