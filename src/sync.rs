//! Locks, condition variables and atomics of the rooms that share them, `delivery` and the writers: they take them from here and nowhere else.
//!
//! The model check (`tests/model`) compiles those rooms with a `sync` of its own in this one's place, in which it decides at every lock who goes on.

pub use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

pub use parking_lot::{Condvar, Mutex, MutexGuard};
