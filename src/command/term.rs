//! `rhash term`: tells how many documents hold a word, and how often.

use rhash_client::blocking::Client;
use serde_json::json;

use crate::{
    cli,
    failure::{Failure, Outcome},
    index::{catalogue, postings::Postings, tokens::terms_of},
    output::{Output, count_of},
};

/// The words that are asked for in one request.
const WORDS_PER_READ: usize = 256;

/// Runs the command.
///
/// # Errors
/// There is no such index, the words are no terms, no document holds any, or the server failed.
pub(crate) fn run(client: &Client, args: &cli::Term, out: &mut Output) -> Outcome {
    let terms = args
        .words
        .iter()
        .map(|word| term(word))
        .collect::<Outcome<Vec<String>>>()?;
    let (tables, _about) = catalogue::open_to_read(client, &args.name.name)?;
    let mut found = false;
    for terms in terms.chunks(WORDS_PER_READ) {
        let lists = tables
            .postings
            .get_many(terms.iter().map(|term| term.as_bytes().to_vec()))?;
        for (term, list) in terms.iter().zip(lists) {
            let (mut documents, mut occurrences) = (0u64, 0u64);
            for posting in Postings::new(&list.unwrap_or_default()) {
                let damaged = |error| Failure::plain(format!("the term `{term}`: {error}"));
                documents += 1;
                occurrences += u64::from(posting.map_err(damaged)?.frequency);
            }
            found |= documents > 0;
            if args.json {
                out.json(&json!({
                    "term": term, "documents": documents, "occurrences": occurrences,
                }))?;
            } else if documents > 0 {
                let documents = count_of(documents, "document");
                let occurrences = count_of(occurrences, "occurrence");
                out.line(format_args!("{term}: {documents}, {occurrences}"))?;
            } else {
                out.line(format_args!("{term}: no document"))?;
            }
        }
    }
    match found {
        true => Ok(()),
        false => Err(Failure::plain(format!(
            "no document holds {}",
            terms.join(", or ")
        ))),
    }
}

/// The one term that a word is.
fn term(word: &str) -> Outcome<String> {
    let terms = terms_of(word);
    match <[String; 1]>::try_from(terms) {
        Ok([term]) => Ok(term),
        Err(terms) if terms.is_empty() => Err(Failure::Usage(format!(
            "`{word}` is no term: those are runs of 2 to 64 letters, digits and underscores"
        ))),
        Err(terms) => Err(Failure::Usage(format!(
            "`{word}` is several terms ({}); ask for each",
            terms.join(", ")
        ))),
    }
}
