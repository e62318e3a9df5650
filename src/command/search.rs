//! `rhash search`: ranks the documents that hold any of some words.

use std::{io, path::Path};

use rhash_client::blocking::Client;
use serde_json::json;

use crate::{
    cli,
    context::{self, Line, WORDS_MAX},
    failure::{Failure, Outcome},
    index::{
        catalogue::{self, Tables},
        lengths::LengthColumn,
        postings::Postings,
        record::{self, DocumentRecord},
        tokens::terms_of,
    },
    output::{FAINT, Output, PATH, WORD, columns, count, note},
    rank::{Corpus, Hit, Scores},
};

/// The characters of a line that are shown where no terminal sets the width.
const LINE_CHARS_MAX: usize = 240;
/// The columns before the line of context.
const INDENT: usize = 4;

/// A document that was found.
struct Found {
    record: DocumentRecord,
    score: f32,
    line: io::Result<Option<Line>>,
}

/// Runs the command.
///
/// # Errors
/// There is no such index, no document holds a word, or the server failed.
pub(crate) fn run(client: &Client, args: &cli::Search, out: &mut Output) -> Outcome {
    let words = words(&args.words)?;
    let (tables, about) = catalogue::open_to_read(client, &args.name.name)?;
    let documents = u32::try_from(about.documents).unwrap_or(u32::MAX);
    let scores = scores(
        &tables,
        Corpus {
            documents,
            terms: about.terms,
        },
        &words,
    )?;
    let found = found(&tables, &scores.best(args.limit as usize), &words)?;
    if args.json {
        json(&found, &words, out)?
    } else {
        text(&found, &words, out)?
    }
    if found.is_empty() {
        return Err(Failure::plain(format!(
            "no document holds {}",
            words.join(", or ")
        )));
    }
    let matching = scores.count();
    if !args.json && matching > found.len() {
        out.flush()?;
        note(format_args!(
            "showed {} of {} documents",
            count(found.len() as u64),
            count(matching as u64)
        ));
    }
    Ok(())
}

/// The distinct terms of a query.
fn words(given: &[String]) -> Outcome<Vec<String>> {
    let mut words = Vec::new();
    for term in given.iter().flat_map(|word| terms_of(word)) {
        if !words.contains(&term) {
            words.push(term);
        }
    }
    match words.len() {
        0 => Err(Failure::Usage(format!(
            "`{}` holds no term: those are runs of 2 to 64 letters, digits and underscores",
            given.join(" ")
        ))),
        1..=WORDS_MAX => Ok(words),
        more => Err(Failure::Usage(format!(
            "a query has at most {WORDS_MAX} terms, not {more}"
        ))),
    }
}

/// Scores all documents, one word after the other, so that one list at a time is in memory.
fn scores(tables: &Tables, corpus: Corpus, words: &[String]) -> Outcome<Scores> {
    let mut scores = Scores::new(corpus.documents);
    let mut lengths = LengthColumn::new(&tables.lengths, corpus.documents);
    for word in words {
        let Some(list) = tables.postings.get(word.as_bytes())? else {
            continue;
        };
        let damaged = |error| Failure::plain(format!("the term `{word}`: {error}"));
        let mut documents = 0u32;
        for posting in Postings::new(&list) {
            posting.map_err(damaged)?;
            documents += 1;
        }
        lengths.fetch(
            Postings::new(&list)
                .flatten()
                .map(|posting| posting.document),
        )?;
        let weight = corpus.weight(documents);
        for posting in Postings::new(&list).flatten() {
            let length = lengths.length(posting.document);
            scores.add(
                posting.document,
                corpus.score(weight, posting.frequency, length),
            );
        }
    }
    Ok(scores)
}

fn found(tables: &Tables, hits: &[Hit], words: &[String]) -> Outcome<Vec<Found>> {
    let keys = hits.iter().map(|hit| record::key(hit.document).to_vec());
    let records = tables.documents.get_many(keys)?;
    let found = |(hit, record): (&Hit, Option<Vec<u8>>)| {
        let record = record
            .as_deref()
            .and_then(DocumentRecord::decode)
            .ok_or_else(|| {
                Failure::plain(format!(
                    "the record of document {} is missing",
                    hit.document
                ))
            })?;
        let line = context::best_line(record.path(), words);
        Ok(Found {
            record,
            score: hit.score,
            line,
        })
    };
    hits.iter().zip(records).map(found).collect()
}

fn json(found: &[Found], words: &[String], out: &mut Output) -> Outcome {
    let directory = std::env::current_dir().unwrap_or_default();
    let object = |found: &Found| {
        let line = found.line.as_ref().ok().and_then(Option::as_ref);
        let text = line.map(|line| {
            let parts = context::excerpt(&line.text, words, LINE_CHARS_MAX);
            parts.into_iter().map(|part| part.text).collect::<String>()
        });
        json!({
            "path": found.record.shown(&directory).to_string_lossy(),
            "score": found.score,
            "line_number": line.map(|line| line.number),
            "line": text,
        })
    };
    Ok(out.json(&found.iter().map(object).collect::<Vec<_>>())?)
}

fn text(found: &[Found], words: &[String], out: &mut Output) -> Outcome {
    let directory = std::env::current_dir().unwrap_or_default();
    let columns = columns();
    for found in found {
        let path = plain(found.record.shown(&directory));
        let score = out.style(FAINT, format_args!("{:8.3}", found.score));
        out.line(format_args!("{score}  {}", out.style(PATH, path)))?;
        let line = match &found.line {
            Ok(Some(line)) => {
                let head = format!("{:INDENT$}{}: ", "", line.number);
                let room = columns.saturating_sub(head.chars().count());
                let marked = mark(out, &line.text, words, room);
                format!("{}{marked}", out.style(FAINT, head))
            }
            Ok(None) => format!("{:INDENT$}(the file has changed: no line holds a word)", ""),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                format!("{:INDENT$}(the file is gone)", "")
            }
            Err(error) => format!("{:INDENT$}(the file cannot be read: {error})", ""),
        };
        out.line(line)?;
    }
    Ok(())
}

/// A path as text that cannot steer a terminal.
fn plain(path: &Path) -> String {
    let text = path.to_string_lossy();
    text.chars()
        .map(|char| if char.is_control() { '\u{fffd}' } else { char })
        .collect()
}

fn mark(out: &Output, text: &str, words: &[String], room: usize) -> String {
    let part = |part: context::Part| match part.is_word {
        true => out.style(WORD, part.text),
        false => part.text,
    };
    context::excerpt(text, words, room)
        .into_iter()
        .map(part)
        .collect()
}
