//! Builds and reads an inverted index: the main job of rhash.

pub(crate) mod walk;
pub(crate) mod document;
pub(crate) mod tokens;
pub(crate) mod varint;
pub(crate) mod postings;
pub(crate) mod combiner;
