//! Placeholder, replaced by the client's branch.
