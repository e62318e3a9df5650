//! Every bound of the protocol, by name. Both sides check them before they allocate.

/// The protocol's version; a server answers clients of this version only.
pub const PROTOCOL_VERSION: u32 = 2;

/// The port that MivRHash listened on in 2010, and that rhash keeps.
pub const DEFAULT_PORT: u16 = 10080;

/// The longest key, in bytes as encoded.
pub const KEY_BYTES_MAX: usize = 64 * 1024;

/// The longest body of one frame; a longer message goes on in chunk frames.
pub const FRAME_BYTES_MAX: usize = 256 * 1024;

/// The ceiling of a server's `--max-value`, whatever its memory limit.
pub const VALUE_BYTES_MAX: usize = 256 * 1024 * 1024;

/// The longest value that a get or a scan returns inside its batch; a longer one is named there
/// as [`Slot::Large`](crate::Slot::Large) and fetched by itself, as a stream.
pub const INLINE_VALUE_BYTES_MAX: usize = 128 * 1024;

/// The bytes of values that one answer to a get or a scan carries before it stops early.
pub const ANSWER_BYTES_TARGET: usize = 192 * 1024;

/// The bytes at which a client closes a batch of writes and begins another.
pub const BATCH_BYTES_TARGET: usize = 192 * 1024;

/// The most operations or keys in one batch.
pub const BATCH_ENTRIES_MAX: usize = 65_536;

/// The longest table name, in bytes.
pub const TABLE_NAME_BYTES_MAX: usize = 255;

/// The longest codec name, in bytes.
pub const CODEC_NAME_BYTES_MAX: usize = 255;

/// The longest path that a request names, in bytes.
pub const PATH_BYTES_MAX: usize = 4096;

/// The longest text of an error, in bytes; a longer one is cut. A refusal with it is no longer than
/// [`HELLO_BYTES_MAX`].
pub const ERROR_TEXT_BYTES_MAX: usize = HELLO_BYTES_MAX - 64;

/// What a message may need beyond the key and the value that it carries.
pub const MESSAGE_OVERHEAD_BYTES: usize = 1024;

/// The longest body of a hello, a welcome or a refusal: the most that is taken from a peer that
/// has not said who it is.
pub const HELLO_BYTES_MAX: usize = 4096;

/// The longest name that a client may give itself, in bytes; a longer one is refused.
pub const CLIENT_NAME_BYTES_MAX: usize = 255;

/// The longest request of a server that takes values up to `value_bytes_max`: a batch whose last
/// operation is a compare-and-swap of two such values.
pub const fn request_bytes_max(value_bytes_max: usize) -> usize {
    value_bytes_max
        .saturating_mul(2)
        .saturating_add(BATCH_BYTES_TARGET)
        .saturating_add(KEY_BYTES_MAX)
        .saturating_add(MESSAGE_OVERHEAD_BYTES)
}
