//! Every thread of the server starts here: it has a name that `ps -L`, `top -H` and `gdb` show, and a panic in it is logged and ends it alone.

use std::panic::{self, AssertUnwindSafe};
use std::thread::{Builder, JoinHandle};
use std::{ffi::CString, io};

/// Longest thread name that Linux keeps, in bytes.
const NAME_BYTES: usize = 15;

/// Starts a named thread with a stack of `stack_bytes`.
///
/// # Errors
/// The system has no room for another thread; nothing was started, and `f` is dropped.
pub fn spawn(name: &str, stack_bytes: usize, f: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    let name = printable(name);
    Builder::new().name(name.clone()).stack_size(stack_bytes).spawn(move || {
        if let Err(cause) = panic::catch_unwind(AssertUnwindSafe(f)) {
            log::error!("{name}: panicked: {}", panic_words(&*cause));
        }
    })
}

/// Calls `f`, and goes on with its panic's words if it panics: for a thread that must not end. What `f` was about to change must be sound all the same.
///
/// # Errors
/// What the panic said.
pub fn caught<T>(f: impl FnOnce() -> T) -> Result<T, String> {
    panic::catch_unwind(AssertUnwindSafe(f)).map_err(|cause| panic_words(&*cause).to_owned())
}

/// Renames the calling thread, for example after the user whom it serves now.
pub fn rename(name: &str) {
    if let Ok(name) = CString::new(printable(name)) {
        // A thread without a name works as well as one with.
        let _ = rustix::thread::set_name(&name);
    }
}

/// The longest beginning of `name` that fits, cut between characters.
fn printable(name: &str) -> String {
    let mut end = name.len().min(NAME_BYTES);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    name[..end].replace('\0', " ")
}

/// What a panic said.
pub fn panic_words(cause: &(dyn std::any::Any + Send)) -> &str {
    cause
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| cause.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("(no message)")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_cut_between_characters() {
        assert_eq!(printable("alice"), "alice");
        assert_eq!(printable("abcdefghijklmnopqrst"), "abcdefghijklmno");
        assert_eq!(printable("我是一个java程序"), "我是一个jav");
        assert_eq!(printable("我是一个程序"), "我是一个程");
    }

    #[test]
    fn a_panic_ends_its_thread_only() {
        let thread = spawn("panics", 128 * 1024, || panic!("on purpose")).unwrap();
        assert!(thread.join().is_ok());
    }
}
