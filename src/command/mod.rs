//! What each subcommand does.

pub(crate) mod index;
pub(crate) mod progress;
pub(crate) mod search;
pub(crate) mod term;
pub(crate) mod table;
pub(crate) mod typed;
pub(crate) mod server_info;
pub(crate) mod backup;
pub(crate) mod bench;
pub(crate) mod serve;
pub(crate) mod token;
