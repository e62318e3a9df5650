//! Finds the line of a file that shows best why it was found, and cuts it to fit.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read},
    path::Path,
};

use crate::index::tokens::{Tokens, terms_of};

/// The most words of a query: one bit each tells which of them a line holds.
pub(crate) const WORDS_MAX: usize = 64;
/// A longer line is looked at in parts of this length.
const LINE_BYTES_MAX: u64 = 64 * 1024;
/// How far into a file the line is looked for.
const FILE_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// A line that holds words of a query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line {
    /// Counted from 1.
    pub(crate) number: u64,
    pub(crate) text: String,
}

/// The first line that holds the most of the words; none if no line holds any.
///
/// # Errors
/// Those of reading the file.
pub(crate) fn best_line(path: &Path, words: &[String]) -> io::Result<Option<Line>> {
    let mut reader = BufReader::new(File::open(path)?.take(FILE_BYTES_MAX));
    let mut best: Option<Line> = None;
    let mut best_count = 0;
    let mut number = 1;
    let mut bytes = Vec::new();
    while best_count < words.len().min(WORDS_MAX) {
        bytes.clear();
        if reader
            .by_ref()
            .take(LINE_BYTES_MAX)
            .read_until(b'\n', &mut bytes)?
            == 0
        {
            break;
        }
        let text = String::from_utf8_lossy(&bytes);
        let count = words_in(&text, words).count_ones() as usize;
        if count > best_count {
            best_count = count;
            best = Some(Line {
                number,
                text: text.trim().to_owned(),
            });
        }
        number += u64::from(bytes.ends_with(b"\n"));
    }
    Ok(best)
}

/// Which of the words a text holds, as bits.
fn words_in(text: &str, words: &[String]) -> u64 {
    let mut found = 0u64;
    let mut look = |term: &[u8]| {
        let place = words
            .iter()
            .take(WORDS_MAX)
            .position(|word| word.as_bytes() == term);
        found |= place.map_or(0, |place| 1 << place);
    };
    let mut tokens = Tokens::new();
    tokens.feed(text, &mut look);
    tokens.end(&mut look);
    found
}

/// A part of a line, and whether it is one of the words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) text: String,
    pub(crate) is_word: bool,
}

/// Cuts a line to so many characters around the first word in it. Control characters, which could
/// steer a terminal, become spaces.
pub(crate) fn excerpt(text: &str, words: &[String], chars_max: usize) -> Vec<Part> {
    let parts = parts(text, words);
    // Where no word is found, the line is shown from its beginning.
    let first_word = parts.iter().position(|part| part.is_word).unwrap_or(0);
    let chars_before: usize = parts
        .iter()
        .take(first_word)
        .map(|part| part.text.chars().count())
        .sum();
    let chars_all: usize = parts.iter().map(|part| part.text.chars().count()).sum();
    if chars_all <= chars_max {
        return parts;
    }
    // A third of the width before the word says where it stands, and one more sign at each end
    // says that something is missing.
    let window = chars_max.saturating_sub(2);
    let start = chars_before
        .saturating_sub(window / 3)
        .min(chars_all - window);
    let mut cut = Vec::new();
    if start > 0 {
        cut.push(Part {
            text: "…".into(),
            is_word: false,
        });
    }
    let mut at = 0;
    for part in parts {
        let length = part.text.chars().count();
        let skipped = start.saturating_sub(at);
        let taken = (start + window).saturating_sub(at.max(start));
        let text: String = part.text.chars().skip(skipped).take(taken).collect();
        if !text.is_empty() {
            cut.push(Part {
                text,
                is_word: part.is_word,
            });
        }
        at += length;
    }
    if at > start + window {
        cut.push(Part {
            text: "…".into(),
            is_word: false,
        });
    }
    cut
}

/// Splits a line into words of the query and what is between them.
fn parts(text: &str, words: &[String]) -> Vec<Part> {
    let mut parts: Vec<Part> = Vec::new();
    let is_term_char = |char: char| char.is_alphanumeric() || char == '_';
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let in_run = is_term_char(first);
        let end = rest
            .find(|char| is_term_char(char) != in_run)
            .unwrap_or(rest.len());
        let (run, after) = rest.split_at(end);
        let is_word = in_run
            && terms_of(run)
                .first()
                .is_some_and(|term| words.contains(term));
        let clean = run
            .chars()
            .map(|char| if char.is_control() { ' ' } else { char });
        match parts.last_mut() {
            Some(last) if last.is_word == is_word => last.text.extend(clean),
            _ => parts.push(Part {
                text: clean.collect(),
                is_word,
            }),
        }
        rest = after;
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[&str]) -> Vec<String> {
        words.iter().map(|&word| word.to_owned()).collect()
    }

    fn shown(text: &str, given: &[&str], chars_max: usize) -> String {
        let mark = |part: Part| {
            if part.is_word {
                format!("[{}]", part.text)
            } else {
                part.text
            }
        };
        excerpt(text, &words(given), chars_max)
            .into_iter()
            .map(mark)
            .collect()
    }

    #[test]
    fn the_first_line_with_the_most_words_is_best() -> io::Result<()> {
        let file = tempfile::NamedTempFile::new()?;
        std::fs::write(file.path(), "one\nOne, one\n  two and ONE\ntwo one\n")?;
        let line = best_line(file.path(), &words(&["one", "two"]))?.unwrap();
        assert_eq!(
            line,
            Line {
                number: 3,
                text: "two and ONE".into()
            }
        );
        assert_eq!(best_line(file.path(), &words(&["three"]))?, None);
        Ok(())
    }

    #[test]
    fn a_line_without_end_is_looked_at_in_parts() -> io::Result<()> {
        let file = tempfile::NamedTempFile::new()?;
        let far = LINE_BYTES_MAX as usize * 2;
        std::fs::write(
            file.path(),
            format!("first\n{} needle\nlast", "x ".repeat(far)),
        )?;
        let line = best_line(file.path(), &words(&["needle"]))?.unwrap();
        assert_eq!(line.number, 2);
        assert!(line.text.len() <= LINE_BYTES_MAX as usize && line.text.ends_with("needle"));
        assert_eq!(
            best_line(file.path(), &words(&["last"]))?.unwrap().number,
            3
        );
        Ok(())
    }

    #[test]
    fn excerpts_mark_words_and_are_cut_around_the_first() {
        assert_eq!(
            shown("a Word, words\u{1b}[0m", &["word"], 80),
            "a [Word], words [0m"
        );
        let long = format!("{} Word {}", "x".repeat(50), "y".repeat(50));
        let cut = shown(&long, &["word"], 20);
        assert!(
            cut.starts_with('…') && cut.ends_with('…') && cut.contains(" [Word] "),
            "{cut}"
        );
        assert_eq!(cut.chars().count(), 22);
        assert_eq!(
            shown(&long, &["nothing"], 10),
            format!("{}…", "x".repeat(8))
        );
        assert_eq!(shown("word", &["word"], 1).chars().count(), 1);
    }
}
