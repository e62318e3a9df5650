//! The `rhash-server` command.
fn main() {}
