//! What the table of documents holds for each: where the file is, and how it was named.
//!
//! The key is the document's number, 4 bytes, the greatest first. The value is a varint and the
//! absolute path; the number says how many bytes of the path are the directory that the command
//! ran in, 0 if the path was absolute as given. So the file is found from everywhere, and a search
//! that runs in the same directory shows the path as it was given.

use std::{
    ffi::OsStr,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use super::varint;

/// The key of a document.
pub(crate) fn key(number: u32) -> [u8; 4] {
    number.to_be_bytes()
}

/// A file that was indexed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DocumentRecord {
    path: PathBuf,
    directory_bytes: usize,
}

impl DocumentRecord {
    /// A file, as named to a command that runs in `directory`.
    pub(crate) fn new(path: &Path, directory: &Path) -> Self {
        let directory_bytes = if path.is_absolute() {
            0
        } else {
            directory.as_os_str().len()
        };
        Self {
            path: directory.join(path),
            directory_bytes,
        }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        varint::push(&mut bytes, self.directory_bytes as u64);
        bytes.extend_from_slice(self.path.as_os_str().as_bytes());
        bytes
    }

    /// Reads what `encode` wrote; none if it is something else.
    pub(crate) fn decode(mut bytes: &[u8]) -> Option<Self> {
        let directory_bytes = usize::try_from(varint::take(&mut bytes)?).ok()?;
        let path = PathBuf::from(OsStr::from_bytes(bytes));
        (directory_bytes <= bytes.len()).then_some(Self {
            path,
            directory_bytes,
        })
    }

    /// Where the file is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// How to name the file to somebody in `directory`.
    pub(crate) fn shown(&self, directory: &Path) -> &Path {
        let (head, tail) = self
            .path
            .as_os_str()
            .as_bytes()
            .split_at(self.directory_bytes);
        let Some(first) = tail.iter().position(|byte| *byte != b'/') else {
            return &self.path;
        };
        if head.is_empty() || head != directory.as_os_str().as_bytes() {
            return &self.path;
        }
        Path::new(OsStr::from_bytes(&tail[first..]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(path: &str, then: &str, now: &str) -> String {
        let record = DocumentRecord::new(Path::new(path), Path::new(then));
        let read = DocumentRecord::decode(&record.encode()).unwrap();
        assert_eq!(read, record);
        read.shown(Path::new(now)).display().to_string()
    }

    #[test]
    fn paths_are_shown_as_given_where_they_mean_the_same() {
        assert_eq!(shown("docs/a", "/home/me", "/home/me"), "docs/a");
        assert_eq!(shown("./docs/a", "/home/me", "/home/me"), "./docs/a");
        assert_eq!(shown("docs/a", "/", "/"), "docs/a");
        assert_eq!(shown("docs/a", "/home/me", "/home"), "/home/me/docs/a");
        assert_eq!(shown("/docs/a", "/home/me", "/home/me"), "/docs/a");
        assert_eq!(shown("/home/me/a", "/home/me", "/home/me"), "/home/me/a");
    }

    #[test]
    fn what_is_no_record_is_refused() {
        assert_eq!(DocumentRecord::decode(b""), None);
        assert_eq!(DocumentRecord::decode(b"\x05/abc"), None);
    }
}
