//! Reads a file as a document: in pieces of bounded length, once it is known to be text.
//!
//! A file is text if it is UTF-8 and holds no NUL byte. Short files are read and checked in one
//! go. Longer ones are read twice, the first time only to check them, since a document must not be
//! half indexed when its end turns out to be something else.

use std::{
    fs::File,
    io::{self, Read, Seek},
    path::Path,
};

/// The longest piece of text that is held at once.
pub(crate) const PIECE_BYTES_MAX: usize = 64 * 1024;

/// What a file turned out to be.
#[derive(Debug)]
pub(crate) enum Document {
    /// Text that fits one piece.
    Short(String),
    /// Text of many pieces.
    Long(Pieces),
    /// Not text.
    Skipped,
}

/// Opens a file and finds out whether it is text.
///
/// # Errors
/// Those of the file system, and `InvalidInput` if the path names something other than a file.
pub(crate) fn read(path: &Path) -> io::Result<Document> {
    let mut file = File::open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        // A pipe can be read only once, and opening it again would wait for a writer.
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "not a regular file",
        ));
    }
    if metadata.len() <= PIECE_BYTES_MAX as u64 {
        // All pieces are allocated alike, which suits an allocator that keeps pages for each size.
        // One byte more than a piece tells whether the file grew while it was read.
        let mut bytes = Vec::with_capacity(PIECE_BYTES_MAX + 1);
        file.by_ref()
            .take(PIECE_BYTES_MAX as u64 + 1)
            .read_to_end(&mut bytes)?;
        if bytes.len() <= PIECE_BYTES_MAX {
            return Ok(text(bytes).map_or(Document::Skipped, Document::Short));
        }
        file.rewind()?;
    }
    let mut check = Pieces::new(file);
    while check.next()?.is_some() {}
    if !check.text {
        return Ok(Document::Skipped);
    }
    let mut file = check.file;
    file.rewind()?;
    Ok(Document::Long(Pieces::new(file)))
}

fn text(bytes: Vec<u8>) -> Option<String> {
    if bytes.contains(&0) {
        None
    } else {
        String::from_utf8(bytes).ok()
    }
}

/// A long file, piece by piece, cut between characters.
#[derive(Debug)]
pub(crate) struct Pieces {
    file: File,
    /// The bytes of a character that the last piece ended in.
    carried: Vec<u8>,
    /// Everything so far was text.
    text: bool,
}

impl Pieces {
    fn new(file: File) -> Self {
        Self {
            file,
            carried: Vec::new(),
            text: true,
        }
    }

    /// The next piece; none at the end, and where the file stops being text.
    ///
    /// # Errors
    /// Those of reading the file.
    pub(crate) fn next(&mut self) -> io::Result<Option<String>> {
        if !self.text {
            return Ok(None);
        }
        let mut bytes = Vec::with_capacity(PIECE_BYTES_MAX + 1);
        bytes.append(&mut self.carried);
        let room = PIECE_BYTES_MAX - bytes.len();
        let read = self
            .file
            .by_ref()
            .take(room as u64)
            .read_to_end(&mut bytes)?;
        if read == 0 {
            self.text = bytes.is_empty();
            return Ok(None);
        }
        if let Err(error) = str::from_utf8(&bytes)
            && error.error_len().is_none()
        {
            self.carried = bytes.split_off(error.valid_up_to());
        }
        let piece = text(bytes);
        self.text = piece.is_some();
        Ok(piece)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn written(bytes: &[u8]) -> io::Result<Document> {
        let file = tempfile::NamedTempFile::new()?;
        fs::write(file.path(), bytes)?;
        read(file.path())
    }

    #[test]
    fn short_text_is_one_piece() -> io::Result<()> {
        for text in ["", "words", "žluťoučký"] {
            assert!(matches!(written(text.as_bytes())?, Document::Short(read) if read == text));
        }
        let longest = "x".repeat(PIECE_BYTES_MAX);
        assert!(matches!(written(longest.as_bytes())?, Document::Short(_)));
        Ok(())
    }

    #[test]
    fn what_is_not_text_is_skipped() -> io::Result<()> {
        for bytes in [&b"a\0b"[..], b"\xff\xfe", b"cut \xc5"] {
            assert!(matches!(written(bytes)?, Document::Skipped), "{bytes:?}");
        }
        for end in [&b"\0"[..], b"\xff", b"\xc5"] {
            let long = [&vec![b'x'; PIECE_BYTES_MAX * 2][..], end].concat();
            assert!(matches!(written(&long)?, Document::Skipped), "{end:?}");
        }
        Ok(())
    }

    #[test]
    fn long_text_comes_in_pieces_cut_between_characters() -> io::Result<()> {
        // Three bytes a character do not divide the length of a piece.
        let text = "中".repeat(PIECE_BYTES_MAX);
        let Document::Long(mut pieces) = written(text.as_bytes())? else {
            panic!("a long text is long")
        };
        let mut whole = String::new();
        while let Some(piece) = pieces.next()? {
            assert!(piece.len() <= PIECE_BYTES_MAX);
            whole.push_str(&piece);
        }
        assert!(whole == text);
        Ok(())
    }

    #[test]
    fn a_directory_is_no_document() -> io::Result<()> {
        let root = tempfile::tempdir()?;
        assert_eq!(
            read(root.path()).unwrap_err().kind(),
            io::ErrorKind::InvalidInput
        );
        Ok(())
    }
}
