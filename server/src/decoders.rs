//! Everything here that decodes bytes from a disk, for tests that hold it against arbitrary ones.
//! Not for programs.

/// Reads bytes as the parts of a run.
pub fn run(bytes: &[u8]) {
    crate::cold::raw::read(bytes);
}

/// Reads bytes as a manifest, and as one of its records.
pub fn manifest(bytes: &[u8]) {
    crate::data_dir::manifest::read_arbitrary(bytes);
}

/// Reads bytes as the note of a run.
pub fn run_note(bytes: &[u8]) {
    crate::data_dir::note::read_arbitrary(bytes);
}

/// Notes of runs.
pub fn sample_run_notes() -> Vec<Vec<u8>> {
    crate::data_dir::note::samples()
}

/// Reads bytes as a record of the log.
pub fn log_record(bytes: &[u8]) {
    crate::log::record::read_arbitrary(bytes);
}

/// Records of the log without length and checksum.
pub fn sample_log_records() -> Vec<Vec<u8>> {
    crate::log::record::sample_bodies()
}

/// A manifest, and one of its records without length and checksum.
pub fn sample_manifests() -> Vec<Vec<u8>> {
    crate::data_dir::manifest::samples()
}
