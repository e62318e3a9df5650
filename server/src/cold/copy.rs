//! Copies of runs for backups: a second name for the run's file where there can be one, else all of its bytes.
//!
//! A copy is a run file of the same number, whatever home the run has: one reader serves all homes, and only how
//! a run is laid out tells from which it comes.

#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::{
    fs::{self, File, OpenOptions},
    io::{BufWriter, Write as _},
    os::unix::fs::FileExt as _,
    path::Path,
};

use super::{
    error::ColdError,
    file_home::file_name,
    format::{FOOTER_BYTES, Footer},
    run::Run,
};

/// Small pieces are gathered up to this length.
const WRITE_BYTES: usize = 128 * 1024;

/// What was copied is synced at least this often, so that no sync takes long and a copy can be given up soon.
const SYNC_EVERY_BYTES: u64 = 32 << 20;

impl Run {
    /// Gives the run's file a second name, in the directory of run files `dir`; says whether that was
    /// possible. It is when the run has a file, `dir` is on the same file system, and that knows hard
    /// links. The caller syncs both.
    pub fn link_into(&self, dir: &Path) -> bool {
        // Whatever keeps from linking, a copy does as well or says what is wrong.
        self.bytes
            .path()
            .is_some_and(|path| fs::hard_link(path, dir.join(file_name(self.id()))).is_ok())
    }

    /// Writes the run's bytes to a file in the directory of run files `dir`, on stable storage. The caller
    /// syncs the directory.
    ///
    /// # Errors
    /// Any of reading and writing; [`ColdError::Damaged`] if what is there then does not end as the run does;
    /// [`ColdError::Cancelled`] once `goes_on` is false. Of the file something may be left.
    pub fn copy_into(&self, dir: &Path, goes_on: &dyn Fn() -> bool) -> Result<(), ColdError> {
        let path = dir.join(file_name(self.id()));
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path)
            .map_err(|error| ColdError::io("create", &path, error))?;
        let mut out = BufWriter::with_capacity(WRITE_BYTES, &file);
        let mut unsynced_bytes = 0u64;
        self.bytes.read_through(&mut |piece| {
            if !goes_on() {
                return Err(ColdError::Cancelled);
            }
            out.write_all(piece)
                .map_err(|error| ColdError::io("write", &path, error))?;
            unsynced_bytes = unsynced_bytes.saturating_add(piece.len() as u64);
            if unsynced_bytes >= SYNC_EVERY_BYTES {
                unsynced_bytes = 0;
                file.sync_data()
                    .map_err(|error| ColdError::io("sync", &path, error))?;
            }
            Ok(())
        })?;
        out.flush()
            .map_err(|error| ColdError::io("write", &path, error))?;
        drop(out);
        file.sync_all()
            .map_err(|error| ColdError::io("sync", &path, error))?;
        self.check_copy(&file, &path)
    }

    /// Whether a file is as long as the run, and ends with its footer.
    fn check_copy(&self, file: &File, path: &Path) -> Result<(), ColdError> {
        let offset = self.bytes().saturating_sub(FOOTER_BYTES as u64);
        let mut end = [0; FOOTER_BYTES];
        file.read_exact_at(&mut end, offset)
            .map_err(|error| ColdError::io("read", path, error))?;
        if Footer::decode(&end, self.id(), offset)? == *self.footer() {
            Ok(())
        } else {
            Err(self.damaged("a copy of it has another footer", offset))
        }
    }
}
