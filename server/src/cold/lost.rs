//! Why a run cannot be opened, and what stands in the place of its bytes.

use super::{error::ColdError, format::FORMAT, home::RunBytes, store::RunId};

/// Why a run cannot be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lost {
    /// It is not there.
    Missing,
    /// This is not as it was written, at this offset.
    Damaged(&'static str, u64),
    /// It has this format.
    Format(u32),
    /// It was written under another secret.
    OtherSecret,
}

impl Lost {
    /// The reason that an error gives; none for one that may be gone another time.
    pub(super) fn of(error: &ColdError) -> Option<Self> {
        match error {
            ColdError::Missing { .. } => Some(Self::Missing),
            ColdError::Damaged { what, offset, .. } => Some(Self::Damaged(what, *offset)),
            ColdError::Format { found, .. } => Some(Self::Format(*found)),
            ColdError::OtherSecret { .. } => Some(Self::OtherSecret),
            _ => None,
        }
    }

    /// What whoever asks the run is answered with.
    pub(super) fn error(self, run: RunId) -> ColdError {
        match self {
            Self::Missing => ColdError::Missing { run },
            Self::Damaged(what, offset) => ColdError::Damaged { what, run, offset },
            Self::Format(found) => ColdError::Format {
                run,
                found,
                supported: FORMAT,
            },
            Self::OtherSecret => ColdError::OtherSecret { run },
        }
    }
}

/// The bytes of a run that is lost.
#[derive(Debug)]
pub(super) struct NoBytes(pub(super) RunId, pub(super) Lost);

impl RunBytes for NoBytes {
    fn len(&self) -> u64 {
        0
    }

    fn read_exact_at(&self, _buffer: &mut [u8], _offset: u64) -> Result<(), ColdError> {
        Err(self.1.error(self.0))
    }
}
