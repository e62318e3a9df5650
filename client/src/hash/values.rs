//! What the server decides about plain values, and about lists and counters as wholes.

use crate::{
    codec::{Codec, EncodeAs, Item, Stored},
    error::Result,
    hash::{RemoteHash, decode_read, found},
    table::{Condition, Outcome},
};

/// What came of a compare-and-swap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Swap<T> {
    /// The entry was as expected and is now the new one.
    Done,
    /// It was not, and is left as it is: this is there.
    Found(Option<T>),
}

impl<T> Swap<T> {
    /// Whether the entry was swapped.
    pub fn is_done(&self) -> bool {
        matches!(self, Self::Done)
    }
}

impl<K: Item<C>, V: Stored<C>, C: Codec> RemoteHash<K, V, C> {
    /// Sets the value of a key that has one, and returns the old one; leaves a missing key alone.
    ///
    /// # Errors
    /// As for [`insert`](Self::insert), and those of the connection.
    pub async fn replace(
        &self,
        key: impl EncodeAs<K, C>,
        value: impl EncodeAs<V, C>,
    ) -> Result<Option<V::Read>> {
        let key = self.encode_key(key)?;
        let value = self.encode_value(value)?;
        found::<V, C>(self.core().decide(key, Condition::Replace(value)).await?)
    }

    /// The value of a key, which is set to `value` first if there is none.
    ///
    /// # Errors
    /// As for [`insert`](Self::insert), and those of the connection.
    pub async fn get_or_insert(
        &self,
        key: impl EncodeAs<K, C>,
        value: impl EncodeAs<V, C>,
    ) -> Result<V::Read> {
        let key = self.encode_key(key)?;
        let value = self.encode_value(value)?;
        match self
            .core()
            .decide(key, Condition::PutIfAbsent(value.clone()))
            .await?
        {
            Outcome::Value(there) => decode_read::<V, C>(&there),
            Outcome::Absent | Outcome::Swapped => decode_read::<V, C>(&value),
        }
    }

    /// Sets the value of a key to `new` (none: removes it) if it is now `expected` (none: missing).
    /// Values are compared as encoded.
    ///
    /// # Errors
    /// As for [`insert`](Self::insert), and those of the connection.
    pub async fn compare_and_swap(
        &self,
        key: impl EncodeAs<K, C>,
        expected: Option<impl EncodeAs<V, C>>,
        new: Option<impl EncodeAs<V, C>>,
    ) -> Result<Swap<V::Read>> {
        let key = self.encode_key(key)?;
        let expected = expected.map(|value| self.encode_value(value)).transpose()?;
        let new = new.map(|value| self.encode_value(value)).transpose()?;
        let condition = Condition::CompareAndSwap { expected, new };
        match self.core().decide(key, condition).await? {
            Outcome::Swapped => Ok(Swap::Done),
            outcome => found::<V, C>(outcome).map(Swap::Found),
        }
    }
}
