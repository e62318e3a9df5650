//! Command lines that make no sense end with code 2 and say why; help teaches.

mod cmd_support;

use std::io;

use cmd_support::Place;

#[test]
fn what_makes_no_sense_is_a_usage_error() -> io::Result<()> {
    let place = Place::new()?;
    place.write("text", "words")?;
    for (args, part) in [
        (&["--no-such-flag"][..], "--no-such-flag"),
        (&["no-such-command"], "no-such-command"),
        (&["index"], "PATH"),
        (&["index", "text", "--fast"], "--fast"),
        (&["search"], "WORDS"),
        (&["search", "words", "--limit", "none"], "none"),
        (&["search", "words", "--limit", "0"], "0"),
        (&["get", "table"], "KEY"),
        (&["index", "text", "--mem-limit", "lots"], "lots"),
        (&["index", "text", "--mem-limit", "1M"], "at least"),
        (&["index", "text", "--name", ""], "name"),
        (
            &["stats", "--server", "localhost:1", "--data", "x"],
            "--data",
        ),
    ] {
        let said = place.failure(2, args)?;
        assert!(said.contains(part), "{args:?}: {part} in {said}");
    }
    assert!(
        !place.path().join("data").exists(),
        "a command that makes no sense made something"
    );
    Ok(())
}

#[test]
fn words_that_are_no_terms_are_usage_errors() -> io::Result<()> {
    let place = Place::new()?;
    place.write("text", "words")?;
    place.output(&["index", "text"])?;
    assert!(
        place
            .failure(2, &["search", "?!", "x"])?
            .contains("no term")
    );
    assert!(place.failure(2, &["term", "x"])?.contains("no term"));
    assert!(
        place
            .failure(2, &["term", "two-words"])?
            .contains("several terms (two, words)")
    );
    Ok(())
}

#[test]
fn help_has_examples_for_every_question() -> io::Result<()> {
    let place = Place::new()?;
    let help = place.output(&["--help"])?;
    for part in [
        "Examples:",
        "rhash index",
        "rhash search",
        "--server",
        "Exit codes",
    ] {
        assert!(help.contains(part), "{part} in {help}");
    }
    for command in ["index", "search", "scan"] {
        assert!(
            place.output(&[command, "--help"])?.contains("Examples:"),
            "{command}"
        );
    }
    assert!(place.output(&["--version"])?.starts_with("rhash "));
    Ok(())
}

#[test]
fn commands_that_find_things_make_no_data_directory() -> io::Result<()> {
    let place = Place::new()?;
    for args in [
        &["search", "words"][..],
        &["stats"],
        &["get", "table", "key"],
    ] {
        let said = place.failure(1, args)?;
        assert!(
            said.contains("no data directory") && said.contains("--server"),
            "{said}"
        );
    }
    assert!(!place.path().join("data").exists());
    Ok(())
}

#[test]
fn a_server_that_is_not_there_is_named() -> io::Result<()> {
    let place = Place::new()?;
    // A port that was free a moment ago.
    let address = std::net::TcpListener::bind("127.0.0.1:0")?
        .local_addr()?
        .to_string();
    let said = place.failure(1, &["ping", "--server", &address])?;
    assert!(said.contains(&address), "{said}");
    Ok(())
}
