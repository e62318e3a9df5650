//! Whatever bytes come, decoding ends in a message or an error.

#![expect(clippy::unwrap_used, reason = "a test helper fails by panicking")]

use proptest::{collection::vec, option, prelude::*, sample::Index};
use rhash_protocol::{
    Call, Durability, Keys, Notice, OpenMode, Ops, Request, Response, ScanWhat, TableKind, codec,
    frame::{Frame, FrameError, FrameHead, FrameKind, HEADER_BYTES, Header},
    limits::FRAME_BYTES_MAX,
};

/// The operands of any request.
#[derive(Debug, Clone)]
struct Operands {
    which: usize,
    sequence: u64,
    table: u64,
    name: Option<String>,
    kind: Option<u8>,
    bytes: Vec<u8>,
    count: u32,
}

impl Operands {
    fn call(&self) -> Call<'_> {
        let Self { table, count, .. } = *self;
        let bytes = self.bytes.as_slice();
        let request = match self.which % 9 {
            0 => Request::Open {
                name: self.name.as_deref(),
                kind: self.kind.map(|kind| match kind % 3 {
                    0 => TableKind::Values,
                    1 => TableKind::Lists,
                    _ => TableKind::Counters,
                }),
                codec: self.name.as_deref(),
                mode: OpenMode::CreateNew,
                durability: self.kind.map(|kind| Durability::ALL[usize::from(kind) % 3]),
            },
            1 => Request::Write {
                table,
                ops: Ops::new(count, bytes),
            },
            2 => Request::Get {
                table,
                keys: Keys::new(count, bytes),
            },
            3 => Request::Contains {
                table,
                keys: Keys::new(count, bytes),
            },
            4 => Request::Fetch { table, key: bytes },
            5 => Request::Scan {
                table,
                cursor: self.kind.map(|_| bytes),
                what: ScanWhat::Items,
                entries_max: count,
            },
            6 => Request::Len { table },
            7 => Request::Backup {
                dir: self.name.as_deref().unwrap_or("/"),
            },
            _ => Request::Stats,
        };
        Call {
            sequence: self.sequence,
            settled: self.sequence / 2,
            request,
        }
    }
}

fn operands() -> impl Strategy<Value = Operands> {
    (
        any::<usize>(),
        any::<u64>(),
        any::<u64>(),
        option::of(".{0,40}"),
        option::of(any::<u8>()),
        vec(any::<u8>(), 0..500),
        any::<u32>(),
    )
        .prop_map(
            |(which, sequence, table, name, kind, bytes, count)| Operands {
                which,
                sequence,
                table,
                name,
                kind,
                bytes,
                count,
            },
        )
}

fn encoded(call: &Call<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    codec::encode(call, &mut bytes).unwrap();
    bytes
}

/// Reads all that can be read of a message; that it returns is the test.
fn read_through(bytes: &[u8]) {
    if let Ok(call) = codec::decode::<Call<'_>>(bytes) {
        match call.request {
            Request::Write { ops, .. } => assert!(ops.iter().count() <= ops.bytes().len() + 1),
            Request::Get { keys, .. } => assert!(keys.iter().count() <= keys.bytes().len() + 1),
            _ => {}
        }
    }
    if let Ok(response) = codec::decode::<Response<'_>>(bytes) {
        match response {
            Response::Written(outcomes) => drop(outcomes.check()),
            Response::Values(values) => drop(values.check()),
            Response::Present(presence) => drop(presence.check()),
            Response::Page(page) => drop(page.entries.check()),
            _ => {}
        }
    }
    drop(codec::decode::<Notice>(bytes));
}

fn parse(bytes: &[u8]) -> Result<Option<Frame<'_>>, FrameError> {
    let Some((header, body)) = bytes.split_first_chunk::<HEADER_BYTES>() else {
        return Ok(None);
    };
    let header = Header::parse(header, FRAME_BYTES_MAX)?;
    match body.get(..header.body_bytes()) {
        Some(body) => header.verify(body).map(Some),
        None => Ok(None),
    }
}

proptest! {
    #[test]
    fn calls_come_back(operands in operands()) {
        let call = operands.call();
        let bytes = encoded(&call);
        prop_assert_eq!(codec::decode::<Call<'_>>(&bytes).unwrap(), call);
    }

    #[test]
    fn cut_calls_are_errors(operands in operands(), cut in any::<Index>()) {
        let bytes = encoded(&operands.call());
        prop_assert!(codec::decode::<Call<'_>>(&bytes[..cut.index(bytes.len())]).is_err());
    }

    #[test]
    fn changed_messages_never_panic(
        operands in operands(),
        changes in vec((any::<Index>(), any::<u8>()), 1..4),
    ) {
        let mut bytes = encoded(&operands.call());
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        read_through(&bytes);
    }

    #[test]
    fn arbitrary_messages_never_panic(bytes in vec(any::<u8>(), 0..300)) {
        read_through(&bytes);
        prop_assert!(!matches!(parse(&bytes), Ok(Some(_))), "a checksum is not met by chance");
    }

    #[test]
    fn changed_frames_are_never_taken_for_good(
        body in vec(any::<u8>(), 0..300),
        request_id in any::<u64>(),
        at in any::<Index>(),
        change in 1..=255u8,
    ) {
        let head = FrameHead::whole(FrameKind::Request, request_id);
        let mut bytes = head.header(&body).unwrap().to_vec();
        bytes.extend_from_slice(&body);
        prop_assert_eq!(parse(&bytes), Ok(Some(Frame { head, body: &body })));
        let at = at.index(bytes.len());
        bytes[at] ^= change;
        prop_assert!(!matches!(parse(&bytes), Ok(Some(_))));
    }
}
