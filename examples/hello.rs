//! Logs in, sends one message, prints what comes back, leaves.
//!
//! `cargo run --example hello -- alice` writes to itself; `cargo run --example hello -- alice bob` writes to bob, who need not be
//! there: the message waits for him. The server's address is in CHATSERVER_ADDR, or 127.0.0.1:8989.

use std::time::Duration;

use chatserver::client::{Client, ClientError};
use chatserver::protocol::PUBLISHED_KEY;

fn main() -> Result<(), ClientError> {
    let mut args = std::env::args().skip(1);
    let name = args.next().unwrap_or_else(|| "hello".to_owned());
    let friend = args.next().unwrap_or_else(|| name.clone());
    let addr = std::env::var("CHATSERVER_ADDR").unwrap_or_else(|_| "127.0.0.1:8989".to_owned());

    let mut client = Client::connect(addr, PUBLISHED_KEY).login(&name)?;
    println!("the server says: {}", client.welcome());

    client.send(&friend, &format!("hello from {name}"))?;
    while let Some(message) = client.recv(Duration::from_secs(2))? {
        // `:?` because a text may hold anything, also what would command the terminal.
        println!("{:?} says {:?}", message.from, message.text);
        if message.from == friend {
            break;
        }
    }
    client.logout()?; // returns when the server has read everything
    println!("sent to {friend}");
    Ok(())
}
