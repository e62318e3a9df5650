//! Entries as bytes, one after the other in a few chunks, so that RAM holds little but payload.
//!
//! An entry is a header, its key, its value, and slack that the value may grow into. It never moves
//! inside its arena: what outgrows its slack is written anew, and the old copy is dead until the
//! bucket that owns the arena copies the living into a fresh one.

use rhash_protocol::limits::KEY_BYTES_MAX;

use super::chunk::{Chunk, PAGED_BYTES_MIN};

/// Every header begins with: place u64, version u32, flags u8.
const VERSION_AT: usize = 8;
const FLAGS_AT: usize = 12;
const LENGTHS_AT: usize = 13;
/// Most entries are short. Theirs goes on with: key length u8, value length u8, slack u8.
const NARROW_HEADER_BYTES: usize = LENGTHS_AT + 3;
/// A value and its slack together, and a key, are at most so long in an entry with such a header;
/// so it stays narrow however the value grows into its slack.
const NARROW_BYTES_MAX: usize = u8::MAX as usize;
/// The header of others goes on with: key length u24, value length u32, slack u16.
const WIDE_HEADER_BYTES: usize = LENGTHS_AT + 9;
const CHUNK_BYTES_MIN: usize = 64;
const CHUNK_BYTES_MAX: usize = 32 * 1024;
/// An arena of this size goes on page by page: thousands of small tables that come and go would leave a
/// heap full of holes.
const PAGED_FROM_BYTES: usize = 1024;
/// An arena of this size goes on in chunks of this size at least, …
const CHUNKS_FROM_BYTES: usize = 8 * 1024;
/// … about this part of what it has already, which bounds the waste.
const CHUNK_SHARE: usize = 16;
/// Both halves of an [`EntryRef`] have 16 bits.
const CHUNKS_MAX: usize = 1 << 16;
const OFFSETS_MAX: usize = 1 << 16;

const STATE_MASK: u8 = 0b11;
const CLEAN: u8 = 0b100;
const LARGE: u8 = 0b1000;
const WIDE: u8 = 0b100_0000;
const USES_SHIFT: u32 = 4;
const USE: u8 = 1 << USES_SHIFT;

/// Uses are counted so far. That more make no difference keeps what was used a lot, long ago, from
/// staying for ever.
pub(crate) const USES_MAX: u8 = 3;

/// What an entry in RAM says about its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// The whole value.
    Base,
    /// What was added since; the value begins below.
    Fragment,
    /// There is no value, whatever lies below.
    Tombstone,
}

/// Where an entry is: its chunk in the upper half, its offset in the lower.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct EntryRef(u32);

impl EntryRef {
    /// The reference as a number.
    #[inline]
    pub(crate) fn bits(self) -> u32 {
        self.0
    }
}

/// The part of an entry that is not its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    /// The key's place.
    pub(crate) place: u64,
    /// Changes with each write of the entry.
    pub(crate) version: u32,
    /// What the entry says.
    pub(crate) state: State,
    /// The cold tier says the same, so the entry may be dropped.
    pub(crate) clean: bool,
    /// How often it was read of late, up to [`USES_MAX`].
    pub(crate) uses: u8,
    /// The value is a number: the index of a [`super::large::Large`].
    pub(crate) large: bool,
}

impl Header {
    fn flags(self) -> u8 {
        let state = match self.state {
            State::Base => 0,
            State::Fragment => 1,
            State::Tombstone => 2,
        };
        state
            | if self.clean { CLEAN } else { 0 }
            | if self.large { LARGE } else { 0 }
            | self.uses.min(USES_MAX) << USES_SHIFT
    }
}

/// The arena has as many chunks as a reference can name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ArenaFull;

/// Chunks of entries.
#[derive(Debug, Default)]
pub(crate) struct Arena {
    chunks: Vec<Chunk>,
    capacity_bytes: usize,
    dead_bytes: usize,
    /// How much it will hold, as far as anybody can tell.
    expected_bytes: usize,
}

/// The lengths of an entry's parts, as its header gives them.
#[derive(Debug, Clone, Copy)]
struct Lengths {
    header: usize,
    key: usize,
    value: usize,
    slack: usize,
}

impl Lengths {
    fn of(key: usize, value: usize, slack: usize) -> Self {
        let header = if key <= NARROW_BYTES_MAX && value + slack <= NARROW_BYTES_MAX {
            NARROW_HEADER_BYTES
        } else {
            WIDE_HEADER_BYTES
        };
        Self {
            header,
            key,
            value,
            slack,
        }
    }

    #[inline]
    fn read(entry: &[u8]) -> Self {
        if entry[FLAGS_AT] & WIDE == 0 {
            Self {
                header: NARROW_HEADER_BYTES,
                key: usize::from(entry[LENGTHS_AT]),
                value: usize::from(entry[LENGTHS_AT + 1]),
                slack: usize::from(entry[LENGTHS_AT + 2]),
            }
        } else {
            Self {
                header: WIDE_HEADER_BYTES,
                // The word ends in a byte that is not the key's length.
                key: (read_u32(entry, LENGTHS_AT) & 0x00ff_ffff) as usize,
                value: read_u32(entry, LENGTHS_AT + 3) as usize,
                slack: usize::from(read_u16(entry, LENGTHS_AT + 7)),
            }
        }
    }

