//! What each request needs, held against what its client's token grants and what the server's limits
//! leave to ask for.

use rhash_protocol::{
    ErrorCode, Op, OpenMode, Ops, Request, TableId, WireError,
    limits::{KEY_BYTES_MAX, PATH_BYTES_MAX},
};

use crate::{access::grant::Rights, connection::Clerk, limits::Limit};

/// What is done to entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Deed {
    Read,
    Write,
    /// A write that tells what was there.
    ReadAndWrite,
}

impl Deed {
    fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::ReadAndWrite => "read and write",
        }
    }

    fn is_within(self, rights: Rights) -> bool {
        match self {
            Self::Read => rights.read,
            Self::Write => rights.write,
            Self::ReadAndWrite => rights.read && rights.write,
        }
    }
}

impl Clerk {
    /// Whether the client may ask this.
    ///
    /// # Errors
    /// `Denied`, with the token's name and what it lacks.
    pub(crate) fn permit(&self, request: &Request<'_>) -> Result<(), WireError> {
        // IMPORTANT: no wildcard. A new kind of request is nobody's right until it stands here.
        let (table, deed) = match *request {
            // Of tables, only those are told that the token has a right on; letting go of one
            // needs none.
            Request::Ping | Request::Tables | Request::Sync | Request::Detach { .. } => {
                return Ok(());
            }
            Request::Stats => return self.permit_admin("see the server's figures"),
            Request::Backup { .. } => return self.permit_admin("make backups"),
            Request::Open { name, mode, .. } => return self.permit_open(name, mode),
            Request::Len { table }
            | Request::IsEmpty { table }
            | Request::Get { table, .. }
            | Request::Contains { table, .. }
            | Request::Fetch { table, .. }
            | Request::Scan { table, .. } => (table, Deed::Read),
            Request::Clear { table } | Request::Close { table } => (table, Deed::Write),
            Request::Write { table, ops } => (table, deed_of(ops)),
        };
        self.permit_on(table, deed)
    }

    fn permit_on(&self, table: TableId, deed: Deed) -> Result<(), WireError> {
        let grant = self.session.grant();
        if deed.is_within(grant.rights) && grant.covers_all() {
            return Ok(());
        }
        // A table that is not open in this session is refused by name of that, later.
        let Some(held) = self.desk.tables.get(&table) else {
            return Ok(());
        };
        let name = held.table.name();
        if deed.is_within(grant.rights_on(name)) {
            Ok(())
        } else {
            Err(self.denied(deed.name(), name, None))
        }
    }

    fn permit_open(&self, name: Option<&str>, mode: OpenMode) -> Result<(), WireError> {
        let rights = self.session.grant().rights_on(name);
        match mode {
            _ if !rights.any_on_tables() => Err(self.denied("open", name, None)),
            OpenMode::CreateNew if !rights.write => Err(self.denied("make", name, None)),
            _ if name.is_none() && !rights.write => Err(self.denied("make", name, None)),
            _ => Ok(()),
        }
    }

    fn permit_admin(&self, deed: &str) -> Result<(), WireError> {
        let grant = self.session.grant();
        if grant.rights.admin {
            return Ok(());
        }
        Err(WireError {
            code: ErrorCode::Denied,
            text: format!("the token {} may not {deed}; that needs admin", grant.name),
        })
    }

    /// Whether a request is within the limits that do not depend on its table.
    ///
    /// # Errors
    /// `BadRequest` or `KeyTooLarge`, with what was given and the limit.
    pub(crate) fn bound(&self, request: &Request<'_>) -> Result<(), WireError> {
        let limits = &self.hub.limits;
        let (entries, key_bytes) = match request {
            Request::Open {
                name: Some(name), ..
            } if name.len() as u64 > limits.table_name_bytes => {
                return Err(self.over(Limit::TableNameBytes, name.len(), limits.table_name_bytes));
            }
            Request::Write { ops, .. } => (ops.count(), self.longest_key(*ops)),
            Request::Get { keys, .. } | Request::Contains { keys, .. } => {
                (keys.count(), self.longest(keys.iter().flatten()))
            }
            Request::Fetch { key, .. } => (1, key.len()),
            Request::Backup { dir } => return bound_path(dir),
            _ => return Ok(()),
        };
        if entries as u64 > limits.batch_entries {
            return Err(self.over(Limit::BatchEntries, entries, limits.batch_entries));
        }
        if key_bytes as u64 > limits.key_bytes {
            return Err(self.over(Limit::KeyBytes, key_bytes, limits.key_bytes));
        }
        Ok(())
    }

    fn longest_key(&self, ops: Ops<'_>) -> usize {
        self.longest(ops.iter().flatten().map(|op| op.key()))
    }

    /// The length of the longest key. Tables look at each of them for the protocol's own limit, so
    /// that this is for a lower one.
    fn longest<'a>(&self, keys: impl Iterator<Item = &'a [u8]>) -> usize {
        if self.hub.limits.key_bytes >= KEY_BYTES_MAX as u64 {
            return 0;
        }
        keys.map(<[u8]>::len).max().unwrap_or(0)
    }

    fn over(&self, limit: Limit, given: usize, most: u64) -> WireError {
        // Too long a key is counted by its error, wherever that is found.
        if limit != Limit::KeyBytes {
            self.hub.reached.count(limit);
        }
        let (code, text) = match limit {
            Limit::KeyBytes => (
                ErrorCode::KeyTooLarge,
                format!("a key of {given} bytes, the limit is {most}"),
            ),
            Limit::BatchEntries => (
                ErrorCode::BadRequest,
                format!("a batch of {given} operations or keys, the limit is {most}"),
            ),
            _ => (
                ErrorCode::BadRequest,
                format!("a table name of {given} bytes, the limit is {most}"),
            ),
        };
        WireError { code, text }
    }

    /// Why something is not done to a table.
    pub(crate) fn denied(&self, deed: &str, table: Option<&str>, why: Option<&str>) -> WireError {
        let token = self.session.grant().name.clone();
        let table = match table {
            Some(name) => format!("the table {name:?}"),
            None => "temporary tables".to_owned(),
        };
        let why = why.map_or_else(String::new, |why| format!(": {why}"));
        WireError {
            code: ErrorCode::Denied,
            text: format!("the token {token} may not {deed} {table}{why}"),
        }
    }
}

/// Whether a path can be one.
fn bound_path(path: &str) -> Result<(), WireError> {
    let text = if path.len() > PATH_BYTES_MAX {
        format!(
            "a path of {} bytes, the limit is {PATH_BYTES_MAX}",
            path.len()
        )
    } else if path.contains('\0') {
        format!("a path with a NUL byte: {path:?}")
    } else {
        return Ok(());
    };
    Err(WireError {
        code: ErrorCode::BadRequest,
        text,
    })
}

/// What a batch does. One that cannot be read is refused later, whole.
fn deed_of(ops: Ops<'_>) -> Deed {
    let tells = |op: Result<Op<'_>, _>| op.is_ok_and(|op| op.is_conditional());
    if ops.iter().any(tells) {
        Deed::ReadAndWrite
    } else {
        Deed::Write
    }
}
