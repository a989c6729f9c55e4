//! Files with a secret in them: read only if nobody else can.

use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Why a file with a secret is not read. Never quotes it.
#[derive(Debug, thiserror::Error)]
pub enum SecretFault {
    /// It cannot be read.
    #[error("the {what} {} cannot be read ({error}); correct its name or its permissions", path.display())]
    Unreadable {
        /// What is in it.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// Other users of the machine can read it, so that it keeps nothing secret.
    #[error(
        "other users can read the {what} {} (mode {mode:04o}), so it is not used; make it yours alone: chmod 600 {}, and if it was so for long, put a new secret into it",
        path.display(),
        path.display()
    )]
    Exposed {
        /// What is in it.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
}

/// The bytes of a file that only its owner can read, or, if that is root, its group as well. `what` names it in the errors. Pipes and the like are read as
/// they are.
///
/// # Errors
/// It cannot be read, or others can.
pub fn read_secret(what: &'static str, path: &Path) -> Result<Vec<u8>, SecretFault> {
    let unreadable = |error| SecretFault::Unreadable { what, path: path.to_owned(), error };
    let file = File::open(path).map_err(unreadable)?;
    // Of the open file: nobody can put another in its place in between.
    let found = file.metadata().map_err(unreadable)?;
    if found.is_file() && is_exposed(&found) {
        return Err(SecretFault::Exposed { what, path: path.to_owned(), mode: found.mode() & 0o7777 });
    }
    let mut bytes = Vec::new();
    file.take(MAX_SECRET_BYTES).read_to_end(&mut bytes).map_err(unreadable)?;
    Ok(bytes)
}

/// No secret is so long; a device may have no end.
const MAX_SECRET_BYTES: u64 = 64 * 1024;

/// Whether others than its owner, and the group of a file of root's, can read or change it.
pub(super) fn is_exposed(file: &Metadata) -> bool {
    let theirs = if file.uid() == 0 { 0o037 } else { 0o077 };
    file.mode() & theirs != 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_secret_that_others_can_read_or_change_is_refused_and_not_shown() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        std::fs::write(&path, "topsecret").unwrap();
        let is_root = std::fs::metadata(&path).unwrap().uid() == 0;
        for mode in [0o600, 0o400, 0o640, 0o440, 0o604, 0o644, 0o660, 0o602, 0o666, 0o777] {
            std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
            let is_ours = matches!(mode, 0o600 | 0o400) || (is_root && matches!(mode, 0o640 | 0o440));
            match read_secret("key file", &path) {
                Ok(bytes) => assert!(is_ours && bytes == b"topsecret", "{mode:o}"),
                Err(fault) => {
                    let said = fault.to_string();
                    assert!(!is_ours && said.contains(&format!("mode {mode:04o}")), "{mode:o}: {said}");
                    assert!(said.contains("chmod 600") && !said.contains("topsecret"), "{said}");
                }
            }
        }
    }

    #[test]
    fn what_is_no_file_is_read_as_it_is() {
        assert_eq!(read_secret("key file", Path::new("/dev/null")).unwrap(), b"");
        let fault = read_secret("key file", Path::new("/nonexistent")).unwrap_err();
        assert!(matches!(fault, SecretFault::Unreadable { .. }), "{fault}");
    }
}
