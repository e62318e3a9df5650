//! Messages out of frames: one frame is passed on as it is, several are put together.
//!
//! What a peer can make this side hold is bounded twice, by the bytes of all messages under way
//! and by their number; messages of different request ids may be interleaved within that.

use std::borrow::Cow;

use crate::frame::{Follow, Frame, FrameKind};

/// What a peer may make an assembler hold.
#[derive(Debug, Clone, Copy)]
pub struct AssemblyLimits {
    /// The most bytes of all messages under way.
    pub bytes_max: usize,
    /// The most messages under way.
    pub messages_max: usize,
}

/// A whole message.
#[derive(Clone, PartialEq, Eq)]
pub struct Message<'a> {
    /// The kind of its first frame.
    pub kind: FrameKind,
    /// Which request it belongs to.
    pub request_id: u64,
    /// Its bytes; borrowed from the frame if it was a single one.
    pub body: Cow<'a, [u8]>,
}

impl std::fmt::Debug for Message<'_> {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            out,
            "Message({:?} {}, {} bytes)",
            self.kind,
            self.request_id,
            self.body.len()
        )
    }
}

/// A frame does not fit the messages that are under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AssemblyError {
    /// The messages under way would be too long.
    #[error("messages of over {limit} bytes in parts")]
    Bytes {
        /// The limit.
        limit: usize,
    },
    /// Too many messages are under way.
    #[error("more than {limit} messages in parts at once")]
    Messages {
        /// The limit.
        limit: usize,
    },
    /// A chunk belongs to no message under way.
    #[error("a chunk of request {request_id}, which has no message under way")]
    Stray {
        /// As the frame says.
        request_id: u64,
    },
    /// A message begins under the request id of one that is under way.
    #[error("a second message of request {request_id} inside its first")]
    Overlap {
        /// As the frame says.
        request_id: u64,
    },
}

/// Puts messages together.
#[derive(Debug)]
pub struct Assembler {
    limits: AssemblyLimits,
    /// In no order; few, as the limit says.
    parts: Vec<Part>,
    bytes: usize,
}

#[derive(Debug)]
struct Part {
    kind: FrameKind,
    request_id: u64,
    bytes: Vec<u8>,
}

impl Assembler {
    /// An assembler that holds no more than `limits`.
    pub fn new(limits: AssemblyLimits) -> Self {
        Self {
            limits,
            parts: Vec::new(),
            bytes: 0,
        }
    }

