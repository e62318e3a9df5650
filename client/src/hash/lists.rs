//! What tables of lists have: appends, and lists longer than memory.

use crate::{
    cache::CachedOp,
    codec::{Codec, Element, EncodeAs, Item, List, Stored},
    error::Result,
    hash::{ListStream, RemoteHash, encode_failed},
    table::ByteStream,
};

impl<K: Item<C>, T: Element<C>, C: Codec> RemoteHash<K, List<T>, C>
where
    List<T>: Stored<C>,
{
    /// Adds an item to the end of a key's list; blind. A missing list is made.
    ///
    /// # Errors
    /// As for [`insert`](Self::insert).
    pub async fn append(&self, key: impl EncodeAs<K, C>, item: T) -> Result<()> {
        self.append_many(key, [item]).await
    }

    /// Adds items to the end of a key's list; blind. Appends to one key gather in the cache and
    /// go to the server as one.
    ///
    /// # Errors
    /// As for [`insert`](Self::insert).
    pub async fn append_many(
        &self,
        key: impl EncodeAs<K, C>,
        items: impl EncodeAs<List<T>, C>,
    ) -> Result<()> {
        let key = self.encode_key(key)?;
        let mut bytes = Vec::new();
        items.encode_value(&mut bytes).map_err(encode_failed)?;
        let limit = self.client.core.value_bytes_max;
        if bytes.len() <= limit {
            return self.write(key, CachedOp::Append(bytes)).await;
        }
        for part in bytes.chunks(limit) {
            self.write(key.clone(), CachedOp::Append(part.to_vec()))
                .await?;
        }
        Ok(())
    }

    /// Appends to many lists past the cache, in full batches that are sent while the next ones are
    /// encoded; returns how many pairs there were when the server has them all.
    ///
    /// # Errors
    /// As for [`crate::Bulk::finish`].
    pub async fn append_batch<Q: EncodeAs<K, C>, W: EncodeAs<List<T>, C>>(
        &self,
        pairs: impl IntoIterator<Item = (Q, W)>,
    ) -> Result<u64> {
        let mut bulk = self.bulk();
        for (key, items) in pairs {
            bulk.append(key, items)?;
            if bulk.is_full() {
                bulk.send().await?;
            }
        }
        bulk.finish().await
    }

    /// A key's list, element by element, however long it is.
    ///
    /// # Errors
    /// Those of the connection; the stream's items have theirs.
    pub async fn stream(&self, key: impl EncodeAs<K, C>) -> Result<Option<ListStream<T, C>>> {
        Ok(self.chunks(key).await?.map(ListStream::new))
    }

    /// A key's list as its encoded bytes, part by part, however long it is.
    ///
    /// # Errors
    /// Those of the connection; the stream's items have theirs.
    pub async fn chunks(&self, key: impl EncodeAs<K, C>) -> Result<Option<ByteStream>> {
        let key = self.encode_key(key)?;
        self.core().chunks(key).await
    }
}
