//! stub
pub mod config;
pub mod limits;
pub mod protocol;
pub mod storage;
