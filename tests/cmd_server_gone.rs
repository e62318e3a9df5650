//! An index run that cannot go on says what was indexed, and fails.

mod cmd_support;

use std::{
    io,
    process::Command,
    time::{Duration, Instant},
};

use cmd_support::{Corpus, Place, Server, Started};
use rhash_client::{
    Value, ValueCodec,
    blocking::{Client, RemoteHash},
};

/// The same files over and over, so that a run is far from its end when it is disturbed.
const REPEATS: usize = 2000;
const DEADLINE: Duration = Duration::from_secs(60);

fn start_long_run(place: &Place, address: &str) -> io::Result<Started> {
    Corpus::write(place, 31, 200, 2000)?;
    let mut args = vec!["index", "--server", address];
    args.resize(args.len() + REPEATS, "corpus");
    place.start(&args)
}

/// Waits until the server has acknowledged documents.
fn wait_for_documents(address: &str) -> rhash_client::Result<()> {
    let client = Client::connect(address)?;
    let started = Instant::now();
    loop {
        assert!(
            started.elapsed() < DEADLINE,
            "no document was indexed within {DEADLINE:?}"
        );
        if client.find_table("index.about")?.is_some() {
            let about = client.table("index.about").existing();
            let about: RemoteHash<Value, Value, ValueCodec> = about.open()?;
            if matches!(about.get("documents")?, Some(Value::Int(1..))) {
                return Ok(());
            }
        }
        std::thread::yield_now();
    }
}

#[test]
fn a_server_that_dies_leaves_an_account_of_what_was_indexed() -> io::Result<()> {
    let place = Place::new()?;
    let mut server = Server::start(&place, "24M")?;
    let run = start_long_run(&place, &server.address)?;
    wait_for_documents(&server.address).map_err(io::Error::other)?;
    server.kill();
    let run = run.end()?;
    assert_eq!(run.code, Some(1), "{run:?}");
    let said = run
        .stderr
        .split_once("rhash: indexed ")
        .map_or("", |(_, said)| said);
    let documents = said.split(' ').next().unwrap_or("").replace(',', "");
    assert!(
        documents
            .parse::<u64>()
            .is_ok_and(|documents| documents > 0),
        "{run:?}"
    );
    assert!(said.contains("not complete"), "{run:?}");
    assert_eq!(run.stdout, "", "there is nothing to sum up");
    Ok(())
}

#[test]
fn an_interrupt_ends_a_run_in_order() -> io::Result<()> {
    let place = Place::new()?;
    let server = Server::start(&place, "24M")?;
    let run = start_long_run(&place, &server.address)?;
    wait_for_documents(&server.address).map_err(io::Error::other)?;
    let id = run.child.id().to_string();
    assert!(Command::new("kill").args(["-INT", &id]).status()?.success());
    let run = run.end()?;
    assert_eq!(run.code, Some(1), "{run:?}");
    assert!(
        run.stderr.contains("stopped: ") && run.stderr.contains("not complete"),
        "{run:?}"
    );
    let at = ["--server", &server.address];
    let said = place.failure(1, &[&["index", "corpus"][..], &at].concat())?;
    assert!(said.contains("not complete"), "{said}");
    // What was indexed before is there, and can be added to.
    place.output(&[&["index", "corpus", "--add"][..], &at].concat())?;
    place.output(&[&["search", "word1"][..], &at].concat())?;
    Ok(())
}
