//! Whether a table may have its name and durability, and is what its opener takes it for.

use rhash_protocol::{
    Durability, ErrorCode, WireError,
    limits::{CODEC_NAME_BYTES_MAX, TABLE_NAME_BYTES_MAX},
};

use super::Opening;
use crate::table::{Table, TableError};

/// Whether a table may have this name and codec.
pub(super) fn check_names(name: Option<&str>, codec: Option<&str>) -> Result<(), TableError> {
    let bad = |text: String| {
        Err(WireError {
            code: ErrorCode::BadRequest,
            text,
        })
    };
    match (name, codec) {
        (Some(""), _) => bad("a table's name must not be empty".to_owned()),
        (Some(name), _) if name.len() > TABLE_NAME_BYTES_MAX => bad(format!(
            "a table name of {} bytes, the limit is {TABLE_NAME_BYTES_MAX}",
            name.len()
        )),
        (Some(name), _) if name.chars().any(char::is_control) => {
            bad(format!("the table name {name:?} holds control characters"))
        }
        (_, Some(codec)) if codec.len() > CODEC_NAME_BYTES_MAX => bad(format!(
            "a codec name of {} bytes, the limit is {CODEC_NAME_BYTES_MAX}",
            codec.len()
        )),
        _ => Ok(()),
    }
}

/// Why a table cannot be made with a durability.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cannot {
    /// It is temporary.
    Outlive,
    /// The server has no disk.
    Keep,
    /// The server keeps no log.
    Log,
}

impl Cannot {
    /// The error, for a table that was to have this durability.
    pub(super) fn have(self, durability: Durability) -> TableError {
        let level = durability.name();
        let (code, text) = match self {
            Self::Outlive => (
                ErrorCode::BadRequest,
                format!(
                    "a temporary table cannot have durability {level}: it ends with its client; give it \
                     a name"
                ),
            ),
            Self::Keep => (
                ErrorCode::WrongDurability,
                format!(
                    "no table can have durability {level} here: the server has no disk (--memory-only); \
                     start it with --data DIR, or open the table without a durability"
                ),
            ),
            Self::Log => (
                ErrorCode::WrongDurability,
                format!(
                    "a new table cannot have durability {level} here: the server was started with \
                     --durability none and keeps no log; start it with --durability everysec or always, or \
                     open the table without a durability"
                ),
            ),
        };
        WireError { code, text }
    }
}

/// Whether a table is what its opener takes it for.
pub(super) fn check_same(
    table: &Table,
    name: &str,
    opening: &Opening<'_>,
) -> Result<(), TableError> {
    if let Some(kind) = opening.kind
        && kind != table.kind()
    {
        return Err(WireError {
            code: ErrorCode::WrongKind,
            text: format!(
                "the entries of table \"{name}\" are {}, not {}; open it as what it is, or close it",
                table.kind().name(),
                kind.name()
            ),
        });
    }
    if let Some(codec) = opening.codec
        && codec != table.codec()
    {
        return Err(WireError {
            code: ErrorCode::WrongCodec,
            text: format!(
                "table \"{name}\" has codec {}, not {codec}; open it with the types that it was made with",
                table.codec()
            ),
        });
    }
    if let Some(durability) = opening.durability
        && durability != table.durability()
    {
        let follows = match table.own_durability() {
            Some(_) => "",
            None => " (the server's, which it follows)",
        };
        return Err(WireError {
            code: ErrorCode::WrongDurability,
            text: format!(
                "table \"{name}\" has durability {}{follows}, not {}; open it without one, or put its \
                 entries into a new table that is made with that",
                table.durability().name(),
                durability.name()
            ),
        });
    }
    Ok(())
}
