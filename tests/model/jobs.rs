//! The real timer.

#[path = "../../src/jobs/timer.rs"]
pub mod timer;