    fn is_wide(&self) -> bool {
        self.header == WIDE_HEADER_BYTES
    }

    /// Writes the lengths behind the flags.
    #[inline]
    fn write(&self, entry: &mut [u8]) {
        if self.is_wide() {
            entry[LENGTHS_AT..LENGTHS_AT + 3]
                .copy_from_slice(&(self.key as u32).to_le_bytes()[..3]);
            entry[LENGTHS_AT + 3..LENGTHS_AT + 7]
                .copy_from_slice(&(self.value as u32).to_le_bytes());
            entry[LENGTHS_AT + 7..WIDE_HEADER_BYTES]
                .copy_from_slice(&(self.slack as u16).to_le_bytes());
        } else {
            let lengths = [self.key as u8, self.value as u8, self.slack as u8];
            entry[LENGTHS_AT..NARROW_HEADER_BYTES].copy_from_slice(&lengths);
        }
    }

    #[inline]
    fn value_at(&self) -> usize {
        self.header + self.key
    }

    fn entry(&self) -> usize {
        self.header + self.key + self.value + self.slack
    }
}

impl Arena {
    /// An empty arena that will hold about so much.
    pub(crate) fn expecting(bytes: usize) -> Self {
        Self {
            expected_bytes: bytes,
            ..Self::default()
        }
    }

    /// The RAM that the arena takes.
    pub(crate) fn footprint_bytes(&self) -> usize {
        self.capacity_bytes + self.chunks.capacity() * size_of::<Chunk>()
    }

    /// What of it belongs to entries that are no more.
    pub(crate) fn dead_bytes(&self) -> usize {
        self.dead_bytes
    }

    /// Writes an entry whose value may later grow by `slack` bytes.
    ///
    /// # Errors
    /// [`ArenaFull`]; nothing was written.
    pub(crate) fn push(
        &mut self,
        header: Header,
        key: &[u8],
        value: &[u8],
        slack: u16,
    ) -> Result<EntryRef, ArenaFull> {
        debug_assert!(key.len() <= KEY_BYTES_MAX);
        let lengths = Lengths::of(key.len(), value.len(), usize::from(slack));
        let chunk_index = self.chunk_with_room(lengths.entry())?;
        let chunk = &mut self.chunks[chunk_index];
        let at = EntryRef((chunk_index as u32) << 16 | chunk.len() as u32);
        let mut bytes = [0; WIDE_HEADER_BYTES];
        bytes[..VERSION_AT].copy_from_slice(&header.place.to_le_bytes());
        bytes[VERSION_AT..FLAGS_AT].copy_from_slice(&header.version.to_le_bytes());
        bytes[FLAGS_AT] = header.flags() | if lengths.is_wide() { WIDE } else { 0 };
        lengths.write(&mut bytes);
        chunk.push(&bytes[..lengths.header]);
        chunk.push(key);
        chunk.push(value);
        chunk.skip(usize::from(slack));
        Ok(at)
    }

    /// Counts an entry as dead.
    pub(crate) fn retire(&mut self, at: EntryRef) {
        self.dead_bytes += self.entry_bytes(at);
    }

    /// What an entry takes of the arena, its slack included.
    pub(crate) fn entry_bytes(&self, at: EntryRef) -> usize {
        Lengths::read(self.entry(at)).entry()
    }

    /// The entry's place, read alone.
    #[inline]
    pub(crate) fn place(&self, at: EntryRef) -> u64 {
        read_u64(self.entry(at), 0)
    }

    /// The entry's header.
    #[inline]
    pub(crate) fn header(&self, at: EntryRef) -> Header {
        Self::read_header(self.entry(at))
    }

    /// The entry's header, key and value.
    #[inline]
    pub(crate) fn parts(&self, at: EntryRef) -> (Header, &[u8], &[u8]) {
        let entry = self.entry(at);
        let lengths = Lengths::read(entry);
        let (key_at, value_at) = (lengths.header, lengths.value_at());
        (
            Self::read_header(entry),
            &entry[key_at..value_at],
            &entry[value_at..value_at + lengths.value],
        )
    }

    /// Whether this is the entry of `key`.
    #[inline]
    pub(crate) fn is_of(&self, at: EntryRef, place: u64, key: &[u8]) -> bool {
        let entry = self.entry(at);
        if read_u64(entry, 0) != place {
            return false;
        }
        let lengths = Lengths::read(entry);
        &entry[lengths.header..lengths.value_at()] == key
    }

    #[inline]
    fn read_header(entry: &[u8]) -> Header {
        let flags = entry[FLAGS_AT];
        Header {
            place: read_u64(entry, 0),
            version: read_u32(entry, VERSION_AT),
            state: match flags & STATE_MASK {
                0 => State::Base,
                1 => State::Fragment,
                _ => State::Tombstone,
            },
            clean: flags & CLEAN != 0,
            uses: uses(flags),
            large: flags & LARGE != 0,
        }
    }

