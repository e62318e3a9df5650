//! The `rhash` command.
fn main() {}
