//! Whether a batch may go in, seen before any of it does.

use rhash_protocol::{
    ErrorCode, Op, Ops, TableKind,
    limits::{BATCH_ENTRIES_MAX, KEY_BYTES_MAX},
};

use super::{Table, TableError};

/// What an entry takes in RAM beyond its key and value, for deciding what may go in.
const ENTRY_OVERHEAD_BYTES: usize = 48;

/// A batch that may go in.
#[derive(Debug)]
pub(super) struct Checked {
    /// Each operation's place.
    pub(super) places: Vec<u64>,
    /// The most RAM that the batch may take.
    pub(super) bytes: usize,
    /// Whether an operation must know what is there.
    pub(super) conditional: bool,
}

impl Table {
    /// Reads a batch through: whether its bytes are sound, its operations of the table's kind,
    /// its keys and values within their limits.
    pub(super) fn check(&self, ops: Ops<'_>) -> Result<Checked, TableError> {
        if ops.count() > BATCH_ENTRIES_MAX {
            return Err(bad_request(format!(
                "a batch of {} operations, the limit is {BATCH_ENTRIES_MAX}",
                ops.count()
            )));
        }
        ops.check()
            .map_err(|malformed| bad_request(malformed.to_string()))?;
        let mut checked = Checked {
            places: Vec::with_capacity(ops.count()),
            bytes: 0,
            conditional: false,
        };
        for op in ops.iter() {
            let op = op.map_err(|malformed| bad_request(malformed.to_string()))?;
            let key = op.key();
            check_key(key)?;
            let value = self.check_operands(&op)?;
            checked.places.push(self.shared.hasher.hash(key).place);
            checked.conditional |= op.is_conditional();
            if let Some(value_bytes) = value {
                checked.bytes += key.len() + value_bytes + ENTRY_OVERHEAD_BYTES;
            }
        }
        Ok(checked)
    }

    /// The length of what the operation stores; none if it stores nothing.
    fn check_operands(&self, op: &Op<'_>) -> Result<Option<usize>, TableError> {
        let kind = self.kind;
        let (fits, what, value) = match *op {
            Op::Put { value, .. } => (
                kind != TableKind::Counters || value.len() == 8,
                "put",
                Some(value),
            ),
            Op::PutIfAbsent { value, .. } | Op::Replace { value, .. } => (
                kind != TableKind::Counters || value.len() == 8,
                "conditional put",
                Some(value),
            ),
            Op::CompareAndSwap { new, .. } => (
                kind != TableKind::Counters || new.is_none_or(|new| new.len() == 8),
                "compare-and-swap",
                new,
            ),
            Op::Append { bytes, .. } => (kind == TableKind::Lists, "append", Some(bytes)),
            Op::Add { .. } | Op::AddAndGet { .. } => {
                (kind == TableKind::Counters, "add", Some([0; 8].as_slice()))
            }
            Op::Discard { .. } | Op::Remove { .. } => (true, "discard", None),
        };
        if !fits {
            return Err(self.kind_error(what));
        }
        let value_bytes_max = self.shared.value_bytes_max;
        match value {
            Some(value) if value.len() > value_bytes_max => Err(TableError {
                code: ErrorCode::ValueTooLarge,
                text: format!(
                    "a value of {} bytes, the limit is {value_bytes_max}; \
                     start the server with a larger --max-value, or append it to a list in pieces",
                    value.len()
                ),
            }),
            value => Ok(value.map(<[u8]>::len)),
        }
    }

    fn kind_error(&self, what: &str) -> TableError {
        let name = self
            .name()
            .map_or_else(|| self.id().to_string(), |name| format!("\"{name}\""));
        TableError {
            code: ErrorCode::WrongKind,
            text: format!(
                "this {what} does not fit table {name}, whose entries are {}",
                self.kind.name()
            ),
        }
    }
}

/// Whether a key is within its limit.
pub(super) fn check_key(key: &[u8]) -> Result<(), TableError> {
    if key.len() > KEY_BYTES_MAX {
        return Err(TableError {
            code: ErrorCode::KeyTooLarge,
            text: format!(
                "a key of {} bytes, the limit is {KEY_BYTES_MAX}; use a digest of it as the key",
                key.len()
            ),
        });
    }
    Ok(())
}

/// A request that makes no sense.
pub(super) fn bad_request(text: String) -> TableError {
    TableError {
        code: ErrorCode::BadRequest,
        text,
    }
}
