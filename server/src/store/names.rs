//! Whether a table may have its name, and is what its opener takes it for.

use rhash_protocol::{
    ErrorCode, TableKind, WireError,
    limits::{CODEC_NAME_BYTES_MAX, TABLE_NAME_BYTES_MAX},
};

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

/// Whether a table is what its opener takes it for.
pub(super) fn check_same(
    table: &Table,
    name: &str,
    kind: Option<TableKind>,
    codec: Option<&str>,
) -> Result<(), TableError> {
    if let Some(kind) = kind
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
    if let Some(codec) = codec
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
    Ok(())
}
