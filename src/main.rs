//! The program: everything it does is in `cli`, one file per subcommand.
//!
//! One thing comes before all that. Rust's runtime prints a line when a stack overflows, and for that gives each thread an alternate signal stack. When there is no
//! memory mapping left for one, it does not report that: the process aborts, and every connection is lost for the want of one more. The runtime leaves
//! signals alone that somebody handles already, and then gives no such stacks. So a thread that cannot be had is an error of
//! `threads::spawn`, and a thread takes two mappings instead of four. A stack that overflows ends the process as before, by its signal alone.

use std::process::ExitCode;

use libc::{SIG_DFL, SIGBUS, SIGSEGV, c_int, sighandler_t, signal};

/// The loader calls what stands in this section, before the runtime looks at the signals.
#[used]
#[unsafe(link_section = ".init_array")]
static BEFORE_THE_RUNTIME: extern "C" fn() = keep_signals;

extern "C" fn keep_signals() {
    let handler = die_of as extern "C" fn(c_int) as sighandler_t;
    // SAFETY: no other thread exists yet, and the handler does nothing but what a handler may do.
    unsafe {
        signal(SIGSEGV, handler);
        signal(SIGBUS, handler);
    }
}

/// The instruction that faulted is tried again, without a handler: the kernel ends the process.
extern "C" fn die_of(number: c_int) {
    // SAFETY: signal(2) may be called in a handler.
    unsafe { signal(number, SIG_DFL) };
}

fn main() -> ExitCode {
    chatserver::cli::run()
}
