//! Where a message goes that the database refuses for its content: accepted is accepted, so it is written down for the operator, one
//! JSON line each, before the rest of its batch is committed. Such a row is a fault of this program, or the work of somebody who
//! changed the schema; the file does not exist on a healthy server. It is for people: the server never reads it.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::{Batch, StorageError};

/// File name in the data directory.
pub(super) const SET_ASIDE: &str = "set-aside.jsonl";

/// One row that the database refused.
pub(super) struct Refused {
    /// Index into `Batch::inserts`.
    pub(super) index: usize,
    /// Why.
    pub(super) error: rusqlite::Error,
}

/// Lines on disk that count only once the batch is committed.
pub(super) struct SetAside(Option<(File, u64)>);

/// Appends the refused rows, and returns when they survive power loss.
pub(super) fn append(dir: &Path, batch: &Batch, refused: &[Refused]) -> Result<SetAside, StorageError> {
    if refused.is_empty() {
        return Ok(SetAside(None));
    }
    let path = dir.join(SET_ASIDE);
    let failed = |source| StorageError::file(&path, source);
    let file = OpenOptions::new().append(true).create(true).mode(0o600).open(&path).map_err(failed)?;
    let before = file.metadata().map_err(failed)?.len();
    let aside = SetAside(Some((file, before)));
    match aside.write(dir, &lines(batch, refused)) {
        Ok(()) => Ok(aside),
        Err(error) => {
            aside.undo();
            Err(failed(error))
        }
    }
}

impl SetAside {
    fn write(&self, dir: &Path, lines: &str) -> io::Result<()> {
        if let SetAside(Some((file, _))) = self {
            (&mut &*file).write_all(lines.as_bytes())?;
            file.sync_all()?;
            File::open(dir)?.sync_all()?;
        }
        Ok(())
    }

    /// The batch was not committed and will come again: takes the lines back. Where that fails they are there twice, which harms nobody.
    pub(super) fn undo(self) {
        if let SetAside(Some((file, before))) = self {
            let _ = file.set_len(before);
        }
    }
}

/// Tells the operator, once the batch is committed. Never the text.
pub(super) fn report(batch: &Batch, refused: &[Refused]) {
    for Refused { index, error } in refused {
        let (recipient, row) = (&batch.inserts[*index].recipient, &batch.inserts[*index].row);
        log::error!(
            "a message to {recipient:?} could not be stored and was set aside in {SET_ASIDE}: seq {}, sender of {} bytes, text of {} bytes: {error}",
            row.seq,
            row.sender.len(),
            row.text.len(),
        );
    }
}

fn lines(batch: &Batch, refused: &[Refused]) -> String {
    let line = |Refused { index, error }: &Refused| {
        let (recipient, row) = (&batch.inserts[*index].recipient, &batch.inserts[*index].row);
        let line = serde_json::json!({
            "recipient": &**recipient, "seq": row.seq, "sender": row.sender, "text": row.text,
            "client_time": row.client_time, "accepted_at": row.accepted_at, "msg_id": row.msg_id, "error": error.to_string(),
        });
        format!("{line}\n")
    };
    refused.iter().map(line).collect()
}
