//! Entries of a start: cold ones, and those that only the log has.

use rhash_client::{BytesCodec, CachePolicy, Client, RemoteHash};

use crate::failure::Failure;
use crate::limits::data::{KEY_BYTES, content, key, mix};

/// Values of cold entries.
pub(super) const COLD_VALUE_BYTES: usize = 1000;
/// Values of those in the log: the more entries there are, the longer a replay takes.
const LOGGED_VALUE_BYTES: usize = 100;
/// One write to the log in so many is over a cold entry.
const OVER_EVERY: u64 = 4;
/// Entries that are written before it is looked how long the log is, where that is far from full.
const STEP: u64 = 20_000;
/// Clients that load at the same time.
const LOADERS: u64 = 2;
/// Keys that are asked for at a time.
const KEYS_A_BATCH: usize = 100;
/// What an entry takes in the log beyond its key and value, at most.
const LOGGED_SLACK_BYTES: u64 = 64;

type Values = RemoteHash<Vec<u8>, Vec<u8>, BytesCodec>;

/// The table of cold entries, and that of small ones.
const COLD: &str = "cold";
const LOGGED: &str = "logged";

/// What was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Written {
    pub(super) seed: u64,
    /// Cold entries have the numbers below this.
    pub(super) cold: u64,
    /// Writes to the log have the numbers below this.
    pub(super) logged: u64,
}

/// What came of a look.
#[derive(Debug, Clone, Default)]
pub(super) struct Looked {
    pub(super) asked: u64,
    pub(super) wrong: u64,
    pub(super) example: Option<String>,
}

async fn open(client: &Client, name: &str) -> Result<Values, Failure> {
    let builder = client.table(name).cache_policy(CachePolicy::None);
    Ok(builder.open().await?)
}

impl Written {
    /// How many cold entries make so many bytes.
    pub(super) fn cold_for(bytes: u64) -> u64 {
        (bytes / (KEY_BYTES + COLD_VALUE_BYTES) as u64).max(1)
    }

    fn cold_value(self, number: u64) -> Vec<u8> {
        content(mix(self.seed ^ number), COLD_VALUE_BYTES)
    }

    fn logged_value(self, number: u64) -> Vec<u8> {
        content(mix(!self.seed ^ number), LOGGED_VALUE_BYTES)
    }

    /// The cold entry that this write is over, if it is over one: each is written over once at most.
    fn is_over(self, number: u64) -> Option<u64> {
        let over = number / OVER_EVERY;
        (number.is_multiple_of(OVER_EVERY) && over < self.cold).then_some(over)
    }

    /// Writes all cold entries.
    pub(super) async fn load_cold(self, address: &str) -> Result<(), Failure> {
        let mut loaders = tokio::task::JoinSet::new();
        for loader in 0..LOADERS {
            let address = address.to_owned();
            loaders.spawn(async move {
                let client = Client::connect(&address).await?;
                let table = open(&client, COLD).await?;
                let mut bulk = table.bulk();
                for number in (loader..self.cold).step_by(LOADERS as usize) {
                    bulk.insert(key(self.seed, number), self.cold_value(number))?;
                    if bulk.is_full() {
                        bulk.send().await?;
                    }
                }
                bulk.finish().await?;
                Ok::<_, Failure>(client.shutdown().await?)
            });
        }
        while let Some(loaded) = loaders.join_next().await {
            loaded??;
        }
        Ok(())
    }

    /// Writes small entries until the log has so many bytes; all are acknowledged then. Returns what was written,
    /// and how long the log is.
    pub(super) async fn fill_log(
        mut self,
        address: &str,
        bytes: u64,
    ) -> Result<(Self, u64), Failure> {
        let client = Client::connect(address).await?;
        let (cold, logged) = (open(&client, COLD).await?, open(&client, LOGGED).await?);
        loop {
            let is = client.stats().await?.log_bytes;
            let entry_bytes = (KEY_BYTES + LOGGED_VALUE_BYTES) as u64 + LOGGED_SLACK_BYTES;
            let step = (bytes.saturating_sub(is) / entry_bytes).min(STEP);
            if step == 0 {
                return Ok((self, is));
            }
            let (mut over, mut fresh) = (cold.bulk(), logged.bulk());
            for number in self.logged..self.logged + step {
                let value = self.logged_value(number);
                let bulk = match self.is_over(number) {
                    Some(entry) => {
                        over.insert(key(self.seed, entry), value)?;
                        &mut over
                    }
                    None => {
                        fresh.insert(key(!self.seed, number), value)?;
                        &mut fresh
                    }
                };
                if bulk.is_full() {
                    bulk.send().await?;
                }
            }
            over.finish().await?;
            fresh.finish().await?;
            self.logged += step;
        }
    }

