//! What happens by the clock.

pub mod timer;
