//! Panics on purpose, so that tests see what a panic costs. Of a release build nothing of this is a part.

#[cfg(debug_assertions)]
use std::sync::LazyLock;
#[cfg(debug_assertions)]
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The environment variable that says where: `PANIC_AT="chat 3, save 1"` panics the third time that a chat packet is handled, and at the first save.
#[cfg(debug_assertions)]
pub const VARIABLE: &str = "PANIC_AT";

/// A place, and how many times it is passed until it panics, once.
#[cfg(debug_assertions)]
static WANTED: LazyLock<Vec<(String, AtomicU64)>> =
    LazyLock::new(|| parse(&std::env::var(VARIABLE).unwrap_or_default()));

#[cfg(debug_assertions)]
fn parse(wanted: &str) -> Vec<(String, AtomicU64)> {
    let places = wanted.split(',').filter_map(|place| place.trim().rsplit_once(' '));
    places.filter_map(|(place, count)| Some((place.to_owned(), AtomicU64::new(count.parse().ok()?)))).collect()
}

/// A place that can be made to panic.
#[cfg(debug_assertions)]
pub fn point(place: &str) {
    for (_, left) in WANTED.iter().filter(|(wanted, _)| wanted == place) {
        // It wraps after the last time, and is not 1 again.
        assert!(left.fetch_sub(1, Relaxed) != 1, "on purpose, at \"{place}\"");
    }
}

/// A place that can be made to panic, but not in a release build.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub fn point(_place: &str) {}

#[cfg(all(test, debug_assertions))]
mod tests {
    use super::*;

    #[test]
    fn places_are_named_with_their_turns() {
        let wanted = parse("chat 3, logged in 1,save x, , 7");
        let places: Vec<(&str, u64)> =
            wanted.iter().map(|(place, left)| (place.as_str(), left.load(Relaxed))).collect();
        assert_eq!(places, [("chat", 3), ("logged in", 1)]);
    }
}
