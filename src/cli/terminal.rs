//! Placeholder, replaced by the client's branch.
/// Unix seconds, for people.
pub fn utc(time: i64) -> String {
    time.to_string()
}
