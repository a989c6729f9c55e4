//! The heap of a server that runs for months: what a busy minute has taken goes back to the system, and no thread needs a mapping for it.

/// From this size on, in bytes, an allocation is a mapping of its own, which goes when it is freed. Smaller ones share the allocator's arenas, where
/// whatever stays keeps what was freed below it. Outboxes, backlogs and batches of slow readers are larger, what is needed for a message that arrives
/// at once is smaller.
const OWN_MAPPING_BYTES: i32 = 64 * 1024;

/// Arenas of the allocator. As many as this the threads that every server has at its start have made, so that a thread that comes later shares one: where there
/// is no memory mapping left for another arena, its first allocation would fail and end the process. On more cores threads share them more, but each has a
/// cache of its own for what is small.
const ARENAS: i32 = 4;

/// Has large allocations given back. glibc would raise the size from which it does so with each one that is freed, up to 32 MiB: then each of its
/// arenas keeps the most that its threads have ever needed at one time. Before other threads are started.
pub fn set_up() {
    #[cfg(target_env = "gnu")]
    for (parameter, value) in [(libc::M_MMAP_THRESHOLD, OWN_MAPPING_BYTES), (libc::M_ARENA_MAX, ARENAS)] {
        // SAFETY: it takes two numbers, and changes nothing that is allocated. When it refuses, all stays as it was.
        let _ = unsafe { libc::mallopt(parameter, value) };
    }
}
