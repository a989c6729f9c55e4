//! A library to be preloaded (`LD_PRELOAD`), which keeps a second copy of a directory's files: what would be left of them if the power
//! failed now. It is no part of the drill's own program: `power.rs` has `rustc` build it, and it needs nothing but the standard library.
//!
//! Every call goes on to the C library and does what it always does. Beside that, for regular files directly in `UNSYNCED_DIR`:
//!
//! - what is written or cut off is noted; `fsync` and `fdatasync` do it once more to the file's copy, before they return;
//! - a file is found again under the names that it had when the directory was synced last: a file that was created, renamed or removed
//!   after that has its former names, or none.
//!
//! The copies are in `UNSYNCED_SHADOW`: `NUMBER` holds the content of the file with this inode number, `names` has a line `NUMBER NAME` for
//! each file of the directory. `kept` has a second link to files that were removed, so that no new file gets the number of one of them.
//!
//! With `UNSYNCED_MODE=normal` it shows what `PRAGMA synchronous=NORMAL` would leave, of a program that runs with FULL. In both SQLite syncs
//! the write-ahead log when it begins anew (its header) and before a checkpoint; only FULL syncs it at each commit, too. So a sync of
//! `…-wal` counts only when its header alone was written, or, later, when the first write to `….db` after it shows that a checkpoint has begun.
//!
//! Not modelled: memory maps (of SQLite's files only `…-shm`, which is made anew after a crash), subdirectories, and calls that do not pass
//! through the C library.
//!
//! Read first: ld.so(8) on `LD_PRELOAD`, dlsym(3) on `RTLD_NEXT`, fsync(2) on directories, <https://sqlite.org/pragma.html#pragma_synchronous>.

use std::collections::HashMap;
use std::ffi::{CStr, CString, OsStr, c_char, c_int, c_uint, c_void};
use std::fmt::Write as _;
use std::fs::File;
use std::mem::ManuallyDrop;
use std::os::fd::FromRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirEntryExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{LazyLock, Mutex, MutexGuard};

const O_WRONLY: c_int = 1;
const O_CREAT: c_int = 0o100;
const O_TRUNC: c_int = 0o1000;
const O_CLOEXEC: c_int = 0o2_000_000;
const SEEK_CUR: c_int = 1;
const RTLD_NEXT: *mut c_void = -1_isize as *mut c_void;

/// Bytes of the header of SQLite's write-ahead log.
const LOG_HEADER_BYTES: u64 = 32;

/// `struct iovec`.
#[repr(C)]
pub struct Piece {
    base: *const c_void,
    length: usize,
}

unsafe extern "C" {
    fn dlsym(handle: *mut c_void, name: *const c_char) -> *mut c_void;
    fn lseek64(fd: c_int, offset: i64, whence: c_int) -> i64;
    fn close(fd: c_int) -> c_int;
}

/// Where the C library has the function of this name.
fn found(name: &CStr) -> usize {
    // SAFETY: the name is a C string.
    let found = unsafe { dlsym(RTLD_NEXT, name.as_ptr()) };
    assert!(!found.is_null(), "{name:?} is in the C library");
    found as usize
}

/// The C library's own function of this name, which has this type: to be used in an `unsafe` block.
macro_rules! real {
    ($name:literal as $type:ty) => {{
        static FOUND: LazyLock<usize> = LazyLock::new(|| found($name));
        std::mem::transmute::<usize, $type>(*FOUND)
    }};
}

type Open = unsafe extern "C" fn(*const c_char, c_int, c_uint) -> c_int;
type Write = unsafe extern "C" fn(c_int, *const c_void, usize) -> isize;
type Writev = unsafe extern "C" fn(c_int, *const Piece, c_int) -> isize;
type PwriteAt = unsafe extern "C" fn(c_int, *const c_void, usize, i64) -> isize;
type Truncate = unsafe extern "C" fn(c_int, i64) -> c_int;
type Sync = unsafe extern "C" fn(c_int) -> c_int;
type Unlink = unsafe extern "C" fn(*const c_char) -> c_int;
type Rename = unsafe extern "C" fn(*const c_char, *const c_char) -> c_int;

