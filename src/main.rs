//! The `rhash` command.
mod index;
fn main() {}
