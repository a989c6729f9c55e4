//! One file for each kind of load. Each lets its users in, goes round, and reports; what they share is in `load.rs`.

pub mod churn;
pub mod closed;
pub mod idle;
pub mod offline;
pub mod open;
pub mod slow;
