//! `src/threads.rs` for the model.

use std::io;

use crate::sync::one_in;
use crate::world;

pub fn spawn(name: &str, _stack_bytes: usize, f: impl FnOnce() + Send + 'static) -> io::Result<()> {
    if world::current().settings.few_threads && one_in(4) {
        return Err(io::Error::other("no thread, says the model"));
    }
    shuttle::thread::Builder::new().name(name.to_owned()).spawn(f).map(drop)
}

/// What the model finds wrong is a panic, too, and nobody is to catch it.
pub fn caught<T>(f: impl FnOnce() -> T) -> Result<T, String> {
    Ok(f())
}

pub fn rename(_name: &str) {}
