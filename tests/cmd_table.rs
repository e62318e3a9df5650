//! `put`, `get`, `del`, `scan`, `len` and `close`, on tables of every kind.

mod cmd_support;

use std::io;

use cmd_support::{Place, Server};
use rhash_client::{
    BytesCodec, Counter, List, Value, ValueCodec,
    blocking::{Client, RemoteHash},
};

#[test]
fn what_is_put_is_there_for_the_next_command() -> io::Result<()> {
    let place = Place::new()?;
    for (key, value, shown) in [
        ("ada", "{\"born\": 1815}", "{\"born\":1815}\n"),
        ("17", "-1.5", "-1.5\n"),
        ("list", "[1, null, \"x\"]", "[1,null,\"x\"]\n"),
        ("text", "plain words", "\"plain words\"\n"),
        ("bytes", "{\"$hex\": \"00ff\"}", "{\"$hex\":\"00ff\"}\n"),
    ] {
        assert_eq!(place.output(&["put", "people", key, value])?, "");
        assert_eq!(place.output(&["get", "people", key])?, shown);
    }
    // A number and the same number as text are two keys.
    assert!(
        place
            .failure(1, &["get", "people", "\"17\""])?
            .contains("no key")
    );
    assert_eq!(place.output(&["len", "people"])?, "5\n");
    place.output(&["del", "people", "17"])?;
    place.output(&["del", "people", "17"])?;
    place.failure(1, &["get", "people", "17"])?;
    assert_eq!(place.output(&["len", "people"])?, "4\n");
    Ok(())
}

#[test]
fn scan_prints_each_entry_once() -> io::Result<()> {
    let place = Place::new()?;
    for number in ["1", "2", "3"] {
        place.output(&["put", "t", number, "\"v\""])?;
    }
    let mut lines: Vec<String> = place
        .output(&["scan", "t"])?
        .lines()
        .map(str::to_owned)
        .collect();
    lines.sort();
    let line = |number: &str| format!("{{\"key\":{number},\"value\":\"v\"}}");
    assert_eq!(lines, ["1", "2", "3"].map(line));
    assert_eq!(
        place
            .output(&["scan", "t", "--limit", "2"])?
            .lines()
            .count(),
        2
    );
    assert_eq!(place.output(&["scan", "t", "--limit", "0"])?, "");
    let keys = place.output(&["scan", "t", "--keys"])?;
    assert!(
        keys.lines().count() == 3 && keys.contains("{\"key\":2}\n"),
        "{keys}"
    );
    Ok(())
}

#[test]
fn close_asks_and_then_frees() -> io::Result<()> {
    let place = Place::new()?;
    place.output(&["put", "t", "k", "v"])?;
    // There is no terminal here to ask at.
    assert!(place.failure(1, &["close", "t"])?.contains("--yes"));
    assert_eq!(place.output(&["get", "t", "k"])?, "\"v\"\n");
    place.output(&["close", "t", "--yes"])?;
    for args in [
        &["get", "t", "k"][..],
        &["scan", "t"],
        &["len", "t"],
        &["close", "t", "--yes"],
    ] {
        assert!(place.failure(1, args)?.contains("no table `t`"));
    }
    assert_eq!(place.output(&["tables"])?, "no tables\n");
    Ok(())
}

/// Tables that only programs make.
fn made_by_programs(client: &Client) -> rhash_client::Result<()> {
    let lists: RemoteHash<Value, List<Value>, ValueCodec> = client.table("lists").open()?;
    lists.append_many("k", vec![Value::Int(1), Value::Str("two".into())])?;
    let counters: RemoteHash<Value, Counter, ValueCodec> = client.table("counters").open()?;
    counters.add("k", -7)?;
    let bytes: RemoteHash<Vec<u8>, Vec<u8>, BytesCodec> = client.table("bytes").open()?;
    bytes.insert(&b"k"[..], &b"\xff\x00"[..])?;
    let private: RemoteHash<String, u64> = client.table("private").open()?;
    private.insert("k", 1)?;
    client.shutdown()
}

