//! `rhash token`: makes what a server knows its clients by.

use std::{
    fs::OpenOptions,
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use rhash_server::access::tokens::{NewToken, parse_tokens};

use crate::{
    cli::{self, Token, TokenCommand},
    failure::{Failure, Outcome},
    output::{Output, note},
};

/// A new tokens file is its owner's alone.
const MODE: u32 = 0o600;

/// Runs `rhash token`.
///
/// # Errors
/// The name, the patterns or the rights make no sense, or the file cannot be written.
pub(crate) fn run(args: &Token, out: &mut Output) -> Outcome {
    match &args.command {
        TokenCommand::New(args) => make(args, out),
    }
}

fn make(args: &cli::NewToken, out: &mut Output) -> Outcome {
    let token = NewToken::draw(&args.name, &args.tables, &args.rights)
        .map_err(|error| Failure::Usage(error.to_string()))?;
    match &args.file {
        // IMPORTANT: the line is in the file before the token is shown. A token that nobody lets
        // in is worse than a line whose token nobody has.
        Some(file) => append(file, &token.line)?,
        None => note(format_args!(
            "the line for the tokens file:\n{}",
            token.line
        )),
    }
    Ok(out.line(&token.secret)?)
}

/// Adds a line to a tokens file, which is made where there is none.
fn append(path: &Path, line: &str) -> Outcome {
    let failed =
        |error: io::Error| Failure::plain(format!("cannot write {}: {error}", path.display()));
    let mut file = OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .mode(MODE)
        .open(path)
        .map_err(failed)?;
    let mut text = String::new();
    file.read_to_string(&mut text).map_err(failed)?;
    let begin = if text.is_empty() || text.ends_with('\n') {
        ""
    } else {
        "\n"
    };
    parse_tokens(&format!("{text}{begin}{line}\n"))
        .map_err(|(at, fault)| Failure::Usage(format!("{}, line {at}: {fault}", path.display())))?;
    file.seek(SeekFrom::End(0)).map_err(failed)?;
    // One write, so that a server that reads meanwhile sees all of the line or nothing.
    file.write_all(format!("{begin}{line}\n").as_bytes())
        .and_then(|()| file.sync_all())
        .map_err(failed)
}
