//! `rhash token`: makes what a server knows its clients by.

use rhash_server::access::tokens::{NewToken, TokensError};

use crate::{
    cli::{self, Token, TokenCommand},
    failure::{Failure, Outcome},
    output::{Output, note},
};

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
        Some(file) => token.append_to(file).map_err(failed)?,
        None => note(format_args!(
            "the line for the tokens file:\n{}",
            token.line
        )),
    }
    Ok(out.line(&token.secret)?)
}

fn failed(error: TokensError) -> Failure {
    match &error {
        TokensError::Line { .. } => Failure::Usage(error.to_string()),
        TokensError::Read { source, .. } | TokensError::Write { source, .. } => {
            Failure::plain(format!("{error}: {source}"))
        }
        _ => Failure::plain(error.to_string()),
    }
}