    /// Asks for one entry that only runs have.
    pub(super) async fn first_get(self, client: &Client) -> Result<bool, Failure> {
        let table = open(client, COLD).await?;
        let number = self.cold - 1;
        let found = table.get(key(self.seed, number).to_vec()).await?;
        let (must, is_over) = self.must_be_cold(number);
        debug_assert!(!is_over || found.is_some(), "it is there in any case");
        Ok(found == Some(must))
    }

    /// What a cold entry must be now, and whether it was written over.
    fn must_be_cold(self, number: u64) -> (Vec<u8>, bool) {
        let over = number * OVER_EVERY;
        match over < self.logged {
            true => (self.logged_value(over), true),
            false => (self.cold_value(number), false),
        }
    }

    /// Looks at entries of both kinds at random, and counts both tables.
    pub(super) async fn look(self, client: &Client, sample: u64) -> Result<Looked, Failure> {
        let (cold, logged) = (open(client, COLD).await?, open(client, LOGGED).await?);
        let mut looked = Looked::default();
        let mut asked = Vec::new();
        for number in 0..sample {
            let number = mix(self.seed ^ number);
            let entry = number % self.cold;
            asked.push((
                key(self.seed, entry).to_vec(),
                Some(self.must_be_cold(entry).0),
            ));
        }
        looked.ask(&cold, &asked).await?;
        asked.clear();
        for number in 0..sample {
            // Some are beyond the last.
            let number = mix(self.seed ^ number) % (self.logged + self.logged / 50 + 1);
            let is_there = number < self.logged && self.is_over(number).is_none();
            let value = is_there.then(|| self.logged_value(number));
            asked.push((key(!self.seed, number).to_vec(), value));
        }
        looked.ask(&logged, &asked).await?;
        let over = (0..self.logged).step_by(OVER_EVERY as usize).count() as u64;
        let fresh = self.logged - over.min(self.cold);
        for (table, must) in [(&cold, self.cold), (&logged, fresh)] {
            let count = table.len().await?;
            looked.note(count == must, || format!("{count} entries, not {must}"));
        }
        Ok(looked)
    }
}

impl Looked {
    async fn ask(
        &mut self,
        table: &Values,
        asked: &[(Vec<u8>, Option<Vec<u8>>)],
    ) -> Result<(), Failure> {
        for asked in asked.chunks(KEYS_A_BATCH) {
            let found = table.get_many(asked.iter().map(|(key, _)| key)).await?;
            for ((key, must), found) in asked.iter().zip(found) {
                self.note(found == *must, || {
                    let bytes = |value: &Option<Vec<u8>>| value.as_ref().map(Vec::len);
                    format!("{key:?}: {:?} bytes, not {:?}", bytes(&found), bytes(must))
                });
            }
        }
        Ok(())
    }

    fn note(&mut self, is_right: bool, what: impl FnOnce() -> String) {
        self.asked += 1;
        if !is_right {
            self.wrong += 1;
            self.example.get_or_insert_with(what);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_what_was_written_over_it_last() {
        let written = Written {
            seed: 3,
            cold: 10,
            logged: 9,
        };
        let over: Vec<u64> = (0..9)
            .filter_map(|number| written.is_over(number))
            .collect();
        assert_eq!(over, [0, 1, 2]);
        for number in 0..10 {
            let (value, is_over) = written.must_be_cold(number);
            assert_eq!(is_over, number < 3);
            let bytes = if is_over {
                LOGGED_VALUE_BYTES
            } else {
                COLD_VALUE_BYTES
            };
            assert_eq!(value.len(), bytes);
        }
        assert_eq!(Written::cold_for(10 * 1016), 10);
    }
}