#[test]
fn tables_of_other_kinds_and_codecs_are_read_and_written() -> io::Result<()> {
    let place = Place::new()?;
    let server = Server::start(&place, "24M")?;
    let client = Client::connect(&server.address).map_err(io::Error::other)?;
    made_by_programs(&client).map_err(io::Error::other)?;
    let at = |args: &[&'static str]| [&["--server", server.address.as_str()], args].concat();
    assert_eq!(place.output(&at(&["get", "lists", "k"]))?, "[1,\"two\"]\n");
    assert_eq!(place.output(&at(&["get", "counters", "k"]))?, "-7\n");
    assert_eq!(
        place.output(&at(&["scan", "bytes"]))?,
        "{\"key\":\"k\",\"value\":{\"$hex\":\"ff00\"}}\n"
    );
    place.output(&at(&["put", "lists", "k", "[3]"]))?;
    assert_eq!(place.output(&at(&["get", "lists", "k"]))?, "[3]\n");
    place.failure(2, &at(&["put", "lists", "k", "3"]))?;
    place.output(&at(&["put", "counters", "k", "12"]))?;
    assert_eq!(place.output(&at(&["get", "counters", "k"]))?, "12\n");
    place.failure(2, &at(&["put", "counters", "k", "many"]))?;
    place.output(&at(&["put", "bytes", "17", "17"]))?;
    assert_eq!(place.output(&at(&["get", "bytes", "17"]))?, "\"17\"\n");
    let said = place.failure(1, &at(&["get", "private", "k"]))?;
    assert!(
        said.contains("bincode") && said.contains("`value`"),
        "{said}"
    );
    // Whatever its codec, a table can be freed.
    place.output(&at(&["close", "private", "--yes"]))?;
    Ok(())
}

#[test]
fn put_makes_a_table_with_its_durability_which_tables_shows() -> io::Result<()> {
    let place = Place::new()?;
    place.output(&["put", "safe", "k", "1", "--durability", "always"])?;
    place.output(&["put", "safe", "k", "2"])?;
    place.output(&["put", "--durability", "always", "safe", "k", "3"])?;
    place.output(&["put", "plain", "k", "1"])?;
    let said = place.failure(1, &["put", "safe", "k", "4", "--durability", "none"])?;
    assert!(said.contains("has durability always, not none"), "{said}");
    let said = place.failure(2, &["put", "safe", "k", "4", "--durability", "some"])?;
    assert!(said.contains("none, everysec, always"), "{said}");
    assert_eq!(place.output(&["get", "safe", "k"])?, "3\n");
    let shown = place.output(&["tables"])?;
    let line = |name: &str| shown.lines().find(|line| line.starts_with(name));
    assert!(
        line("safe").is_some_and(|line| line.ends_with("  always")),
        "{shown}"
    );
    assert!(
        line("plain").is_some_and(|line| line.ends_with("  everysec (server's)")),
        "{shown}"
    );
    let tables = place.json(&["tables", "--json"])?;
    for (number, durability, own) in [(0, "everysec", false), (1, "always", true)] {
        assert_eq!(tables[number]["durability"], durability);
        assert_eq!(tables[number]["own_durability"], own);
    }
    Ok(())
}

#[test]
fn an_index_has_the_durability_that_it_is_asked_for() -> io::Result<()> {
    let place = Place::new()?;
    place.write("a.txt", "some words")?;
    place.output(&["index", "a.txt", "--durability", "none"])?;
    assert!(place.output(&["search", "words"])?.contains("a.txt"));
    place.failure(2, &["index", "a.txt", "--add", "--durability", "none"])?;
    place.output(&["index", "a.txt", "--add"])?;
    let tables = place.json(&["tables", "--json"])?;
    let levels = tables.as_array().into_iter().flatten();
    let levels: Vec<_> = levels.map(|table| table["durability"].clone()).collect();
    assert_eq!(levels, ["none"; 4]);
    Ok(())
}
