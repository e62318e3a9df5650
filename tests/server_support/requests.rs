//! A request of each kind, and what it needs of a token. A kind without a row does not compile.

use rhash_protocol::{Keys, Op, OpenMode, Ops, Request, ScanWhat, TableId, TableKind};

use super::{keys_bytes, ops_bytes};

/// A request of each kind on a table, and the name of the kind.
pub(crate) fn kinds(table: TableId, packed: &Packed) -> Vec<(&'static str, Request<'_>)> {
    let of = |sample: Sample| {
        let request = sample(table, packed);
        (needs(&request).0, request)
    };
    samples().into_iter().map(of).collect()
}

/// What a kind of request needs of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Needs {
    /// Any token.
    Nothing,
    Read,
    Write,
    Admin,
}

/// Makes the table of all kinds of requests. A kind without a row does not compile.
macro_rules! rows {
    ($($kind:ident needs $needs:ident: $sample:expr;)*) => {
        pub(crate) fn needs(request: &Request<'_>) -> (&'static str, Needs) {
            match request {
                $(Request::$kind { .. } => (stringify!($kind), Needs::$needs),)*
            }
        }

        /// A request of each kind, on a table.
        pub(crate) fn samples() -> Vec<Sample> {
            vec![$($sample),*]
        }
    };
}

/// Makes a request on a table, with what others need.
pub(crate) type Sample = for<'a> fn(TableId, &'a Packed) -> Request<'a>;

/// The packed halves of some requests.
pub(crate) struct Packed {
    keys: Vec<u8>,
    ops: Vec<u8>,
}

rows! {
    Ping needs Nothing: |_, _| Request::Ping;
    Open needs Write: |_, _| Request::Open {
        name: Some("made"),
        kind: Some(TableKind::Values),
        codec: Some("bytes"),
        mode: OpenMode::CreateNew,
        durability: None,
    };
    Tables needs Nothing: |_, _| Request::Tables;
    Len needs Read: |table, _| Request::Len { table };
    IsEmpty needs Read: |table, _| Request::IsEmpty { table };
    Clear needs Write: |table, _| Request::Clear { table };
    Close needs Write: |table, _| Request::Close { table };
    Detach needs Nothing: |table, _| Request::Detach { table };
    Write needs Write: |table, packed| Request::Write {
        table,
        ops: Ops::new(1, &packed.ops),
    };
    Get needs Read: |table, packed| Request::Get {
        table,
        keys: Keys::new(1, &packed.keys),
    };
    Contains needs Read: |table, packed| Request::Contains {
        table,
        keys: Keys::new(1, &packed.keys),
    };
    Fetch needs Read: |table, _| Request::Fetch { table, key: b"key" };
    Scan needs Read: |table, _| Request::Scan {
        table,
        cursor: None,
        what: ScanWhat::Items,
        entries_max: 10,
    };
    Stats needs Admin: |_, _| Request::Stats;
    Sync needs Nothing: |_, _| Request::Sync;
    Backup needs Admin: |_, _| Request::Backup { dir: "/none/such" };
}

/// What the requests need that is packed.
pub(crate) fn packed() -> Packed {
    let put = Op::Put {
        key: b"key",
        value: b"overwritten",
    };
    Packed {
        keys: keys_bytes(&[b"key"]),
        ops: ops_bytes(&[put]),
    }
}
