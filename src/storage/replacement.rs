//! A file that appears under its name only when it is whole: written under a name of its own beside it, synced, renamed. A program that
//! is killed in the middle leaves the old file, or none; what it wrote so far is removed by the next one.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

/// The file on its way. Dropped, it is removed, and what is under the name stays.
pub(super) struct Replacement {
    target: PathBuf,
    path: PathBuf,
    file: File,
}

impl Replacement {
    /// Creates it empty, for its owner only. The lock on it tells the next one that it is no leftover.
    pub(super) fn begin(target: &Path) -> io::Result<Replacement> {
        remove_leftovers(target)?;
        let path = beside(target, &format!(".{}{SUFFIX}", std::process::id()));
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
        flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        Ok(Replacement { target: target.to_owned(), path, file })
    }

    /// The name to write under.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The open file.
    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// Gives it its name. After `Ok` it survives power loss.
    pub(super) fn put_in_place(self) -> io::Result<()> {
        self.file.sync_all()?;
        fs::rename(&self.path, &self.target)?;
        sync_directory_of(&self.target)
    }
}

impl Drop for Replacement {
    fn drop(&mut self) {
        // Under this name there is nothing any more once it is in place.
        let _ = fs::remove_file(&self.path);
    }
}

/// Ends the name of a file on its way: the target's name, a full stop, the process, and this.
const SUFFIX: &str = ".tmp";

/// `path` with `suffix` added to its name.
pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Makes names that were given or taken away in the directory of `path` survive power loss.
pub(super) fn sync_directory_of(path: &Path) -> io::Result<()> {
    File::open(directory_of(path))?.sync_all()
}

fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}

/// Removes what killed programs left: a file on its way to this target that nobody holds the lock of.
fn remove_leftovers(target: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory_of(target))? {
        let entry = entry?;
        if is_on_its_way_to(target, &entry.file_name().to_string_lossy()) && entry.file_type()?.is_file() {
            let file = File::open(entry.path())?;
            if flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() {
                fs::remove_file(entry.path())?;
            }
        }
    }
    Ok(())
}

fn is_on_its_way_to(target: &Path, name: &str) -> bool {
    let target = target.file_name().unwrap_or_default().to_string_lossy();
    let process = name.strip_prefix(&*target).and_then(|rest| rest.strip_prefix('.')?.strip_suffix(SUFFIX));
    process.is_some_and(|process| !process.is_empty() && process.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::unix::fs::PermissionsExt;

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_is_replaced_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("kept");
        fs::write(&target, "old").unwrap();
        drop(Replacement::begin(&target).unwrap());
        assert_eq!((names(dir.path()), fs::read(&target).unwrap()), (vec!["kept".into()], b"old".into()));
        let new = Replacement::begin(&target).unwrap();
        new.file().write_all(b"new").unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"old");
        new.put_in_place().unwrap();
        assert_eq!((names(dir.path()), fs::read(&target).unwrap()), (vec!["kept".into()], b"new".into()));
        assert_eq!(fs::metadata(&target).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn leftovers_go_but_not_what_another_writes_at_this_moment_nor_anybody_elses() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("kept");
        for name in ["kept.1.tmp", "kept.2.tmp", "kept.old.tmp", "kept..tmp", "other.1.tmp"] {
            fs::write(dir.path().join(name), "x").unwrap();
        }
        let live = File::open(dir.path().join("kept.2.tmp")).unwrap();
        flock(&live, FlockOperation::NonBlockingLockExclusive).unwrap();
        Replacement::begin(&target).unwrap().put_in_place().unwrap();
        assert_eq!(names(dir.path()), ["kept", "kept..tmp", "kept.2.tmp", "kept.old.tmp", "other.1.tmp"]);
    }
}
