//! stub
pub mod cli;
pub mod config;
pub mod limits;
pub mod logging;
pub mod protocol;
pub mod server;
pub mod storage;