    /// Counts a use of an entry; says whether it is the first one.
    #[inline]
    pub(crate) fn count_use(&mut self, at: EntryRef) -> bool {
        let before = uses(self.entry(at)[FLAGS_AT]);
        if before < USES_MAX {
            self.entry_mut(at)[FLAGS_AT] += USE;
        }
        before == 0
    }

    /// Writes an entry's header anew.
    #[inline]
    pub(crate) fn set_header(&mut self, at: EntryRef, header: Header) {
        let entry = self.entry_mut(at);
        entry[..VERSION_AT].copy_from_slice(&header.place.to_le_bytes());
        entry[VERSION_AT..FLAGS_AT].copy_from_slice(&header.version.to_le_bytes());
        entry[FLAGS_AT] = header.flags() | entry[FLAGS_AT] & WIDE;
    }

    /// The entry's key.
    #[inline]
    pub(crate) fn key(&self, at: EntryRef) -> &[u8] {
        let entry = self.entry(at);
        let lengths = Lengths::read(entry);
        &entry[lengths.header..lengths.value_at()]
    }

    /// The entry's value.
    #[inline]
    pub(crate) fn value(&self, at: EntryRef) -> &[u8] {
        let entry = self.entry(at);
        let lengths = Lengths::read(entry);
        &entry[lengths.value_at()..lengths.value_at() + lengths.value]
    }

    /// How much longer the value may get in its place.
    #[inline]
    pub(crate) fn slack(&self, at: EntryRef) -> usize {
        Lengths::read(self.entry(at)).slack
    }

    /// Replaces the value where it is; says whether there was room.
    pub(crate) fn overwrite(&mut self, at: EntryRef, value: &[u8]) -> bool {
        let entry = self.entry_mut(at);
        let mut lengths = Lengths::read(entry);
        // A slack beyond its field would be lost; such an entry is written anew.
        let room = lengths.value + lengths.slack;
        let Some(slack) = room
            .checked_sub(value.len())
            .filter(|&slack| slack <= usize::from(u16::MAX))
        else {
            return false;
        };
        let value_at = lengths.value_at();
        entry[value_at..value_at + value.len()].copy_from_slice(value);
        (lengths.value, lengths.slack) = (value.len(), slack);
        lengths.write(entry);
        true
    }

    /// Adds to the value's end where it is; says whether there was room.
    pub(crate) fn extend(&mut self, at: EntryRef, bytes: &[u8]) -> bool {
        let entry = self.entry_mut(at);
        let mut lengths = Lengths::read(entry);
        if bytes.len() > lengths.slack {
            return false;
        }
        let end = lengths.value_at() + lengths.value;
        entry[end..end + bytes.len()].copy_from_slice(bytes);
        lengths.value += bytes.len();
        lengths.slack -= bytes.len();
        lengths.write(entry);
        true
    }

    fn chunk_with_room(&mut self, bytes: usize) -> Result<usize, ArenaFull> {
        if let Some(last) = self.chunks.last()
            && last.capacity() - last.len() >= bytes
            && last.len() < OFFSETS_MAX
        {
            return Ok(self.chunks.len() - 1);
        }
        if self.chunks.len() == CHUNKS_MAX {
            return Err(ArenaFull);
        }
        let share = match self.capacity_bytes {
            // Little is known of an arena that is young, so it grows in small steps of the heap.
            small if small.max(self.expected_bytes) < PAGED_FROM_BYTES => {
                (small / 2).max(CHUNK_BYTES_MIN)
            }
            few if few.max(self.expected_bytes) < CHUNKS_FROM_BYTES => PAGED_BYTES_MIN,
            bytes => (bytes / CHUNK_SHARE).clamp(CHUNKS_FROM_BYTES, CHUNK_BYTES_MAX),
        };
        let chunk = Chunk::with_capacity(bytes.max(1 << share.ilog2()));
        self.capacity_bytes += chunk.capacity();
        self.chunks.push(chunk);
        Ok(self.chunks.len() - 1)
    }

    #[inline]
    fn entry(&self, at: EntryRef) -> &[u8] {
        &self.chunks[(at.0 >> 16) as usize].bytes()[(at.0 & 0xffff) as usize..]
    }

    #[inline]
    fn entry_mut(&mut self, at: EntryRef) -> &mut [u8] {
        &mut self.chunks[(at.0 >> 16) as usize].bytes_mut()[(at.0 & 0xffff) as usize..]
    }
}

/// The uses that an entry's flags count.
#[inline]
fn uses(flags: u8) -> u8 {
    flags >> USES_SHIFT & USES_MAX
}

#[inline]
fn read_u64(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}

#[inline]
fn read_u32(bytes: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(word)
}

#[inline]
fn read_u16(bytes: &[u8], at: usize) -> u16 {
    let mut word = [0; 2];
    word.copy_from_slice(&bytes[at..at + 2]);
    u16::from_le_bytes(word)
}
