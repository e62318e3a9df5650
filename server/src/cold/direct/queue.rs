//! Several reads under way at once, by Linux's native asynchronous reads (`io_submit(2)`), which wait for nothing if they
//! go past the page cache. Its newer way, io_uring, gives no more here and is forbidden in many containers.

use std::{
    fs::{File, OpenOptions},
    io,
    os::{fd::AsRawFd as _, unix::fs::OpenOptionsExt as _},
    path::Path,
    ptr::{self, NonNull},
    sync::Arc,
};

/// Reads of a queue that are under way, or were not forgotten yet: some more than one thread has under way at once. Each has
/// a page, and there may be as many queues as threads that read.
pub(super) const READS_MAX: usize = 40;

/// The longest read: blocks of small records are one page, and others begin somewhere in it.
pub(super) const READ_BYTES_MAX: usize = 2 * size_of::<Page>();

/// So many reads are given to the disk by one call, which costs as much as several of them.
const GIVEN_AT_ONCE: usize = 4;

/// Opens a file for direct reads; an error where its file system has none.
pub(in crate::cold) fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(libc::O_DIRECT).open(path)
}

/// Names a read of a queue, until it is forgotten.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ticket(usize);

#[derive(Debug)]
pub(super) struct Queue {
    context: libc::c_ulong,
    slots: Vec<Slot>,
    free: Vec<usize>,
    /// Those that the kernel was not given yet.
    gathered: Vec<usize>,
}

/// Room for one read.
#[derive(Debug)]
struct Slot {
    /// Made by `Box`. The kernel writes into it while the read is under way.
    buffer: NonNull<[Page]>,
    /// Stays open as long as the read may need it.
    file: Option<Arc<File>>,
    start: u64,
    bytes: usize,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nobody uses it, nor does the kernel.
    Free,
    Gathered,
    UnderWay,
    /// It brought so many bytes; none if it failed.
    Done(Option<usize>),
    /// It is under way, and nobody wants it any more.
    Forgotten,
}

#[derive(Debug, Clone, Copy)]
#[repr(C, align(4096))]
struct Page([u8; 4096]);

/// Room for so many bytes.
fn pages(bytes: usize) -> NonNull<[Page]> {
    let pages = vec![Page([0; 4096]); bytes.div_ceil(size_of::<Page>())];
    NonNull::from(Box::leak(pages.into_boxed_slice()))
}

impl Slot {
    /// The bytes that the buffer has room for.
    fn room(&self) -> usize {
        self.buffer.len() * size_of::<Page>()
    }
}

/// What the kernel is asked (`struct iocb`).
#[derive(Debug, Default)]
#[repr(C)]
struct Control {
    data: u64,
    // Which of the two comes first depends on the byte order; both are zero.
    key_and_flags: [u32; 2],
    opcode: u16,
    priority: i16,
    file: u32,
    buffer: u64,
    bytes: u64,
    offset: i64,
    reserved: u64,
    flags: u32,
    event_file: u32,
}

/// What it answers (`struct io_event`).
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
struct Event {
    data: u64,
    control: u64,
    result: i64,
    second_result: i64,
}

const OPCODE_READ: u16 = 0;

