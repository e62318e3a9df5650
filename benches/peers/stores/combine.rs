//! No store at all: what is left is the client's own work, which all sides share.

use rhash_harness::{Result, workload::Batch};

use super::{Connection, Kind, Store};

/// Takes everything and keeps nothing.
pub(super) struct Combine;

impl Store for Combine {
    fn process(&self) -> Option<u32> {
        None
    }

    fn connect(&self, _kind: Kind) -> Result<Box<dyn Connection>> {
        Ok(Box::new(Self))
    }
}

impl Connection for Combine {
    fn append(&mut self, _batch: &Batch<'_>) -> Result<()> {
        Ok(())
    }

    fn put(&mut self, _key: &[u8], _value: &[u8]) -> Result<()> {
        Ok(())
    }

    fn finish(&mut self) -> Result<()> {
        Ok(())
    }

    fn get_many(
        &mut self,
        _keys: &[&[u8]],
        _answer: &mut dyn FnMut(usize, Option<&[u8]>),
    ) -> Result<()> {
        Err("nothing is kept".into())
    }

    fn scan(&mut self, _entry: &mut dyn FnMut(&[u8], &[u8])) -> Result<bool> {
        Ok(false)
    }

    fn free(&mut self) -> Result<()> {
        Ok(())
    }
}
