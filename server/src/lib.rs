//! The rhash server: hash tables in RAM that spill to disk at a memory limit.
//!
//! In the order of a request's way: `listener` takes connections, `access` says whose, `session` reads their requests
//! in order, `dispatch` turns each into a call of a table, `table` knows both tiers and is the only
//! one that does, `hot` holds entries in RAM, `cold` holds runs on disk, and `governor` keeps the
//! whole under one memory limit.

pub mod size;
pub mod args;
mod memory_limit;
mod system_memory;
pub mod limits;
mod file_limit;
pub mod config;
pub mod access;
pub mod tls;
mod metrics;
pub mod allocator;
pub mod embed;
mod listener;
mod hub;
mod connection;
mod session;
mod dispatch;
mod permit;
pub mod store;
pub mod table;
mod shared;
mod hot;
pub mod cold;
mod mapped;
mod aside;
mod pages;
mod ranges;
pub mod data_dir;
pub mod log;
mod governor;
mod background;
mod moment;
mod page_cache;
mod page_faults;
mod pool;
mod waiting;
mod flights;
mod freeing;
mod readings;
mod counters;
pub mod key_hash;
#[doc(hidden)]
pub mod decoders;
