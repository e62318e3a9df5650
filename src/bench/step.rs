//! The steps of a round, and what is counted in each.

use serde::{Serialize, Serializer};

/// A step of a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Appends postings to lists, many to one term at a time.
    IndexBuild,
    /// Waits until merges rest after the build.
    IndexSettle,
    /// Reads whole lists of terms, each term as likely as any other.
    ListGets,
    /// Frees the table of lists.
    IndexClose,
    /// Puts entries in batches.
    Load,
    /// Waits until merges rest after the load.
    Settle,
    /// Gets many entries by one call, each as likely as any other.
    BatchUniform,
    /// Gets many entries by one call, few of them often.
    BatchZipf,
    /// Gets one entry after the other, each as likely as any other.
    SingleUniform,
    /// Gets one entry after the other, few of them often.
    SingleZipf,
    /// Reads all entries.
    Scan,
    /// Frees the table.
    Close,
}

impl Step {
    /// What people call it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::IndexBuild => "index build",
            Self::IndexSettle => "settle, lists",
            Self::ListGets => "list gets",
            Self::IndexClose => "close, lists",
            Self::Load => "load",
            Self::Settle => "settle",
            Self::BatchUniform => "batched gets, uniform",
            Self::BatchZipf => "batched gets, Zipf",
            Self::SingleUniform => "single gets, uniform",
            Self::SingleZipf => "single gets, Zipf",
            Self::Scan => "scan",
            Self::Close => "close",
        }
    }

    /// What is counted, or nothing where only the time counts.
    pub(crate) fn unit(self) -> Option<&'static str> {
        match self {
            Self::IndexBuild => Some("postings"),
            Self::ListGets => Some("lists"),
            Self::Load | Self::Scan => Some("entries"),
            Self::BatchUniform | Self::BatchZipf | Self::SingleUniform | Self::SingleZipf => {
                Some("keys")
            }
            Self::IndexSettle | Self::IndexClose | Self::Settle | Self::Close => None,
        }
    }

    /// Whether it goes on for as long as was asked, whatever it does in that time.
    pub(crate) fn is_timed(self) -> bool {
        matches!(
            self,
            Self::ListGets
                | Self::BatchUniform
                | Self::BatchZipf
                | Self::SingleUniform
                | Self::SingleZipf
        )
    }

    /// What a latency is that of, where latencies are taken.
    pub(crate) fn call(self) -> Option<&'static str> {
        match self {
            Self::IndexBuild | Self::Load => Some("handing over a batch of writes"),
            Self::ListGets => Some("a get of a batch of lists"),
            Self::BatchUniform | Self::BatchZipf => Some("a get of a batch of keys"),
            Self::SingleUniform | Self::SingleZipf => Some("a get of one key"),
            Self::IndexSettle | Self::IndexClose | Self::Settle | Self::Scan | Self::Close => None,
        }
    }
}

impl Serialize for Step {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}
