//! stub
pub mod cli;
pub mod client;
pub mod config;
pub mod limits;
pub mod protocol;
pub mod storage;