/// What the environment asks for.
struct Model {
    dir: PathBuf,
    dir_id: (u64, u64),
    shadow: PathBuf,
    is_normal: bool,
    // lock: taken by itself; what is done under it goes to the C library directly, or it would come back to us
    changes: Mutex<HashMap<u64, Changes>>,
}

static MODEL: LazyLock<Option<Model>> = LazyLock::new(|| {
    let dir = PathBuf::from(std::env::var_os("UNSYNCED_DIR")?);
    let shadow = PathBuf::from(std::env::var_os("UNSYNCED_SHADOW")?);
    // Nothing in here may panic: its message would come back to us as a write.
    let found = std::fs::metadata(&dir).ok()?;
    let is_normal = std::env::var_os("UNSYNCED_MODE").is_some_and(|mode| mode == "normal");
    Some(Model { dir_id: (found.dev(), found.ino()), dir, shadow, is_normal, changes: Mutex::new(HashMap::new()) })
});

/// What happened to a file since it was synced.
#[derive(Default)]
struct Changes {
    unsynced: Vec<Change>,
    /// Synced, in a way that `synchronous=NORMAL` would not have.
    unhonoured: Vec<Change>,
    is_log: bool,
}

enum Change {
    Written { at: u64, bytes: Vec<u8> },
    Cut { length: u64 },
}

impl Change {
    fn is_of_log_header(&self) -> bool {
        matches!(self, Change::Written { at, bytes } if at + bytes.len() as u64 <= LOG_HEADER_BYTES)
    }
}

/// What SQLite uses a file for, by its name.
#[derive(PartialEq)]
enum Kind {
    Database,
    Log,
    Other,
}

struct Tracked {
    inode: u64,
    kind: Kind,
}

impl Model {
    fn changes(&self) -> MutexGuard<'_, HashMap<u64, Changes>> {
        self.changes.lock().expect("a panic ends the process")
    }

    /// The file behind a descriptor, if it is one of ours.
    fn tracked(&self, fd: c_int) -> Option<Tracked> {
        let found = of_descriptor(fd)?;
        let path = std::fs::read_link(format!("/proc/self/fd/{fd}")).ok()?;
        let name = self.name(&path).filter(|_| found.is_file())?.as_bytes();
        let name = name.strip_suffix(b" (deleted)").unwrap_or(name);
        let kind = match () {
            () if name.ends_with(b"-wal") => Kind::Log,
            () if name.ends_with(b".db") => Kind::Database,
            () => Kind::Other,
        };
        Some(Tracked { inode: found.ino(), kind })
    }

    /// The name of something that is directly in the directory.
    fn name<'p>(&self, path: &'p Path) -> Option<&'p OsStr> {
        path.file_name().filter(|_| path.parent() == Some(&self.dir))
    }

    fn note(&self, file: &Tracked, change: Change) {
        let mut changes = self.changes();
        if self.is_normal && file.kind == Kind::Database {
            let logs = changes.iter_mut().filter(|(_, changes)| changes.is_log);
            logs.for_each(|(inode, log)| self.repeat(*inode, log.unhonoured.drain(..)));
        }
        changes.entry(file.inode).or_default().unsynced.push(change);
    }

    fn sync(&self, file: &Tracked) {
        let mut all = self.changes();
        let changes = all.entry(file.inode).or_default();
        changes.is_log = file.kind == Kind::Log;
        let begins_anew = changes.unhonoured.is_empty() && changes.unsynced.iter().all(Change::is_of_log_header);
        if self.is_normal && changes.is_log && !begins_anew {
            changes.unhonoured.append(&mut changes.unsynced);
        } else {
            self.repeat(file.inode, changes.unsynced.drain(..));
        }
    }

    /// Does to a file's copy what was done to the file.
    fn repeat(&self, inode: u64, changes: impl Iterator<Item = Change>) {
        let copy = self.open(&self.shadow.join(inode.to_string()));
        for change in changes {
            match change {
                Change::Written { at, bytes } => write_all(copy, &bytes, at),
                // SAFETY: the descriptor is ours.
                Change::Cut { length } => unsafe {
                    let cut = real!(c"ftruncate64" as Truncate)(copy, length.cast_signed());
                    assert_eq!(cut, 0, "a copy is cut");
                },
            }
        }
        // SAFETY: the descriptor is ours, and not used any more.
        unsafe { close(copy) };
    }

    /// The directory was synced: this is what is in it.
    fn sync_names(&self) {
        let mut names = String::new();
        for entry in std::fs::read_dir(&self.dir).expect("the directory is read") {
            let entry = entry.expect("the directory is read");
            if entry.file_type().is_ok_and(|kind| kind.is_file()) {
                let _ = writeln!(names, "{} {}", entry.ino(), entry.file_name().to_string_lossy());
            }
        }
        // A lock, for two threads may sync it at once.
        let _one_at_a_time = self.changes();
        let (new, present) = (self.shadow.join("names.new"), self.shadow.join("names"));
        let file = self.open(&new);
        // SAFETY: the descriptor is ours, and not used after the close; both names are C strings.
        unsafe {
            assert_eq!(real!(c"ftruncate64" as Truncate)(file, 0), 0, "the list of names is begun anew");
            write_all(file, names.as_bytes(), 0);
            close(file);
            assert_eq!(real!(c"rename" as Rename)(c_path(&new).as_ptr(), c_path(&present).as_ptr()), 0, "it is there");
        }
    }

    /// A file of the shadow, made if need be.
    fn open(&self, path: &Path) -> c_int {
        // SAFETY: the path is a C string.
        let fd = unsafe { real!(c"open64" as Open)(c_path(path).as_ptr(), O_WRONLY | O_CREAT | O_CLOEXEC, 0o600) };
        assert!(fd >= 0, "{} is opened: {}", path.display(), std::io::Error::last_os_error());
        fd
    }

    /// This name is about to be taken from its file.
    fn keep(&self, path: &Path) {
        if self.name(path).is_some()
            && let Ok(found) = path.symlink_metadata()
            && found.is_file()
        {
            // It may have been kept before, under another name.
            let _ = std::fs::hard_link(path, self.shadow.join("kept").join(found.ino().to_string()));
        }
    }
}

