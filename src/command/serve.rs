//! The server that `rhash bench` measures, in a process of its own. Not for people: they have
//! `rhash-server`.

use std::{
    io::{self, Write as _},
    path::PathBuf,
};

use crate::{
    bench::server::{READY, wait_for_parent},
    cli::{Place, Serve},
    embedded::{Embedded, Keep},
    failure::Outcome,
};

/// Serves until the standard input ends.
///
/// # Errors
/// The server cannot start.
pub(crate) fn run(place: &Place, args: &Serve) -> Outcome {
    let data = place.data.clone().unwrap_or_else(|| PathBuf::from("."));
    let keep = if args.memory_only {
        Keep::InMemory
    } else {
        Keep::In(data)
    };
    let server = Embedded::start(keep, place.mem_limit)?;
    let mut out = io::stdout().lock();
    writeln!(out, "{READY}{}", server.address())?;
    out.flush()?;
    wait_for_parent();
    // All tables are temporary: nothing needs to be written down.
    server.abandon();
    Ok(())
}
