//! The batches of clients that are cut off: what each has follows from a seed, the client's number and its own.

use std::time::Duration;

use fastrand::Rng;
use rhash_client::{BytesCodec, CachePolicy, Client, Error, RemoteHash};

/// The table that all of them write to.
pub(super) const TABLE: &str = "batches";
/// Keys of a batch.
const PARTS_MAX: u64 = 24;
/// A value of a batch that is one flush: all of its keys fit one request.
const FLUSHED_BYTES_MAX: usize = 7_000;
/// A value of one that goes past the cache, whose request may be several frames long.
const BULK_BYTES_MAX: usize = 25_000;
/// Nothing leaves the cache by itself.
const NEVER: Duration = Duration::from_secs(3600);
/// A server that is away, or a connection that was cut, is not waited for.
const PATIENCE: Duration = Duration::from_millis(200);
const BACKOFF: [Duration; 2] = [Duration::from_millis(5), Duration::from_millis(20)];

pub(super) type Table = RemoteHash<Vec<u8>, Vec<u8>, BytesCodec>;

/// Names a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Name {
    pub(super) client: u64,
    pub(super) batch: u64,
}

impl Name {
    /// Draws what belongs to a part of the batch, or to the batch itself.
    fn rng(self, seed: u64, part: u64) -> Rng {
        let number = (self.client << 32) ^ (self.batch << 8) ^ part;
        Rng::with_seed(seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    /// Whether its client writes through the cache, or past it.
    fn is_flushed(self) -> bool {
        self.client.is_multiple_of(2)
    }

    /// How many keys it has.
    pub(super) fn parts(self, seed: u64) -> u64 {
        self.rng(seed, PARTS_MAX).u64(2..=PARTS_MAX)
    }

    /// The key of one part.
    fn key(self, part: u64) -> Vec<u8> {
        format!("{:06}/{:06}/{part:03}", self.client, self.batch).into_bytes()
    }

    /// The value of one part.
    pub(super) fn value(self, seed: u64, part: u64) -> Vec<u8> {
        let mut rng = self.rng(seed, part);
        let bytes_max = match self.is_flushed() {
            true => FLUSHED_BYTES_MAX,
            false => BULK_BYTES_MAX,
        };
        let mut value = vec![0; rng.usize(1..=bytes_max)];
        rng.fill(&mut value);
        value
    }

    /// What the batch puts.
    fn entries(self, seed: u64) -> Vec<(Vec<u8>, Vec<u8>)> {
        let entry = |part| (self.key(part), self.value(seed, part));
        (0..self.parts(seed)).map(entry).collect()
    }

    /// The batch and the part that a key belongs to.
    pub(super) fn of_key(key: &[u8]) -> Option<(Self, u64)> {
        let mut numbers = std::str::from_utf8(key).ok()?.split('/');
        let mut next = || numbers.next()?.parse().ok();
        let (client, batch, part) = (next()?, next()?, next()?);
        Some((Self { client, batch }, part))
    }
}

/// Writes batch after batch until the connection ends; says how many were answered, one by one.
///
/// # Errors
/// Why it ended, which it always does.
pub(super) async fn write_on(
    address: &str,
    seed: u64,
    client_number: u64,
    mut answered: impl FnMut(u64),
) -> Result<(), Error> {
    let client = Client::builder()
        .flush_interval(NEVER)
        .retry_deadline(PATIENCE)
        .backoff(BACKOFF[0]..=BACKOFF[1])
        .connect(address)
        .await?;
    let written = write_batches(&client, seed, client_number, &mut answered).await;
    // It has been cut off, so that there is nothing that it could still say.
    tokio::time::timeout(PATIENCE, client.shutdown()).await.ok();
    written
}

async fn write_batches(
    client: &Client,
    seed: u64,
    number: u64,
    answered: &mut impl FnMut(u64),
) -> Result<(), Error> {
    let table: Table = client
        .table(TABLE)
        .cache_policy(CachePolicy::WriteBack)
        .open()
        .await?;
    answered(0);
    for batch in 0u64.. {
        let name = Name {
            client: number,
            batch,
        };
        let entries = name.entries(seed);
        if name.is_flushed() {
            table.insert_many(entries).await?;
            table.flush().await?;
        } else {
            let mut bulk = table.bulk();
            for (key, value) in &entries {
                bulk.insert(key, value)?;
            }
            bulk.finish().await?;
        }
        answered(batch + 1);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_the_same_whenever_it_is_made_and_its_keys_name_it() {
        for client in 0..20 {
            let name = Name { client, batch: 3 };
            let entries = name.entries(9);
            assert_eq!(entries, name.entries(9));
            for (part, (key, _)) in (0..).zip(&entries) {
                assert_eq!(Name::of_key(key), Some((name, part)));
            }
            let bytes: usize = entries
                .iter()
                .map(|(key, value)| key.len() + value.len())
                .sum();
            let fits = bytes < rhash_protocol::limits::BATCH_BYTES_TARGET;
            assert!(fits || !name.is_flushed(), "{bytes} bytes of one flush");
        }
        assert_eq!(Name::of_key(b"1/2"), None);
    }
}
