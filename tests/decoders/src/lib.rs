//! Everything in rhash that decodes bytes which somebody else may have written: from the network,
//! from the disk, from files and arguments. Each decoder takes any bytes and returns; that it does is
//! what the fuzz targets and the tests hold it to.

mod mutate;
mod seeds;

use std::{hint::black_box, str::FromStr as _};

use futures_util::FutureExt as _;
pub use mutate::Mutator;
use rhash_client::{Address, Item, Value, ValueCodec};
use rhash_protocol::{
    Call, Notice, Request, Response, WireError,
    assembler::{Assembler, AssemblyLimits},
    codec,
    connection::FrameReader,
    frame::{Follow, FrameHead, FrameKind},
    handshake::{Hello, Welcome},
    limits::FRAME_BYTES_MAX,
};
use rhash_server::{
    access::{grant::Pattern, tokens::parse_tokens},
    decoders,
    size::{ByteSize, parse_span},
};

/// Something that decodes.
#[derive(Debug, Clone, Copy)]
pub struct Decoder {
    /// What it decodes.
    pub name: &'static str,
    /// Decodes.
    pub decode: fn(&[u8]),
    /// Bytes that make sense, to begin with.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// What it may allocate, times the bytes that it is given.
    pub growth: usize,
    /// What it may allocate however few these are.
    pub floor_bytes: usize,
}

/// Four times the input, or a page or two.
const GROWTH: usize = 4;
const FLOOR_BYTES: usize = 8 * 1024;

/// A reader of frames reads ahead so much before it has seen any, and makes room for one whose header
/// says that it is long.
const READER_BYTES: usize = 32 * 1024 + FRAME_BYTES_MAX;

/// A list whose length is a lie is made room for up to this, before its first element is missed; it
/// is for clients alone, that take far longer messages.
const LIST_BYTES: usize = 1 << 20;

/// A number of a byte becomes one of eight in a list that grows by doubling, and an empty range of two
/// bytes one of 32.
const MANIFEST_GROWTH: usize = 64;

/// All of them.
pub const DECODERS: [Decoder; 11] = [
    Decoder {
        name: "frames",
        decode: frames,
        seeds: seeds::frames,
        growth: GROWTH,
        floor_bytes: FLOOR_BYTES + READER_BYTES,
    },
    Decoder {
        name: "requests",
        decode: requests,
        seeds: seeds::requests,
        growth: GROWTH,
        floor_bytes: FLOOR_BYTES,
    },
    Decoder {
        name: "responses",
        decode: responses,
        seeds: seeds::responses,
        growth: GROWTH,
        floor_bytes: FLOOR_BYTES + LIST_BYTES,
    },
    Decoder {
        name: "greetings",
        decode: greetings,
        seeds: seeds::greetings,
        growth: GROWTH,
        floor_bytes: FLOOR_BYTES,
    },
    Decoder {
        name: "values",
        decode: values,
        seeds: seeds::values,
        // A value of a byte is one of 32 in a list that grows by doubling.
        growth: MANIFEST_GROWTH,
        floor_bytes: FLOOR_BYTES,
    },
    Decoder {
        name: "runs",
        decode: runs,
        seeds: seeds::runs,
        growth: GROWTH,
        floor_bytes: FLOOR_BYTES,
    },
    Decoder {
        name: "manifest",
        decode: manifest,
        seeds: decoders::sample_manifests,
        growth: MANIFEST_GROWTH,
        floor_bytes: FLOOR_BYTES,
    },
    Decoder {
        name: "notes",
        decode: notes,
        seeds: decoders::sample_run_notes,
        growth: MANIFEST_GROWTH,
        floor_bytes: FLOOR_BYTES,
    },
    Decoder {
        name: "log",
        decode: log,
        seeds: decoders::sample_log_records,
        growth: MANIFEST_GROWTH,
        floor_bytes: FLOOR_BYTES,
    },
    Decoder {
        name: "tokens",
        decode: tokens,
        seeds: seeds::tokens,
        // Its signs are kept as 32 bits, beside the text.
        growth: 16,
        floor_bytes: FLOOR_BYTES,
    },
    Decoder {
        name: "arguments",
        decode: arguments,
        seeds: seeds::arguments,
        growth: GROWTH,
        floor_bytes: FLOOR_BYTES,
    },
];

