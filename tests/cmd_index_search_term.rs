//! An index answers `term` and `search` as an obvious program over the same files does.

mod cmd_support;

use std::{collections::BTreeMap, io, path::Path};

use cmd_support::{Corpus, Counts, Place, Server};

const SEED: u64 = 20_100;

/// Asks `term` for all these terms, and for one that is nowhere.
fn asked(place: &Place, server: &[&str], counts: &Counts) -> io::Result<Counts> {
    let mut args = vec!["term", "--json", "nowhere_to_be_found"];
    args.extend(server);
    args.extend(counts.keys().map(String::as_str));
    let mut asked = Counts::new();
    for line in place.output(&args)?.lines() {
        let object: serde_json::Value = serde_json::from_str(line)?;
        let number = |name: &str| object[name].as_u64().unwrap_or(u64::MAX);
        let term = object["term"].as_str().unwrap_or_default().to_owned();
        asked.insert(term, (number("documents"), number("occurrences")));
    }
    assert_eq!(asked.remove("nowhere_to_be_found"), Some((0, 0)));
    Ok(asked)
}

#[test]
fn every_term_has_the_counts_of_the_files() -> io::Result<()> {
    let place = Place::new()?;
    let corpus = Corpus::write(&place, SEED, 300, 400)?;
    let summary = place.json(&["index", "corpus", "--json"])?;
    assert_eq!(summary["documents"], 300, "seed {SEED}");
    assert_eq!(summary["complete"], true);
    let counts = corpus.counts();
    let terms: u64 = counts.values().map(|count| count.1).sum();
    let postings: u64 = counts.values().map(|count| count.0).sum();
    assert_eq!(
        (&summary["terms"], &summary["postings"]),
        (&terms.into(), &postings.into())
    );
    assert_eq!(asked(&place, &[], &counts)?, counts, "seed {SEED}");
    assert_eq!(
        place.output(&["len", "index"])?,
        format!("{}\n", counts.len())
    );
    Ok(())
}

#[test]
fn a_small_server_gives_the_same_counts() -> io::Result<()> {
    let place = Place::new()?;
    let corpus = Corpus::write(&place, SEED + 1, 400, 3000)?;
    let server = Server::start(&place, "24M")?;
    let server = ["--server", &server.address];
    place.output(&[&["index", "corpus", "--name", "small"][..], &server].concat())?;
    let counts = corpus.counts();
    let server = [&server[..], &["--name", "small"]].concat();
    assert_eq!(
        asked(&place, &server, &counts)?,
        counts,
        "seed {}",
        corpus.seed
    );
    Ok(())
}

#[test]
fn search_ranks_as_the_definition_says() -> io::Result<()> {
    let place = Place::new()?;
    let corpus = Corpus::write(&place, SEED + 2, 200, 300)?;
    place.output(&["index", "corpus"])?;
    for words in [
        &["word3"][..],
        &["word1", "größe2"],
        &["οδος1", "word40", "under_score7"],
    ] {
        let expected: BTreeMap<_, _> = corpus.ranked(words).into_iter().collect();
        let args = [&["search", "--json", "--limit", "1000"][..], words].concat();
        let found = place.json(&args)?;
        let found = found.as_array().unwrap();
        assert_eq!(
            found.len(),
            expected.len(),
            "{words:?}, seed {}",
            corpus.seed
        );
        let mut before = f64::INFINITY;
        for found in found {
            let score = found["score"].as_f64().unwrap();
            let expected = expected[Path::new(found["path"].as_str().unwrap())];
            assert!(
                (score - expected).abs() < 1e-4 * expected,
                "{found} {expected}"
            );
            assert!(score <= before, "{found} comes after {before}");
            before = score;
            let line = found["line"].as_str().unwrap().to_lowercase();
            assert!(
                words.iter().any(|word| line.contains(word)),
                "{line:?} shows none of {words:?}"
            );
        }
    }
    Ok(())
}

#[test]
fn search_shows_path_score_and_line() -> io::Result<()> {
    let place = Place::new()?;
    place.write(
        "notes/a.md",
        "# Title\nSome needle here.\nThe needle and the thread.\n",
    )?;
    place.write("notes/b.md", "Only thread.\n")?;
    place.output(&["index", "notes"])?;
    let shown = place.output(&["search", "Needle", "thread"])?;
    let lines: Vec<&str> = shown.lines().collect();
    assert_eq!(lines.len(), 4, "{shown}");
    assert!(lines[0].ends_with("  notes/a.md"), "{shown}");
    assert_eq!(lines[1], "    3: The needle and the thread.");
    assert!(lines[2].ends_with("  notes/b.md"), "{shown}");
    let first = place.output(&["search", "needle", "thread", "--limit", "1"])?;
    assert_eq!(first.lines().count(), 2);
    std::fs::remove_file(place.path().join("notes/b.md"))?;
    assert!(
        place
            .output(&["search", "thread"])?
            .contains("(the file is gone)")
    );
    Ok(())
}

#[test]
fn a_word_that_is_nowhere_is_said_and_fails() -> io::Result<()> {
    let place = Place::new()?;
    place.write("a", "some words")?;
    place.output(&["index", "a"])?;
    for command in ["search", "term"] {
        let said = place.failure(1, &[command, "absent"])?;
        assert!(said.contains("no document holds absent"), "{said}");
        let run = place.run(&[command, "absent", "--json"])?;
        assert_eq!(run.code, Some(1));
        assert!(
            serde_json::from_str::<serde_json::Value>(&run.stdout).is_ok(),
            "{run:?}"
        );
    }
    let said = place.failure(1, &["search", "words", "--name", "other"])?;
    assert!(
        said.contains("no index `other`") && said.contains("rhash index"),
        "{said}"
    );
    Ok(())
}

#[test]
fn a_document_longer_than_a_piece_is_one_document() -> io::Result<()> {
    let place = Place::new()?;
    let text = "needle in a haystack of straws ".repeat(20_000);
    place.write("long.txt", &text)?;
    place.write("short.txt", "needle")?;
    place.output(&["index", "long.txt", "short.txt"])?;
    let term = place.json(&["term", "needle", "--json"])?;
    assert_eq!(
        (&term["documents"], &term["occurrences"]),
        (&2.into(), &20_001.into())
    );
    Ok(())
}
