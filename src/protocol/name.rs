//! stub

/// Why a name is refused; `Display` gives a sentence for the user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing at all.
    #[error("a name must not be empty")]
    Empty,
}

/// A legal user name: as the user wrote it, and the form that is compared. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct UserName {}

impl UserName {
    /// Checks a name.
    pub fn parse(_name: &str) -> Result<UserName, NameError> {
        todo!()
    }
    /// As the user wrote it.
    pub fn as_written(&self) -> &str {
        todo!()
    }
    /// NFC form: two names are one user exactly when their keys are equal.
    pub fn key(&self) -> &std::sync::Arc<str> {
        todo!()
    }
}