    /// The bytes of all messages under way.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes the next frame; gives the message that it makes whole, if it does.
    ///
    /// # Errors
    /// [`AssemblyError`] if the frame is over the limits or out of order. The stream that it
    /// came from is of no more use then.
    pub fn push<'a>(&mut self, frame: Frame<'a>) -> Result<Option<Message<'a>>, AssemblyError> {
        let request_id = frame.head.request_id;
        let at = self
            .parts
            .iter()
            .position(|part| part.request_id == request_id);
        match (frame.head.kind, at, frame.head.follow) {
            (FrameKind::Chunk, None, _) => Err(AssemblyError::Stray { request_id }),
            (FrameKind::Chunk, Some(at), follow) => self.go_on(at, follow, frame),
            (_, Some(_), _) => Err(AssemblyError::Overlap { request_id }),
            (kind, None, Follow::Last) => Ok(Some(Message {
                kind,
                request_id,
                body: Cow::Borrowed(frame.body),
            })),
            (kind, None, Follow::More) => {
                if self.parts.len() >= self.limits.messages_max {
                    return Err(AssemblyError::Messages {
                        limit: self.limits.messages_max,
                    });
                }
                self.charge(frame.body.len())?;
                self.parts.push(Part {
                    kind,
                    request_id,
                    bytes: frame.body.to_vec(),
                });
                Ok(None)
            }
        }
    }

    /// Drops the message of `request_id`, if one is under way: its receiver is gone.
    pub fn forget(&mut self, request_id: u64) {
        if let Some(at) = self
            .parts
            .iter()
            .position(|part| part.request_id == request_id)
        {
            let part = self.parts.swap_remove(at);
            self.bytes = self.bytes.saturating_sub(part.bytes.len());
        }
    }

    fn go_on<'a>(
        &mut self,
        at: usize,
        follow: Follow,
        frame: Frame<'a>,
    ) -> Result<Option<Message<'a>>, AssemblyError> {
        self.charge(frame.body.len())?;
        if let Some(part) = self.parts.get_mut(at) {
            part.bytes.extend_from_slice(frame.body);
        }
        if follow == Follow::More {
            return Ok(None);
        }
        let part = self.parts.swap_remove(at);
        self.bytes = self.bytes.saturating_sub(part.bytes.len());
        let Part {
            kind,
            request_id,
            bytes,
        } = part;
        Ok(Some(Message {
            kind,
            request_id,
            body: Cow::Owned(bytes),
        }))
    }

    fn charge(&mut self, bytes: usize) -> Result<(), AssemblyError> {
        let limit = self.limits.bytes_max;
        let after = self.bytes.saturating_add(bytes);
        if after > limit {
            return Err(AssemblyError::Bytes { limit });
        }
        self.bytes = after;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::FrameHead;

    fn frame(kind: FrameKind, follow: Follow, request_id: u64, body: &[u8]) -> Frame<'_> {
        Frame {
            head: FrameHead {
                kind,
                follow,
                request_id,
            },
            body,
        }
    }

    fn assembler() -> Assembler {
        Assembler::new(AssemblyLimits {
            bytes_max: 10,
            messages_max: 2,
        })
    }

    use Follow::{Last, More};
    use FrameKind::{Chunk, Request};

    #[test]
    fn a_single_frame_is_borrowed() {
        let body = b"longer than the limit, which is for parts";
        let message = assembler()
            .push(frame(Request, Last, 1, body))
            .unwrap()
            .unwrap();
        assert!(matches!(message.body, Cow::Borrowed(_)));
        assert_eq!((message.kind, message.request_id), (Request, 1));
    }

    #[test]
    fn interleaved_messages_come_out_whole() {
        let mut assembler = assembler();
        assert_eq!(assembler.push(frame(Request, More, 1, b"ab")), Ok(None));
        assert_eq!(assembler.push(frame(Request, More, 2, b"12")), Ok(None));
        assert!(
            assembler
                .push(frame(Request, Last, 3, b"z"))
                .unwrap()
                .is_some()
        );
        assert_eq!(assembler.push(frame(Chunk, More, 1, b"cd")), Ok(None));
        let second = assembler.push(frame(Chunk, Last, 2, b"")).unwrap().unwrap();
        assert_eq!((&*second.body, second.request_id), (&b"12"[..], 2));
        let first = assembler
            .push(frame(Chunk, Last, 1, b"ef"))
            .unwrap()
            .unwrap();
        assert_eq!((&*first.body, first.kind), (&b"abcdef"[..], Request));
        assert_eq!(assembler.bytes(), 0);
    }

    #[test]
    fn the_limits_hold_over_all_messages() {
        let mut assembler = assembler();
        assert_eq!(assembler.push(frame(Request, More, 1, b"12345")), Ok(None));
        assert_eq!(assembler.push(frame(Request, More, 2, b"12345")), Ok(None));
        let third = assembler.push(frame(Request, More, 3, b""));
        assert_eq!(third, Err(AssemblyError::Messages { limit: 2 }));
        let eleventh = assembler.push(frame(Chunk, Last, 2, b"x"));
        assert_eq!(eleventh, Err(AssemblyError::Bytes { limit: 10 }));
        assembler.forget(1);
        assert!(
            assembler
                .push(frame(Chunk, Last, 2, b"x"))
                .unwrap()
                .is_some()
        );
    }

    #[test]
    fn frames_out_of_order_are_errors() {
        let mut assembler = assembler();
        let stray = assembler.push(frame(Chunk, Last, 5, b""));
        assert_eq!(stray, Err(AssemblyError::Stray { request_id: 5 }));
        assert_eq!(assembler.push(frame(Request, More, 5, b"")), Ok(None));
        let overlap = assembler.push(frame(Request, Last, 5, b""));
        assert_eq!(overlap, Err(AssemblyError::Overlap { request_id: 5 }));
    }
}
