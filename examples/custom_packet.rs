//! A server with a packet of its own, and a client that uses it: `cargo run --example custom_packet`. It needs nothing and ends by itself.
//!
//! Type 1000 asks for dice, its body says how many; type 1001 answers, a byte for each. The protocol's own packets work as ever.

use std::error::Error;
use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use chatserver::client::Client;
use chatserver::config::Config;
use chatserver::protocol::PUBLISHED_KEY;
use chatserver::server::{Call, HandlerError, Handlers, Server};

const ROLL: u32 = 1000;
const ROLLED: u32 = 1001;

/// The handler: runs on the thread of the client who asks.
fn roll(call: &Call<'_>) -> Result<(), HandlerError> {
    let &[count @ 1..=100] = call.body() else {
        // Ends this client's connection; the log says why.
        return Err("a roll is one byte, for 1 to 100 dice".into());
    };
    let dice: Vec<u8> = (0..count).map(|_| (RandomState::new().hash_one(count) % 6 + 1) as u8).collect();
    println!("server: {} rolls {count} dice: {dice:?}", call.user());
    Ok(call.reply(ROLLED, &dice)?)
}

/// Starts the server, rolls, chats, and stops it.
pub fn play() -> Result<(), Box<dyn Error>> {
    let data = tempfile::tempdir()?;
    let config = Config { listen: "127.0.0.1:0".parse()?, data: data.path().to_owned(), ..Config::default() };
    let server = Server::start_with(config, Handlers::new().on(ROLL, roll)?)?;

    let mut alice = Client::connect(server.local_addr().to_string(), PUBLISHED_KEY).login("alice")?;
    alice.send_custom(ROLL, &[3])?;
    let rolled = alice.recv_custom(Duration::from_secs(10))?.ok_or("no answer")?;
    println!("alice: packet type {}, {:?}", rolled.kind, rolled.body);

    let sum: u32 = rolled.body.iter().map(|&die| u32::from(die)).sum();
    alice.send("alice", &format!("I rolled {sum}"))?;
    let message = alice.recv(Duration::from_secs(10))?.ok_or("no message")?;
    println!("alice: {:?} says {:?}", message.from, message.text);
    alice.logout()?;

    // What is no roll ends the connection of whoever sends it.
    let mut mallory = Client::connect(server.local_addr().to_string(), PUBLISHED_KEY).login("mallory")?;
    mallory.send_custom(ROLL, b"all of them")?;
    println!("mallory: {}", mallory.recv_custom(Duration::from_secs(10)).expect_err("the handler has refused"));
    server.stop();
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    play()
}
