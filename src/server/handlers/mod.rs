//! One file per message of a client.

pub mod ack;
pub mod chat;
pub mod login;
pub mod logout;
pub mod ping;
