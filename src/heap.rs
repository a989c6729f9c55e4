//! The heap of a server that runs for months: what a busy minute has taken goes back to the system.

/// From this size on, in bytes, an allocation is a mapping of its own, which goes when it is freed. Smaller ones share the allocator's arenas, where
/// whatever stays keeps what was freed below it. Outboxes, backlogs and batches of slow readers are larger, what is needed for a message that arrives
/// at once is smaller.
const OWN_MAPPING_BYTES: i32 = 64 * 1024;

/// Has large allocations given back. glibc would raise the size from which it does so with each one that is freed, up to 32 MiB: then each of its
/// arenas keeps the most that its threads have ever needed at one time. Before other threads are started.
pub fn give_back_large() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it takes two numbers, and changes nothing that is allocated. When it refuses, all stays as it was.
    let _ = unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, OWN_MAPPING_BYTES) };
}