#[expect(
    unsafe_code,
    reason = "the C library has no functions for asynchronous reads"
)]
impl Queue {
    pub(super) fn new() -> io::Result<Self> {
        let mut context: libc::c_ulong = 0;
        // SAFETY: the call writes into what it is given, which is a zero as it must be.
        let made = unsafe {
            libc::syscall(
                libc::SYS_io_setup,
                READS_MAX as libc::c_long,
                &raw mut context,
            )
        };
        if made != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Self {
            context,
            slots: Vec::new(),
            free: Vec::new(),
            gathered: Vec::with_capacity(GIVEN_AT_ONCE),
        })
    }

    /// Begins a read, whose start and length are aligned; none if too many are under way.
    pub(super) fn begin(&mut self, file: &Arc<File>, start: u64, bytes: usize) -> Option<Ticket> {
        debug_assert!(bytes <= READ_BYTES_MAX, "a read of {bytes} bytes");
        if self.free.is_empty() && self.slots.len() >= READS_MAX {
            // Of those that were forgotten some may be done.
            drop(self.take_events(0));
        }
        let bytes = bytes.min(READ_BYTES_MAX);
        let number = match self.free.pop() {
            Some(number) => number,
            None if self.slots.len() < READS_MAX => {
                self.slots.push(Slot {
                    buffer: pages(bytes),
                    file: None,
                    start: 0,
                    bytes: 0,
                    state: State::Free,
                });
                self.slots.len() - 1
            }
            None => return None,
        };
        let slot = self.slots.get_mut(number)?;
        if slot.room() < bytes {
            let small = std::mem::replace(&mut slot.buffer, pages(bytes));
            // SAFETY: made by `Box`, and the slot was free, so nobody has it any more.
            drop(unsafe { Box::from_raw(small.as_ptr()) });
        }
        slot.file = Some(Arc::clone(file));
        slot.start = start;
        slot.bytes = bytes;
        slot.state = State::Gathered;
        self.gathered.push(number);
        if self.gathered.len() >= GIVEN_AT_ONCE {
            self.give();
        }
        Some(Ticket(number))
    }

    /// Whether there is nothing to wait for.
    pub(super) fn is_done(&self, Ticket(number): Ticket) -> bool {
        let slot = self.slots.get(number);
        slot.is_some_and(|slot| matches!(slot.state, State::Done(_)))
    }

    /// Waits for a read, and gives what it brought, which may be less than was asked for; none if it failed.
    pub(super) fn wait(&mut self, Ticket(number): Ticket) -> Option<&[u8]> {
        self.give();
        loop {
            let slot = self.slots.get(number)?;
            match slot.state {
                State::Done(read) => {
                    let bytes = read?.min(slot.room());
                    // SAFETY: the buffer is that long, was filled with zeros when it was made, and the kernel is done with it
                    // until the slot is used again, for which this queue must be borrowed mutably.
                    return Some(unsafe {
                        std::slice::from_raw_parts(slot.buffer.as_ptr().cast(), bytes)
                    });
                }
                State::UnderWay => self.take_events(1).ok()?,
                State::Free | State::Gathered | State::Forgotten => return None,
            }
        }
    }

    /// Ends what a ticket stands for.
    pub(super) fn forget(&mut self, Ticket(number): Ticket) {
        self.give();
        let Some(slot) = self.slots.get_mut(number) else {
            return;
        };
        match slot.state {
            State::UnderWay => slot.state = State::Forgotten,
            State::Done(_) => self.release(number),
            State::Free | State::Gathered | State::Forgotten => {}
        }
        // There is room again once it is done; if the kernel does not say so, there are no more reads.
        while self.free.is_empty() && self.slots.len() >= READS_MAX && self.take_events(1).is_ok() {
        }
    }

    fn release(&mut self, number: usize) {
        if let Some(slot) = self.slots.get_mut(number) {
            slot.state = State::Free;
            slot.file = None;
            self.free.push(number);
        }
    }

    /// Gives the kernel what was gathered.
    fn give(&mut self) {
        if self.gathered.is_empty() {
            return;
        }
        let numbers = std::mem::replace(&mut self.gathered, Vec::with_capacity(GIVEN_AT_ONCE));
        let slots = numbers.iter().filter_map(|&number| {
            let slot = self.slots.get(number)?;
            Some((number, slot, slot.file.as_ref()?))
        });
        let mut controls: Vec<Control> = slots
            .map(|(number, slot, file)| Control {
                data: number as u64,
                opcode: OPCODE_READ,
                file: file.as_raw_fd().cast_unsigned(),
                buffer: slot.buffer.cast::<u8>().as_ptr().expose_provenance() as u64,
                bytes: slot.bytes as u64,
                offset: slot.start.cast_signed(),
                ..Control::default()
            })
            .collect();
        let pointers: Vec<*mut Control> = controls.iter_mut().map(ptr::from_mut).collect();
        // SAFETY: the kernel reads the controls during the call only. The files stay open, and nobody touches the buffers, until
        // its events say that it is done, or until the context is destroyed.
        let given = unsafe {
            libc::syscall(
                libc::SYS_io_submit,
                self.context,
                pointers.len() as libc::c_long,
                pointers.as_ptr(),
            )
        };
        let given = usize::try_from(given).unwrap_or(0);
        for (at, number) in numbers.into_iter().enumerate() {
            if let Some(slot) = self.slots.get_mut(number) {
                slot.state = match at < given {
                    true => State::UnderWay,
                    false => State::Done(None),
                };
            }
        }
    }

    /// Takes note of the reads that are done, and waits until those are so many.
    fn take_events(&mut self, reads_min: usize) -> io::Result<()> {
        let mut events = [Event::default(); READS_MAX];
        let taken = loop {
            // SAFETY: the kernel fills as many events as there is room for.
            let taken = unsafe {
                libc::syscall(
                    libc::SYS_io_getevents,
                    self.context,
                    reads_min as libc::c_long,
                    READS_MAX as libc::c_long,
                    events.as_mut_ptr(),
                    ptr::null::<libc::timespec>(),
                )
            };
            let error = io::Error::last_os_error();
            match usize::try_from(taken) {
                Ok(0) if reads_min > 0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(taken) => break taken,
                Err(_) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Err(error),
            }
        };
        for event in events.iter().take(taken) {
            let number = usize::try_from(event.data).unwrap_or(usize::MAX);
            let Some(slot) = self.slots.get_mut(number) else {
                continue;
            };
            if slot.state == State::Forgotten {
                self.release(number);
            } else {
                slot.state = State::Done(usize::try_from(event.result).ok());
            }
        }
        Ok(())
    }
}

#[expect(
    unsafe_code,
    reason = "the kernel must be done before the buffers are freed"
)]
impl Drop for Queue {
    fn drop(&mut self) {
        // SAFETY: the context is this queue's, and not used after this. The call returns when no read is under way.
        let destroyed = unsafe { libc::syscall(libc::SYS_io_destroy, self.context) };
        if destroyed != 0 {
            // Whether the kernel still writes is not known, so the buffers stay for ever.
            return;
        }
        for slot in &self.slots {
            // SAFETY: made by `Box`, and nobody has it any more.
            drop(unsafe { Box::from_raw(slot.buffer.as_ptr()) });
        }
    }
}
