//! Lets the library call its own functions where others in the process have the same name.
//!
//! The server has a `sync_file_range` of its own, on which what sled calls durable rests (see the server's
//! `cold/sled_sync`). Python has loaded the C library's before, which would come first.

fn main() {
    if std::env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("linux") {
        println!("cargo::rustc-link-arg-cdylib=-Wl,-Bsymbolic-functions");
    }
    println!("cargo::rerun-if-changed=build.rs");
}
