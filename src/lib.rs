//! stub
pub mod config;
pub mod limits;
pub mod protocol;
pub mod storage;
pub mod clock;
pub mod delivery;
pub mod jobs;
pub mod server;
pub mod threads;
