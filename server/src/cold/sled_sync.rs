//! What sled calls to bring its log to stable storage, made to do that.
//!
//! On Linux sled asks for `sync_file_range`, which writes pages and promises nothing: neither the file's length and blocks
//! nor the disk's own cache. Yet sled then takes the bytes to be safe, and writes over those that they replace, which
//! may have been synced long before. After a power cut that has both moved and overwritten data in the air, it
//! does not open. So this program has a function of that name, which the linker prefers to the C
//! library's, and which syncs the file; nothing else in it calls it.

use libc::{c_int, c_uint};

/// Syncs the whole file, whatever part is asked for.
#[unsafe(no_mangle)]
#[expect(
    unsafe_code,
    reason = "taking the place of a function of the C library"
)]
extern "C" fn sync_file_range(file: c_int, _offset: i64, _bytes: i64, _flags: c_uint) -> c_int {
    // SAFETY: it takes a descriptor, whatever that is, and says what is wrong with it.
    unsafe { libc::fdatasync(file) }
}

/// Keeps the function in the program, or the linker would not look for it here.
pub(super) fn link() {
    let function: extern "C" fn(c_int, i64, i64, c_uint) -> c_int = sync_file_range;
    std::hint::black_box(function);
}
