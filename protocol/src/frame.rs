//! One frame: a header of 20 bytes, little-endian, and a body.
//!
//! | bytes | what |
//! |---|---|
//! | 0..4 | length of the body |
//! | 4 | kind |
//! | 5 | flags: bit 0 is MORE, chunk frames of the same request id follow |
//! | 6..8 | zero |
//! | 8..16 | request id; 0 for frames that answer nothing |
//! | 16..20 | CRC-32C of the 16 bytes before it and of the body |
//!
//! A length is checked before anything is allocated for it, and whatever is not in this table
//! (a kind, a flag, a byte that should be zero) is an error.

use crate::limits::FRAME_BYTES_MAX;

/// The length of a frame's header.
pub const HEADER_BYTES: usize = 20;

const CHECKED_HEADER_BYTES: usize = 16;
const FLAG_MORE: u8 = 1;

/// What a frame's body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum FrameKind {
    /// The client's first frame.
    Hello = 1,
    /// The server's answer to it.
    Welcome = 2,
    /// The server's other answer to it, or its last word on a connection.
    Refusal = 3,
    /// A [`Call`](crate::Call).
    Request = 4,
    /// A [`Response`](crate::Response).
    Response = 5,
    /// The next bytes of the message, or of the fetched value, with the same request id.
    Chunk = 6,
    /// A [`Notice`](crate::Notice).
    Notice = 7,
}

impl FrameKind {
    fn from_byte(byte: u8) -> Result<Self, FrameError> {
        Ok(match byte {
            1 => Self::Hello,
            2 => Self::Welcome,
            3 => Self::Refusal,
            4 => Self::Request,
            5 => Self::Response,
            6 => Self::Chunk,
            7 => Self::Notice,
            _ => return Err(FrameError::Kind { kind: byte }),
        })
    }
}

/// Whether chunk frames of the same request id follow a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Follow {
    /// Chunks follow.
    More,
    /// This frame is the last, or the only one.
    Last,
}

/// What a frame says about its body, its length and checksum apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FrameHead {
    /// What the body is.
    pub kind: FrameKind,
    /// Whether chunk frames follow.
    pub follow: Follow,
    /// Which request it belongs to.
    pub request_id: u64,
}

impl FrameHead {
    /// The head of a message that fits one frame.
    pub fn whole(kind: FrameKind, request_id: u64) -> Self {
        Self {
            kind,
            follow: Follow::Last,
            request_id,
        }
    }

    /// The header of a frame with this head and `body`.
    ///
    /// # Errors
    /// [`FrameError::Length`] if the body is too long for one frame.
    pub fn header(&self, body: &[u8]) -> Result<[u8; HEADER_BYTES], FrameError> {
        let too_long = FrameError::Length {
            bytes: body.len(),
            limit: FRAME_BYTES_MAX,
        };
        let Ok(length) = u32::try_from(body.len()) else {
            return Err(too_long);
        };
        if body.len() > FRAME_BYTES_MAX {
            return Err(too_long);
        }
        let [l0, l1, l2, l3] = length.to_le_bytes();
        let [r0, r1, r2, r3, r4, r5, r6, r7] = self.request_id.to_le_bytes();
        let flags = match self.follow {
            Follow::More => FLAG_MORE,
            Follow::Last => 0,
        };
        let kind = self.kind as u8;
        let checked = [
            l0, l1, l2, l3, kind, flags, 0, 0, r0, r1, r2, r3, r4, r5, r6, r7,
        ];
        let mut header = [0; HEADER_BYTES];
        let (head, tail) = header.split_at_mut(CHECKED_HEADER_BYTES);
        head.copy_from_slice(&checked);
        tail.copy_from_slice(&checksum(&checked, body).to_le_bytes());
        Ok(header)
    }
}

/// A header as received: its shape is checked, its checksum not yet.
#[derive(Debug, Clone, Copy)]
pub struct Header {
    head: FrameHead,
    body_bytes: usize,
    checked: [u8; CHECKED_HEADER_BYTES],
    checksum: u32,
}

impl Header {
    /// Reads a header, for a reader that accepts bodies up to `body_bytes_max`.
    ///
    /// # Errors
    /// [`FrameError`] for whatever a sender of this protocol would not have written.
    pub fn parse(header: &[u8; HEADER_BYTES], body_bytes_max: usize) -> Result<Self, FrameError> {
        let [checked @ .., c0, c1, c2, c3] = *header;
        let [
            l0,
            l1,
            l2,
            l3,
            kind,
            flags,
            z0,
            z1,
            r0,
            r1,
            r2,
            r3,
            r4,
            r5,
            r6,
            r7,
        ] = checked;
        let body_bytes = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
        let limit = body_bytes_max.min(FRAME_BYTES_MAX);
        if body_bytes > limit {
            return Err(FrameError::Length {
                bytes: body_bytes,
                limit,
            });
        }
        let kind = FrameKind::from_byte(kind)?;
        let follow = match flags {
            0 => Follow::Last,
            FLAG_MORE => Follow::More,
            _ => return Err(FrameError::Flags { flags }),
        };
        if [z0, z1] != [0, 0] {
            return Err(FrameError::Reserved);
        }
        let request_id = u64::from_le_bytes([r0, r1, r2, r3, r4, r5, r6, r7]);
        Ok(Self {
            head: FrameHead {
                kind,
                follow,
                request_id,
            },
            body_bytes,
            checked,
            checksum: u32::from_le_bytes([c0, c1, c2, c3]),
        })
    }

