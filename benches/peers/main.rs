//! rhash beside what one would pick instead.

fn main() {}
