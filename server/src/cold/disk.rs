//! The account of disk under `--disk-limit`: what may be written for what.
//!
//! Of the limit a share is kept back. Where only that is left, no more entries are taken in, but what
//! has been taken in may be spilled into the first quarter of it. Merges whose inputs others still
//! need free nothing yet, so they stop short of what deletes may fill, who free more than they take;
//! and merges that free more than they write at once find a quarter that is theirs alone. So
//! whatever was done before, something can be done that frees disk. A run takes its room before it
//! is written.
//!
//! A stop writes down all that there is, whatever the limit. A start that finds more than spills may
//! fill lets each of them go as far beyond that, so that merges can bring it down.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use parking_lot::Mutex;

use super::{error::ColdError, home::Homes};

/// The share of the limit that is kept back, as a divisor.
const RESERVE_SHARE: u64 = 8;
/// A run that outgrows its room takes so much more at a time.
const GROW_BYTES: u64 = 256 << 10;

/// What is written to disk, in the order in which it is given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Entries that a client wants to add.
    Intake,
    /// Entries that leave RAM.
    Spill,
    /// Runs that take the place of longer ones, which are needed elsewhere for now.
    MergeAhead,
    /// Deletes that leave RAM, since they hide more than they take.
    Deletes,
    /// Runs that take the place of longer ones at once.
    Merge,
    /// Whatever must not be lost: the limit does not count.
    Keep,
}

/// Room on disk that a run will need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    /// What for.
    pub purpose: Purpose,
    /// About how much; a run that needs more takes more as it grows.
    pub bytes: u64,
}

/// The account; what finished runs take is told by their homes.
#[derive(Debug)]
pub(super) struct Disk {
    limit_bytes: Option<u64>,
    homes: Arc<Homes>,
    /// What runs that are being written may come to.
    reserved_bytes: Mutex<u64>,
    /// What a start found beyond what spills may fill.
    over_bytes: AtomicU64,
    refusals: AtomicU64,
}

/// Room on disk, given back when the run that it was for is counted among the others.
#[derive(Debug)]
pub(super) struct Room {
    disk: Arc<Disk>,
    claim: Claim,
}

impl Room {
    /// Sees that there is room for so many bytes.
    pub(super) fn hold(&mut self, bytes: u64) -> Result<(), ColdError> {
        if bytes > self.claim.bytes {
            let more = GROW_BYTES.max(bytes - self.claim.bytes);
            self.disk.reserve(Claim {
                bytes: more,
                ..self.claim
            })?;
            self.claim.bytes += more;
        }
        Ok(())
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        *self.disk.reserved_bytes.lock() -= self.claim.bytes;
    }
}

/// What of a limit is kept back.
pub(crate) fn reserve_bytes(limit_bytes: u64) -> u64 {
    limit_bytes / RESERVE_SHARE
}

impl Disk {
    /// An account of what these homes take, under a limit or under none.
    pub(super) fn new(limit_bytes: Option<u64>, homes: Arc<Homes>) -> Arc<Self> {
        Arc::new(Self {
            limit_bytes,
            homes,
            reserved_bytes: Mutex::new(0),
            over_bytes: AtomicU64::new(0),
            refusals: AtomicU64::new(0),
        })
    }

    /// Takes note of what a start found.
    pub(super) fn started(&self) -> Result<(), ColdError> {
        if let Some(bytes_max) = self.bytes_max(Purpose::Spill) {
            let over_bytes = self.homes.disk_bytes()?.saturating_sub(bytes_max);
            self.over_bytes.store(over_bytes, Ordering::Relaxed);
        }
        Ok(())
    }

    /// `--disk-limit`.
    pub(super) fn limit_bytes(&self) -> Option<u64> {
        self.limit_bytes
    }

    /// What may still be written for this purpose.
    pub(super) fn room_bytes(&self, purpose: Purpose) -> Result<u64, ColdError> {
        let reserved_bytes = self.reserved_bytes.lock();
        match self.bytes_max(purpose) {
            None => Ok(u64::MAX),
            Some(bytes_max) => {
                Ok(bytes_max.saturating_sub(self.homes.disk_bytes()? + *reserved_bytes))
            }
        }
    }

