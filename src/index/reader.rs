//! The first stage of an index run: walks, reads, and passes on text in pieces.

use std::{
    path::{Path, PathBuf},
    sync::mpsc::SyncSender,
};

use super::{
    document::{self, Document},
    figures::{Figures, Unreadable},
    walk::{Found, plain_reason, walk},
};

/// The pieces that wait for the next stage; with the length of a piece this bounds the memory.
pub(crate) const PIECES_WAITING_MAX: usize = 32;

/// The files to read.
#[derive(Debug)]
pub(crate) struct Corpus {
    pub(crate) paths: Vec<PathBuf>,
    /// A directory that is not entered.
    pub(crate) left_out: Option<PathBuf>,
}

/// A piece of a document's text.
#[derive(Debug)]
pub(crate) struct Piece {
    /// The document's path, in its first piece.
    pub(crate) begins: Option<PathBuf>,
    pub(crate) text: String,
    /// This is the document's last piece.
    pub(crate) ends: bool,
}

/// The next stage is gone, so there is nobody to read for.
struct NobodyListens;

/// Reads all files under the paths until there are no more, or nobody wants them.
pub(crate) fn run(corpus: &Corpus, pieces: &SyncSender<Piece>, figures: &Figures) -> Unreadable {
    let mut unreadable = Unreadable::default();
    for found in walk(&corpus.paths, corpus.left_out.as_deref()) {
        if figures.is_stopped() {
            break;
        }
        let path = match found {
            Found::File(path) => path,
            Found::Unreadable { path, reason } => {
                unreadable.add(path, reason);
                continue;
            }
        };
        match document::read(&path) {
            Ok(Document::Skipped) => Figures::add(&figures.skipped, 1),
            Ok(document) => {
                if send(&path, document, pieces, &mut unreadable).is_err() {
                    break;
                }
            }
            Err(error) => unreadable.add(path, plain_reason(&error)),
        }
    }
    unreadable
}

fn send(
    path: &Path,
    document: Document,
    pieces: &SyncSender<Piece>,
    unreadable: &mut Unreadable,
) -> Result<(), NobodyListens> {
    let pass_on = |piece| pieces.send(piece).map_err(|_gone| NobodyListens);
    let mut begins = Some(path.to_path_buf());
    let mut long = match document {
        Document::Skipped => return Ok(()),
        Document::Short(text) => {
            return pass_on(Piece {
                begins,
                text,
                ends: true,
            });
        }
        Document::Long(long) => long,
    };
    loop {
        match long.next() {
            Ok(Some(text)) => pass_on(Piece {
                begins: begins.take(),
                text,
                ends: false,
            })?,
            Ok(None) => break,
            Err(error) => {
                // It could be read a moment ago. What was passed on stays a document.
                unreadable.add(path.to_path_buf(), plain_reason(&error));
                break;
            }
        }
    }
    if begins.is_some() {
        return Ok(());
    }
    pass_on(Piece {
        begins: None,
        text: String::new(),
        ends: true,
    })
}
