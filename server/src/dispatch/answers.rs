//! Answers as bytes.

use bytes::Bytes;
use rhash_protocol::{
    Outcomes, Response, Values, codec,
    packed::{Page, PageEntries, Presence},
};

use crate::{
    log::OwnedReply,
    table::{PackedReply, PageReply},
};

/// An answer's bytes, and how many operations it answers.
pub(super) struct Encoded {
    pub(super) body: Bytes,
    pub(super) operations: usize,
}

impl Encoded {
    pub(super) fn one(response: &Response<'_>) -> Self {
        Self {
            body: encode(response),
            operations: 1,
        }
    }
}

pub(super) fn encode_values(reply: PackedReply) -> Encoded {
    let values = Values::new(reply.count, &reply.bytes);
    Encoded {
        body: encode(&Response::Values(values)),
        operations: reply.count as usize,
    }
}

pub(super) fn encode_presence(reply: PackedReply) -> Encoded {
    let presence = Presence::new(reply.count, &reply.bytes);
    Encoded {
        body: encode(&Response::Present(presence)),
        operations: reply.count as usize,
    }
}

pub(super) fn encode_page(reply: PageReply) -> Encoded {
    let PageReply { next, entries } = reply;
    let operations = entries.count as usize;
    let page = Page {
        next,
        entries: PageEntries::new(entries.count, &entries.bytes),
    };
    Encoded {
        body: encode(&Response::Page(page)),
        operations,
    }
}

/// What a response takes beyond its packed entries, mostly.
const ENVELOPE_BYTES: usize = 64;

/// The bytes of a response's packed entries.
fn packed_bytes(response: &Response<'_>) -> usize {
    match response {
        Response::Written(outcomes) => outcomes.bytes().len(),
        Response::Values(values) => values.bytes().len(),
        Response::Present(presence) => presence.bytes().len(),
        Response::Page(page) => page.entries.bytes().len(),
        _ => 0,
    }
}

/// An answer that was kept, as it was sent.
pub(super) fn body_of(kept: &OwnedReply) -> Bytes {
    match kept {
        OwnedReply::Body(body) => body.clone(),
        OwnedReply::Written(count, outcomes) => {
            encode(&Response::Written(Outcomes::new(*count, outcomes)))
        }
    }
}

/// A response as bytes.
pub(crate) fn encode(response: &Response<'_>) -> Bytes {
    // Made to measure, since a buffer that doubles takes up to three times that meanwhile.
    let mut body = Vec::with_capacity(packed_bytes(response) + ENVELOPE_BYTES);
    if let Err(error) = codec::encode(response, &mut body) {
        // Cannot happen to the types of the protocol; an empty answer is one that no client takes
        // for another.
        tracing::error!(%error, "an answer cannot be encoded");
        body.clear();
    }
    Bytes::from(body)
}
