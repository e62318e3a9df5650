//! Entries as bytes, one after the other in a few chunks, so that RAM holds little but payload.
//!
//! An entry is a header, its key, its value, and slack that the value may grow into. It never moves
//! inside its arena: what outgrows its slack is written anew, and the old copy is dead until the
//! bucket that owns the arena copies the living into a fresh one.

use rhash_protocol::limits::KEY_BYTES_MAX;

use super::chunk::{Chunk, MAPPED_BYTES_MIN};

/// place u64, version u32, key length u24 and flags u8, value length u32, slack u16.
const HEADER_BYTES: usize = 22;
const CHUNK_BYTES_MIN: usize = 64;
const CHUNK_BYTES_MAX: usize = 32 * 1024;
/// An arena of this size goes on in mapped chunks.
const MAPPED_FROM_BYTES: usize = 8 * 1024;
/// From then on a new chunk is about this part of what the arena has already, which bounds the waste.
const CHUNK_SHARE: usize = 16;
/// Both halves of an [`EntryRef`] have 16 bits.
const CHUNKS_MAX: usize = 1 << 16;
const OFFSETS_MAX: usize = 1 << 16;

const STATE_MASK: u8 = 0b11;
const CLEAN: u8 = 0b100;
const LARGE: u8 = 0b1000;
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
}

impl Arena {
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
        let bytes = HEADER_BYTES + key.len() + value.len() + usize::from(slack);
        let chunk_index = self.chunk_with_room(bytes)?;
        let chunk = &mut self.chunks[chunk_index];
        let at = EntryRef((chunk_index as u32) << 16 | chunk.len() as u32);
        chunk.push(&header.place.to_le_bytes());
        chunk.push(&header.version.to_le_bytes());
        let length_and_flags = key.len() as u32 | u32::from(header.flags()) << 24;
        chunk.push(&length_and_flags.to_le_bytes());
        chunk.push(&(value.len() as u32).to_le_bytes());
        chunk.push(&slack.to_le_bytes());
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
        let entry = self.entry(at);
        let value_bytes = read_u32(entry, 16) as usize + usize::from(read_u16(entry, 20));
        HEADER_BYTES + key_bytes(entry) + value_bytes
    }

    /// The entry's place, read alone.
    #[inline]
    pub(crate) fn place(&self, at: EntryRef) -> u64 {
        read_u64(self.entry(at), 0)
    }

    /// The entry's header.
    #[inline]
    pub(crate) fn header(&self, at: EntryRef) -> Header {
        let entry = self.entry(at);
        let flags = entry[15];
        Header {
            place: read_u64(entry, 0),
            version: read_u32(entry, 8),
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
        let before = uses(self.entry(at)[15]);
        if before < USES_MAX {
            self.entry_mut(at)[15] += USE;
        }
        before == 0
    }

    /// Writes an entry's header anew.
    #[inline]
    pub(crate) fn set_header(&mut self, at: EntryRef, header: Header) {
        let entry = self.entry_mut(at);
        entry[..8].copy_from_slice(&header.place.to_le_bytes());
        entry[8..12].copy_from_slice(&header.version.to_le_bytes());
        entry[15] = header.flags();
    }

    /// The entry's key.
    #[inline]
    pub(crate) fn key(&self, at: EntryRef) -> &[u8] {
        let entry = self.entry(at);
        &entry[HEADER_BYTES..HEADER_BYTES + key_bytes(entry)]
    }

    /// The entry's value.
    #[inline]
    pub(crate) fn value(&self, at: EntryRef) -> &[u8] {
        let entry = self.entry(at);
        let start = HEADER_BYTES + key_bytes(entry);
        &entry[start..start + read_u32(entry, 16) as usize]
    }

    /// How much longer the value may get in its place.
    #[inline]
    pub(crate) fn slack(&self, at: EntryRef) -> usize {
        usize::from(read_u16(self.entry(at), 20))
    }

    /// Replaces the value where it is; says whether there was room.
    pub(crate) fn overwrite(&mut self, at: EntryRef, value: &[u8]) -> bool {
        let old_bytes = self.value(at).len();
        let room = old_bytes + self.slack(at);
        // A slack beyond its field would be lost; such an entry is written anew.
        let Some(slack) = room
            .checked_sub(value.len())
            .and_then(|slack| u16::try_from(slack).ok())
        else {
            return false;
        };
        let entry = self.entry_mut(at);
        let start = HEADER_BYTES + key_bytes(entry);
        entry[start..start + value.len()].copy_from_slice(value);
        entry[16..20].copy_from_slice(&(value.len() as u32).to_le_bytes());
        entry[20..22].copy_from_slice(&slack.to_le_bytes());
        true
    }

    /// Adds to the value's end where it is; says whether there was room.
    pub(crate) fn extend(&mut self, at: EntryRef, bytes: &[u8]) -> bool {
        let slack = self.slack(at);
        if bytes.len() > slack {
            return false;
        }
        let entry = self.entry_mut(at);
        let value_bytes = read_u32(entry, 16) as usize;
        let start = HEADER_BYTES + key_bytes(entry) + value_bytes;
        entry[start..start + bytes.len()].copy_from_slice(bytes);
        entry[16..20].copy_from_slice(&((value_bytes + bytes.len()) as u32).to_le_bytes());
        entry[20..22].copy_from_slice(&((slack - bytes.len()) as u16).to_le_bytes());
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
            small if small < MAPPED_FROM_BYTES => (small / 2).max(CHUNK_BYTES_MIN),
            bytes => (bytes / CHUNK_SHARE).clamp(MAPPED_BYTES_MIN, CHUNK_BYTES_MAX),
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

/// The key's length, which shares its word with the flags.
#[inline]
fn key_bytes(entry: &[u8]) -> usize {
    (read_u32(entry, 12) & 0x00ff_ffff) as usize
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