    /// What was over at the start and has come back since is not over any more.
    pub(super) fn forget_over(&self) -> Result<(), ColdError> {
        let before = self.over_bytes.load(Ordering::Relaxed);
        if before > 0
            && let Some(bytes_max) = self.bytes_max(Purpose::Spill)
        {
            let over_bytes = self.homes.disk_bytes()?.saturating_sub(bytes_max - before);
            self.over_bytes.fetch_min(over_bytes, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Takes room.
    pub(super) fn take(self: &Arc<Self>, claim: Claim) -> Result<Room, ColdError> {
        self.reserve(claim)?;
        Ok(Room {
            disk: Arc::clone(self),
            claim,
        })
    }

    /// How often the limit was reached.
    pub(super) fn refusals(&self) -> u64 {
        self.refusals.load(Ordering::Relaxed)
    }

    /// The error that the limit is reached.
    pub(super) fn full(&self) -> ColdError {
        self.refusals.fetch_add(1, Ordering::Relaxed);
        let limit_bytes = self.limit_bytes.unwrap_or(u64::MAX);
        ColdError::DiskLimit {
            used_bytes: self.homes.disk_bytes().unwrap_or(0),
            limit_bytes,
            reserve_bytes: reserve_bytes(limit_bytes),
        }
    }

    fn reserve(&self, claim: Claim) -> Result<(), ColdError> {
        let mut reserved_bytes = self.reserved_bytes.lock();
        if let Some(bytes_max) = self.bytes_max(claim.purpose)
            && self.homes.disk_bytes()? + *reserved_bytes + claim.bytes > bytes_max
        {
            return Err(self.full());
        }
        *reserved_bytes += claim.bytes;
        Ok(())
    }

    /// Up to where this purpose may fill the disk.
    fn bytes_max(&self, purpose: Purpose) -> Option<u64> {
        let limit_bytes = self.limit_bytes?;
        let reserve = reserve_bytes(limit_bytes);
        let limit_bytes = match purpose {
            Purpose::Intake => limit_bytes,
            _ => limit_bytes + self.over_bytes.load(Ordering::Relaxed),
        };
        match purpose {
            Purpose::Intake => Some(limit_bytes - reserve),
            Purpose::Spill => Some(limit_bytes - reserve / 4 * 3),
            Purpose::MergeAhead => Some(limit_bytes - reserve / 8 * 3),
            Purpose::Deletes => Some(limit_bytes - reserve / 4),
            Purpose::Merge => Some(limit_bytes),
            Purpose::Keep => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cold::{BlockReads, file_home::FileHome};

    fn disk(limit_bytes: Option<u64>, used_bytes: u64) -> Arc<Disk> {
        let dir = tempfile::tempdir().unwrap();
        let homes = Homes::new(Arc::new(
            FileHome::open(dir.path().to_owned(), BlockReads::Auto).unwrap(),
        ));
        let live_bytes = homes.files.live_bytes();
        live_bytes.store(used_bytes, Ordering::Relaxed);
        Disk::new(limit_bytes, Arc::new(homes))
    }

    #[test]
    fn each_purpose_goes_further_into_the_limit_than_the_one_before() {
        let disk = disk(Some(8000), 6900);
        let room = |purpose| disk.room_bytes(purpose).unwrap();
        assert_eq!(room(Purpose::Intake), 100);
        assert_eq!(room(Purpose::Spill), 350);
        assert_eq!(room(Purpose::MergeAhead), 725);
        assert_eq!(room(Purpose::Deletes), 850);
        assert_eq!(room(Purpose::Merge), 1100);
        assert_eq!(room(Purpose::Keep), u64::MAX);
    }

    #[test]
    fn a_start_with_more_than_the_limit_has_room_to_bring_it_down() {
        let disk = disk(Some(8000), 9000);
        disk.started().unwrap();
        let room = |purpose| disk.room_bytes(purpose).unwrap();
        assert_eq!(room(Purpose::Intake), 0);
        assert_eq!(room(Purpose::Spill), 0);
        assert_eq!(room(Purpose::Deletes), 500);
        assert_eq!(room(Purpose::Merge), 750);
        disk.homes.files.live_bytes().store(6900, Ordering::Relaxed);
        assert_eq!(room(Purpose::Intake), 100);
        disk.forget_over().unwrap();
        assert_eq!(room(Purpose::Spill), 350, "it came back");
    }

    #[test]
    fn room_is_taken_before_it_is_used_and_given_back() {
        let disk_at = |limit_bytes| disk(limit_bytes, 7 << 20);
        let disk = disk_at(Some(8 << 20));
        let claim = Claim {
            purpose: Purpose::Merge,
            bytes: 600 << 10,
        };
        let mut room = disk.take(claim).unwrap();
        let error = disk.take(claim).unwrap_err().to_string();
        assert!(error.contains("7 MiB of 8 MiB"), "{error}");
        assert!(room.hold(601 << 10).is_ok(), "it grows");
        assert!(room.hold(1025 << 10).is_err(), "up to the limit");
        drop(room);
        assert_eq!(disk.room_bytes(Purpose::Merge).unwrap(), 1 << 20);
        let huge = |purpose| Claim {
            purpose,
            bytes: 1 << 40,
        };
        assert!(disk.take(huge(Purpose::Keep)).is_ok());
        assert!(disk_at(None).take(huge(Purpose::Merge)).is_ok());
    }
}
