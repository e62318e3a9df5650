//! Builds and reads an inverted index: the main job of rhash.
//!
//! In the order of a file's way: `walk` finds it, `document` tells whether it is text and reads it,
//! `reader` does both in a thread of its own; `tokens` cuts it into terms, `combiner` gathers their
//! `postings`, `gatherer` does that in a second thread; `build` sends what was gathered, while
//! the threads go on. `catalogue` knows the tables, `record` and `lengths` what they hold.

pub(crate) mod walk;
pub(crate) mod document;
pub(crate) mod figures;
pub(crate) mod reader;
pub(crate) mod tokens;
pub(crate) mod varint;
pub(crate) mod postings;
pub(crate) mod combiner;
pub(crate) mod record;
pub(crate) mod lengths;
pub(crate) mod gatherer;
pub(crate) mod catalogue;
pub(crate) mod build;