fn write_all(fd: c_int, bytes: &[u8], at: u64) {
    let mut done = 0;
    while done < bytes.len() {
        let (rest, at) = (&bytes[done..], at + done as u64);
        // SAFETY: the pointer and the length are of one slice.
        let written = unsafe { real!(c"pwrite64" as PwriteAt)(fd, rest.as_ptr().cast(), rest.len(), at.cast_signed()) };
        assert!(written > 0, "a copy is written: {}", std::io::Error::last_os_error());
        done += written.cast_unsigned();
    }
}

fn of_descriptor(fd: c_int) -> Option<std::fs::Metadata> {
    if fd < 0 {
        return None;
    }
    // SAFETY: it is not closed here; one that is not open gives an error.
    let file = ManuallyDrop::new(unsafe { File::from_raw_fd(fd) });
    file.metadata().ok()
}

fn c_path(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).expect("a path has no zero byte")
}

/// # Safety
/// A C string.
unsafe fn rust_path<'p>(path: *const c_char) -> &'p Path {
    // SAFETY: as the caller says.
    Path::new(OsStr::from_bytes(unsafe { CStr::from_ptr(path) }.to_bytes()))
}

/// # Safety
/// `bytes` points to `length` readable bytes.
unsafe fn note_written(fd: c_int, bytes: *const c_void, length: usize, at: impl FnOnce() -> u64) {
    if let Some(model) = &*MODEL
        && let Some(file) = model.tracked(fd)
    {
        // SAFETY: as the caller says.
        let bytes = unsafe { std::slice::from_raw_parts(bytes.cast::<u8>(), length) }.to_vec();
        model.note(&file, Change::Written { at: at(), bytes });
    }
}

/// Where the write that has just returned began.
fn began_at(fd: c_int, written: usize) -> u64 {
    // SAFETY: it takes no pointer.
    unsafe { lseek64(fd, 0, SEEK_CUR) }.cast_unsigned() - written as u64
}

fn note_cut(fd: c_int, length: i64) {
    if let Some(model) = &*MODEL
        && let Some(file) = model.tracked(fd)
    {
        model.note(&file, Change::Cut { length: length.cast_unsigned() });
    }
}

