//! stub
pub mod cli;
pub mod client;
pub mod clock;
pub mod config;
pub mod delivery;
pub mod jobs;
pub mod limits;
pub mod logging;
pub mod protocol;
pub mod server;
pub mod storage;
pub mod threads;
