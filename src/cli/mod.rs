//! stub
pub mod chat;
pub mod connection;
pub mod listen;
pub mod send;
pub mod terminal;