fn note_sync(fd: c_int) {
    let Some(model) = &*MODEL else { return };
    if let Some(file) = model.tracked(fd) {
        model.sync(&file);
    } else if of_descriptor(fd).is_some_and(|found| (found.dev(), found.ino()) == model.dir_id) {
        model.sync_names();
    }
}

/// # Safety
/// As open(2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn open(path: *const c_char, flags: c_int, mode: c_uint) -> c_int {
    // SAFETY: as the caller says; the third argument is passed in the same way whether it is one of a variable list or not.
    unsafe { open64(path, flags, mode) }
}

/// # Safety
/// As open(2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn open64(path: *const c_char, flags: c_int, mode: c_uint) -> c_int {
    // SAFETY: as the caller says.
    let fd = unsafe { real!(c"open64" as Open)(path, flags, mode) };
    if flags & O_TRUNC != 0 {
        note_cut(fd, 0);
    }
    fd
}

/// # Safety
/// As write(2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn write(fd: c_int, bytes: *const c_void, length: usize) -> isize {
    // SAFETY: as the caller says; what was written was readable.
    unsafe {
        let written = real!(c"write" as Write)(fd, bytes, length);
        if let Ok(written @ 1..) = usize::try_from(written) {
            note_written(fd, bytes, written, || began_at(fd, written));
        }
        written
    }
}

/// # Safety
/// As writev(2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn writev(fd: c_int, pieces: *const Piece, count: c_int) -> isize {
    // SAFETY: as the caller says; what was written was readable.
    unsafe {
        let written = real!(c"writev" as Writev)(fd, pieces, count);
        if let Ok(mut left @ 1..) = usize::try_from(written) {
            let mut at = began_at(fd, left);
            for piece in std::slice::from_raw_parts(pieces, count as usize) {
                let length = piece.length.min(left);
                if length > 0 {
                    note_written(fd, piece.base, length, || at);
                }
                at += length as u64;
                left -= length;
            }
        }
        written
    }
}

/// # Safety
/// As pwrite(2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pwrite(fd: c_int, bytes: *const c_void, length: usize, at: i64) -> isize {
    // SAFETY: as the caller says.
    unsafe { pwrite64(fd, bytes, length, at) }
}

/// # Safety
/// As pwrite(2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pwrite64(fd: c_int, bytes: *const c_void, length: usize, at: i64) -> isize {
    // SAFETY: as the caller says; what was written was readable.
    unsafe {
        let written = real!(c"pwrite64" as PwriteAt)(fd, bytes, length, at);
        if let Ok(written @ 1..) = usize::try_from(written) {
            note_written(fd, bytes, written, || at.cast_unsigned());
        }
        written
    }
}

/// # Safety
/// As ftruncate(2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ftruncate(fd: c_int, length: i64) -> c_int {
    // SAFETY: as the caller says.
    unsafe { ftruncate64(fd, length) }
}

/// # Safety
/// As ftruncate(2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ftruncate64(fd: c_int, length: i64) -> c_int {
    // SAFETY: as the caller says.
    let result = unsafe { real!(c"ftruncate64" as Truncate)(fd, length) };
    if result == 0 {
        note_cut(fd, length);
    }
    result
}

/// # Safety
/// As fsync(2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fsync(fd: c_int) -> c_int {
    // SAFETY: as the caller says.
    let result = unsafe { real!(c"fsync" as Sync)(fd) };
    if result == 0 {
        note_sync(fd);
    }
    result
}

/// # Safety
/// As fdatasync(2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fdatasync(fd: c_int) -> c_int {
    // SAFETY: as the caller says.
    let result = unsafe { real!(c"fdatasync" as Sync)(fd) };
    if result == 0 {
        note_sync(fd);
    }
    result
}

/// # Safety
/// As unlink(2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn unlink(path: *const c_char) -> c_int {
    // SAFETY: as the caller says.
    unsafe {
        if let Some(model) = &*MODEL {
            model.keep(rust_path(path));
        }
        real!(c"unlink" as Unlink)(path)
    }
}

/// # Safety
/// As rename(2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rename(from: *const c_char, to: *const c_char) -> c_int {
    // SAFETY: as the caller says.
    unsafe {
        if let Some(model) = &*MODEL {
            model.keep(rust_path(to));
        }
        real!(c"rename" as Rename)(from, to)
    }
}