/// Frames from a stream, and the messages that they make.
pub fn frames(bytes: &[u8]) {
    take_frames(bytes);
    // With a checksum that fits, so that what comes after it is reached, too.
    let Some((&[kind, id], body)) = bytes.split_first_chunk() else {
        return;
    };
    let kinds = [FrameKind::Request, FrameKind::Chunk, FrameKind::Response];
    let head = FrameHead {
        kind: kinds[usize::from(kind) % kinds.len()],
        follow: if kind & 0x80 == 0 {
            Follow::Last
        } else {
            Follow::More
        },
        request_id: u64::from(id & 3),
    };
    let half = body.len() / 2;
    let mut stream = Vec::with_capacity(bytes.len() + 64);
    for body in [&body[..half], &body[half..]] {
        if let Ok(header) = head.header(body) {
            stream.extend_from_slice(&header);
            stream.extend_from_slice(body);
        }
    }
    take_frames(&stream);
}

fn take_frames(bytes: &[u8]) {
    let mut reader = FrameReader::new(bytes);
    let mut assembler = Assembler::new(AssemblyLimits {
        bytes_max: FRAME_BYTES_MAX,
        messages_max: 4,
    });
    // All bytes are there, so that nothing is ever waited for.
    while let Some(Ok(Some(frame))) = reader.next().now_or_never() {
        match assembler.push(frame) {
            Ok(message) => drop(black_box(message)),
            Err(_) => break,
        }
    }
}

/// Requests, down to the operations and keys in them.
pub fn requests(bytes: &[u8]) {
    let Ok(call) = codec::decode::<Call<'_>>(bytes) else {
        return;
    };
    match call.request {
        Request::Write { ops, .. } => {
            let sound = ops.check().is_ok();
            let counted = ops.iter().take_while(Result::is_ok).count();
            assert!(!sound || counted == ops.count());
        }
        Request::Get { keys, .. } | Request::Contains { keys, .. } => {
            let sound = keys.check().is_ok();
            let counted = keys.iter().take_while(Result::is_ok).count();
            assert!(!sound || counted == keys.count());
        }
        request => drop(black_box(request)),
    }
}

/// Responses and notices, down to the entries in them.
pub fn responses(bytes: &[u8]) {
    drop(black_box(codec::decode::<Notice>(bytes)));
    match codec::decode::<Response<'_>>(bytes) {
        Ok(Response::Written(outcomes)) => {
            black_box(outcomes.iter().take_while(Result::is_ok).count());
        }
        Ok(Response::Values(values)) => {
            black_box(values.iter().take_while(Result::is_ok).count());
        }
        Ok(Response::Present(presence)) => {
            black_box(presence.iter().take_while(Result::is_ok).count());
        }
        Ok(Response::Page(page)) => {
            black_box(page.entries.iter().take_while(Result::is_ok).count());
        }
        response => drop(black_box(response)),
    }
}

/// What both sides say first.
pub fn greetings(bytes: &[u8]) {
    drop(black_box(codec::decode::<Hello>(bytes)));
    drop(black_box(codec::decode::<Welcome>(bytes)));
    drop(black_box(codec::decode::<WireError>(bytes)));
}

/// Parts of runs.
pub fn runs(bytes: &[u8]) {
    decoders::run(bytes);
}

/// A record of the log.
pub fn log(bytes: &[u8]) {
    decoders::log_record(bytes);
}

/// Manifests, and their records.
pub fn manifest(bytes: &[u8]) {
    decoders::manifest(bytes);
}

/// What runs say of where they belong.
pub fn notes(bytes: &[u8]) {
    decoders::run_note(bytes);
}

/// Self-describing values.
pub fn values(bytes: &[u8]) {
    drop(black_box(<Value as Item<ValueCodec>>::decode(bytes)));
}

/// A tokens file, and the patterns in it.
pub fn tokens(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Ok(grants) = parse_tokens(&text) {
        for grant in grants {
            black_box(grant.rights_on(Some("a table")));
        }
    }
    // However many stars there are.
    let (pattern, name) = text.split_at(text.floor_char_boundary(text.len() / 2));
    black_box(Pattern::new(pattern).matches(name));
}

/// Sizes, times and addresses.
pub fn arguments(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Ok(size) = ByteSize::from_str(&text) {
        assert!(size.to_string().parse::<ByteSize>().is_ok());
    }
    drop(black_box(parse_span(&text)));
    if let Ok(address) = Address::from_str(&text) {
        assert!(address.to_string().parse::<Address>().is_ok(), "{address}");
    }
}
