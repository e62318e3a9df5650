//! What a home of runs can do; files, sled and RAM are homes.
//!
//! A run is a sequence of pieces in one address space. Its writer appends pieces; its readers read
//! from where a piece begins, over one or more whole pieces. A home knows nothing of the format.

use std::{
    fmt::Debug,
    path::Path,
    sync::{Arc, OnceLock, atomic::AtomicU64},
};

use super::{error::ColdError, store::RunId};

/// A run is read front to back in pieces of at most this length.
const PIECE_BYTES: u64 = 256 * 1024;

/// How the runs of a home are laid out.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    /// The bytes that a block of records aims at.
    pub(super) block_bytes: usize,
    /// The bytes of blocks after which a section ends.
    pub(super) section_bytes: u64,
    /// Whether leaves are placed so that they touch few pages.
    pub(super) aligned: bool,
}

/// A place where runs are kept.
pub(super) trait Home: Send + Sync + Debug {
    /// How its runs are laid out.
    fn shape(&self) -> Shape;

    /// Where a run lies, or would, for people.
    fn place_of(&self, id: RunId) -> String;

    /// Begins a run.
    fn create(&self, id: RunId) -> Result<Box<dyn RunSink>, ColdError>;

    /// Opens a run; [`ColdError::Missing`] if it is not here.
    fn open(&self, id: RunId) -> Result<Box<dyn RunBytes>, ColdError>;

    /// Every run that lies here, finished or not, with its length.
    fn list(&self) -> Result<Vec<(RunId, u64)>, ColdError>;

    /// Runs that were opened here and are not among those listed: what keeps them is damaged, and may lose
    /// them when it is changed.
    fn unlisted(&self) -> Result<Vec<RunId>, ColdError> {
        Ok(Vec::new())
    }

    /// Writes all runs that were opened here, or are listed, anew as far as they can be read, on stable storage,
    /// and sets what kept them aside.
    fn make_anew(&self) -> Result<(), ColdError> {
        Ok(())
    }

    /// Removes a run; one that is not here is removed already.
    fn remove(&self, id: RunId) -> Result<(), ColdError>;

    /// Puts a run that is not open into another directory, under the name that it has, or removes it where it
    /// is no file.
    fn set_aside(&self, id: RunId, _dir: &Path) -> Result<(), ColdError> {
        self.remove(id)
    }

    /// Brings what was written to stable storage.
    fn sync(&self) -> Result<(), ColdError>;

    /// The bytes of its runs that are open; kept by [`Run`](super::run::Run).
    fn live_bytes(&self) -> &AtomicU64;

    /// The disk that the home takes, given back or not.
    fn disk_bytes(&self) -> Result<u64, ColdError>;

    /// The disk that is needed to give back what the home takes for nothing; none if that is not
    /// worth the work, which less is where disk is `short`.
    fn give_back_needs(&self, _short: bool) -> Result<Option<u64>, ColdError> {
        Ok(None)
    }

    /// Gives back the disk that the home takes for nothing; says how much.
    fn give_back(&self) -> Result<u64, ColdError> {
        Ok(0)
    }
}

/// The homes of a store.
#[derive(Debug)]
pub(super) struct Homes {
    /// For large runs, or for all.
    pub(super) files: Arc<dyn Home>,
    /// For small ones, once there are any.
    pub(super) sled: OnceLock<Arc<dyn Home>>,
}

impl Homes {
    /// One home, and no other yet.
    pub(super) fn new(files: Arc<dyn Home>) -> Self {
        Self {
            files,
            sled: OnceLock::new(),
        }
    }

    /// Those that there are.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<dyn Home>> {
        std::iter::once(&self.files).chain(self.sled.get())
    }

    /// The disk that they take.
    pub(super) fn disk_bytes(&self) -> Result<u64, ColdError> {
        self.iter().map(|home| home.disk_bytes()).sum()
    }
}

/// A run being written. Dropped before it is finished, it leaves no trace.
pub(super) trait RunSink: Send + Debug {
    /// Appends a piece.
    fn append(&mut self, piece: &[u8]) -> Result<(), ColdError>;

    /// Makes the run one that can be opened, on stable storage if asked.
    fn finish(self: Box<Self>, sync: bool) -> Result<Box<dyn RunBytes>, ColdError>;
}

/// The bytes of a finished run.
pub(super) trait RunBytes: Send + Sync + Debug {
    /// How many they are.
    fn len(&self) -> u64;

    /// Fills `buffer` with what begins at `offset`.
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> Result<(), ColdError>;

    /// Begins to fetch mapped bytes from the disk, if they are not in RAM; does not wait for them.
    fn begin_to_fetch(&self, _offset: u64, _bytes: usize) {}

    /// Tells the system that the page of this mapped byte is in use; does not wait for it.
    fn note_use(&self, _offset: u64) {}

    /// All bytes, if they are mapped: leaves and directory are then read there.
    fn mapped(&self) -> Option<&[u8]> {
        None
    }

    /// The file that has these bytes and no others, if there is one.
    fn path(&self) -> Option<&Path> {
        None
    }

    /// Gives all bytes to `take`, front to back, in pieces of any length up to [`PIECE_BYTES`].
    fn read_through(
        &self,
        take: &mut dyn FnMut(&[u8]) -> Result<(), ColdError>,
    ) -> Result<(), ColdError> {
        let mut buffer = Vec::new();
        let mut offset = 0;
        while offset < self.len() {
            let bytes = (self.len() - offset).min(PIECE_BYTES);
            buffer.resize(bytes as usize, 0);
            self.read_exact_at(&mut buffer, offset)?;
            take(&buffer)?;
            offset += bytes;
        }
        Ok(())
    }

    /// Brings the run to stable storage, unless its home does so for all its runs.
    fn sync(&self) -> Result<(), ColdError> {
        Ok(())
    }
}
