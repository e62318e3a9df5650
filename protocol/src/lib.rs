//! The wire contract between rhash clients and servers.
//!
//! In the order in which a message is made: `limits` bounds everything, `request` and `response`
//! say what can be asked and answered, `packed` carries batches without an allocation per entry,
//! `codec` turns a message into bytes (the one user of bincode), `frame` puts a checked header
//! before them, `connection` moves frames over any async stream, `assembler` makes messages out of
//! frames again, and `handshake` opens a connection.

#![cfg_attr(
    not(test),
    warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)
)]

pub mod limits;
pub mod request;
pub mod response;
pub mod packed;
pub mod codec;
pub mod frame;
pub mod connection;
pub mod assembler;
pub mod handshake;

pub use packed::{Keys, Op, Ops, Outcome, Outcomes, PageEntry, Slot, Values};
pub use request::{Call, Durability, OpenMode, Request, ScanWhat, TableId, TableKind};
pub use response::{
    BackupInfo, ErrorCode, LimitInfo, Notice, Response, Stats, TableInfo, WireError,
};
