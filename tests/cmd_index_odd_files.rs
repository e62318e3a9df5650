//! Files that are no text, cannot be read, are hidden or links; and corpora of nothing.

mod cmd_support;

use std::{fs, io, os::unix::fs as unix};

use cmd_support::Place;

#[test]
fn files_that_are_no_text_are_counted_and_left_out() -> io::Result<()> {
    let place = Place::new()?;
    place.write("c/text", "words")?;
    place.write("c/nul", "words\0words")?;
    place.write("c/latin", b"gr\xfc\xdfe words")?;
    place.write("c/late", [&b"words ".repeat(50_000)[..], b"\xff"].concat())?;
    place.write("c/empty", "")?;
    let summary = place.json(&["index", "c", "--json"])?;
    assert_eq!(
        (&summary["documents"], &summary["skipped"]),
        (&2.into(), &3.into()),
        "{summary}"
    );
    let term = place.json(&["term", "words", "--json"])?;
    assert_eq!(
        term["documents"], 1,
        "a file that ends badly is left out whole"
    );
    Ok(())
}

#[test]
fn hidden_files_and_links_are_left_out_unless_given_by_name() -> io::Result<()> {
    let place = Place::new()?;
    for name in ["c/seen", "c/.hidden", "c/.git/config", "elsewhere/linked"] {
        place.write(name, "words")?;
    }
    place.write("c/.gitignore", "seen")?;
    unix::symlink("../elsewhere", place.path().join("c/dir_link"))?;
    unix::symlink("seen", place.path().join("c/file_link"))?;
    let documents = |args: &[&str]| -> io::Result<serde_json::Value> {
        let summary = place.json(&[&["index", "--json", "--replace"], args].concat())?;
        Ok(summary["documents"].clone())
    };
    assert_eq!(documents(&["c"])?, 1);
    assert_eq!(
        documents(&["c/.hidden", "c/.git", "c/file_link", "c/dir_link"])?,
        4
    );
    Ok(())
}

#[test]
fn paths_that_cannot_be_read_are_named_and_not_fatal() -> io::Result<()> {
    let place = Place::new()?;
    place.write("c/text", "words")?;
    unix::symlink("nowhere", place.path().join("dangling"))?;
    let run = place.run(&["index", "missing", "c", "dangling", "/dev/null", "--json"])?;
    assert_eq!(run.code, Some(0), "{run:?}");
    let summary: serde_json::Value = serde_json::from_str(&run.stdout)?;
    assert_eq!(
        (&summary["documents"], &summary["unreadable"]),
        (&1.into(), &3.into())
    );
    for part in [
        "missing: No such file",
        "dangling: No such file",
        "/dev/null: not a regular file",
    ] {
        assert!(run.stderr.contains(part), "{part} in {}", run.stderr);
    }
    Ok(())
}

#[test]
fn many_unreadable_paths_are_named_in_part() -> io::Result<()> {
    let place = Place::new()?;
    place.write("text", "words")?;
    let missing: Vec<String> = (0..50).map(|number| format!("missing{number}")).collect();
    let args: Vec<&str> = ["index", "text"]
        .into_iter()
        .chain(missing.iter().map(|s| &**s))
        .collect();
    let run = place.run(&args)?;
    assert!(run.stdout.contains("50 unreadable"), "{run:?}");
    assert!(
        run.stderr.contains("missing19") && !run.stderr.contains("missing20"),
        "{run:?}"
    );
    assert!(run.stderr.contains("cannot read 30 more"), "{run:?}");
    Ok(())
}

#[test]
fn a_corpus_of_nothing_leaves_no_table_and_touches_none() -> io::Result<()> {
    let place = Place::new()?;
    fs::create_dir(place.path().join("empty"))?;
    place.write("binary/file", "a\0b")?;
    for corpus in ["empty", "binary", "missing"] {
        let said = place.failure(1, &["index", corpus])?;
        assert!(said.contains("nothing to index"), "{said}");
    }
    assert_eq!(place.json(&["tables", "--json"])?, serde_json::json!([]));
    place.write("text", "words")?;
    place.output(&["index", "text"])?;
    for way in ["--replace", "--add"] {
        place.failure(1, &["index", "empty", way])?;
        place.output(&["search", "words"])?;
    }
    Ok(())
}

#[test]
fn the_data_directory_is_no_part_of_the_corpus() -> io::Result<()> {
    let place = Place::new()?;
    place.write("text", "words")?;
    place.write("data/README.md", "words")?;
    place.write("deep/data/text", "words")?;
    assert_eq!(place.json(&["index", ".", "--json"])?["documents"], 2);
    Ok(())
}