    /// What the frame says about its body. A damaged header may say anything: trust it only for
    /// how much room to find.
    pub fn head(&self) -> FrameHead {
        self.head
    }

    /// How long the body is.
    pub fn body_bytes(&self) -> usize {
        self.body_bytes
    }

    /// The frame, once its body is there.
    ///
    /// # Errors
    /// [`FrameError::Checksum`] if header or body changed on the way.
    pub fn verify<'a>(&self, body: &'a [u8]) -> Result<Frame<'a>, FrameError> {
        if body.len() != self.body_bytes || checksum(&self.checked, body) != self.checksum {
            return Err(FrameError::Checksum {
                request_id: self.head.request_id,
            });
        }
        Ok(Frame {
            head: self.head,
            body,
        })
    }
}

/// A frame that was received whole and undamaged.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// What the body is.
    pub head: FrameHead,
    /// The body.
    pub body: &'a [u8],
}

impl std::fmt::Debug for Frame<'_> {
    // Bodies hold what users store, which stays out of logs.
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "Frame({:?}, {} bytes)", self.head, self.body.len())
    }
}

/// What came is not a frame of this protocol, or not as it was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The body would be too long.
    #[error("a frame of {bytes} bytes is over the limit of {limit}")]
    Length {
        /// As the header says.
        bytes: usize,
        /// The most that is accepted here.
        limit: usize,
    },
    /// No frame has this kind.
    #[error("unknown kind of frame {kind}")]
    Kind {
        /// As the header says.
        kind: u8,
    },
    /// Flags are set that mean nothing.
    #[error("unknown flags {flags:#04x} in a frame's header")]
    Flags {
        /// As the header says.
        flags: u8,
    },
    /// Bytes that must be zero are not.
    #[error("reserved bytes of a frame's header are not zero")]
    Reserved,
    /// The checksum is that of other bytes.
    #[error("the checksum of a frame of request {request_id} is wrong")]
    Checksum {
        /// As the header says; may itself be what is damaged.
        request_id: u64,
    },
}

fn checksum(checked: &[u8; CHECKED_HEADER_BYTES], body: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(checked), body)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PING: [u8; HEADER_BYTES + 3] = [
        3, 0, 0, 0, 4, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0x24, 0x12, 0x84, 0x0a, // header
        0, 0, 0,
    ];

    fn parse(bytes: &[u8]) -> Result<Frame<'_>, FrameError> {
        let (header, body) = bytes.split_first_chunk().expect("a header");
        Header::parse(header, FRAME_BYTES_MAX)?.verify(body)
    }

    #[test]
    fn a_frame_is_these_bytes() {
        let head = FrameHead::whole(FrameKind::Request, 7);
        assert_eq!(head.header(&[0, 0, 0]).unwrap(), PING[..HEADER_BYTES]);
        assert_eq!(
            parse(&PING),
            Ok(Frame {
                head,
                body: &[0, 0, 0]
            })
        );

        let head = FrameHead {
            kind: FrameKind::Chunk,
            follow: Follow::More,
            request_id: 1 << 40,
        };
        assert_eq!(
            head.header(b"abc").unwrap(),
            [
                3, 0, 0, 0, 6, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0xe0, 0x16, 0xe0, 0xc2
            ]
        );
    }

    #[test]
    fn every_changed_bit_is_noticed() {
        for bit in 0..PING.len() * 8 {
            let mut bytes = PING;
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(parse(&bytes).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn what_is_not_in_the_table_is_named() {
        let with = |at: usize, byte: u8| {
            let mut bytes = PING;
            bytes[at] = byte;
            parse(&bytes).map(|_| ()).unwrap_err()
        };
        assert_eq!(
            with(3, 1).to_string(),
            "a frame of 16777219 bytes is over the limit of 262144"
        );
        assert_eq!(with(4, 0), FrameError::Kind { kind: 0 });
        assert_eq!(with(4, 8), FrameError::Kind { kind: 8 });
        assert_eq!(with(5, 2), FrameError::Flags { flags: 2 });
        assert_eq!(with(7, 1), FrameError::Reserved);
        assert_eq!(with(22, 1), FrameError::Checksum { request_id: 7 });
    }

    #[test]
    fn a_body_over_the_limit_gets_no_header() {
        let body = vec![0; FRAME_BYTES_MAX + 1];
        let head = FrameHead::whole(FrameKind::Chunk, 1);
        assert!(head.header(&body[1..]).is_ok());
        assert!(matches!(head.header(&body), Err(FrameError::Length { .. })));
    }
}
