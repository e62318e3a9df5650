//! What `rhash index` does about an index that exists: refuses it, replaces it, adds to it.

mod cmd_support;

use std::io;

use cmd_support::Place;

fn documents(place: &Place, word: &str) -> io::Result<u64> {
    let run = place.run(&["term", word, "--json"])?;
    let object: serde_json::Value = serde_json::from_str(&run.stdout)?;
    Ok(object["documents"].as_u64().unwrap_or(u64::MAX))
}

fn indexed() -> io::Result<Place> {
    let place = Place::new()?;
    place.write("first/a", "shared one")?;
    place.write("first/b", "shared two")?;
    place.write("second/c", "shared three")?;
    place.output(&["index", "first"])?;
    Ok(place)
}

#[test]
fn an_index_that_exists_is_refused_with_the_ways_on() -> io::Result<()> {
    let place = indexed()?;
    let said = place.failure(1, &["index", "second"])?;
    for part in ["`index`", "2 documents", "--replace", "--add", "--name"] {
        assert!(said.contains(part), "{part} in {said}");
    }
    assert_eq!(documents(&place, "three")?, 0);
    place.output(&["index", "second", "--name", "other"])?;
    assert_eq!(documents(&place, "shared")?, 2);
    Ok(())
}

#[test]
fn replace_frees_what_there_was() -> io::Result<()> {
    let place = indexed()?;
    place.output(&["index", "second", "--replace"])?;
    assert_eq!(
        (documents(&place, "shared")?, documents(&place, "one")?),
        (1, 0)
    );
    // Where there is none, the same command makes one.
    place.output(&["index", "second", "--replace", "--name", "new"])?;
    Ok(())
}

#[test]
fn add_goes_on_numbering() -> io::Result<()> {
    let place = indexed()?;
    let summary = place.json(&["index", "second", "--add", "--json"])?;
    assert_eq!(
        (&summary["documents"], &summary["documents_in_index"]),
        (&1.into(), &3.into())
    );
    assert_eq!(documents(&place, "shared")?, 3);
    let found = place.json(&["search", "three", "one", "--json"])?;
    let paths: Vec<_> = found
        .as_array()
        .into_iter()
        .flatten()
        .map(|hit| &hit["path"])
        .collect();
    assert_eq!(paths.len(), 2, "{found}");
    assert!(
        paths.contains(&&"second/c".into()) && paths.contains(&&"first/a".into()),
        "{found}"
    );
    // A file that is added again is a second document.
    place.output(&["index", "second", "--add"])?;
    assert_eq!(documents(&place, "three")?, 2);
    place.output(&["index", "second", "--add", "--name", "new"])?;
    Ok(())
}

#[test]
fn replace_and_add_exclude_each_other() -> io::Result<()> {
    let place = Place::new()?;
    place.failure(2, &["index", "x", "--add", "--replace"])?;
    Ok(())
}

#[test]
fn an_index_that_is_not_complete_says_so_and_can_be_added_to() -> io::Result<()> {
    let place = indexed()?;
    place.output(&["put", "index.about", "complete", "false"])?;
    // What is counted wrong here shows that adding counts anew.
    place.output(&["put", "index.about", "documents", "1"])?;
    let said = place.failure(1, &["index", "second"])?;
    assert!(
        said.contains("not complete") && said.contains("--replace"),
        "{said}"
    );
    let run = place.run(&["search", "one"])?;
    assert_eq!(run.code, Some(0));
    assert!(run.stderr.contains("not complete"), "{run:?}");
    place.output(&["index", "second", "--add"])?;
    assert_eq!(documents(&place, "shared")?, 3);
    let run = place.run(&["search", "shared"])?;
    assert!(run.code == Some(0) && run.stderr.is_empty(), "{run:?}");
    assert_eq!(run.stdout.lines().count(), 6);
    Ok(())
}

#[test]
fn a_table_that_is_no_index_is_left_alone() -> io::Result<()> {
    let place = indexed()?;
    place.output(&["put", "people", "ada", "1815"])?;
    for way in ["--replace", "--add"] {
        let said = place.failure(1, &["index", "second", "--name", "people", way])?;
        assert!(said.contains("`people` is not an index"), "{said}");
    }
    assert_eq!(place.output(&["get", "people", "ada"])?, "1815\n");
    place.output(&["put", "index.about", "format", "99"])?;
    let said = place.failure(1, &["search", "one"])?;
    assert!(
        said.contains("format 99") && said.contains("--replace"),
        "{said}"
    );
    place.output(&["index", "second", "--replace"])?;
    Ok(())
}
