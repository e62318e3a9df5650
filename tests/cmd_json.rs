//! The JSON that programs read has the names that they rely on.

mod cmd_support;

use std::io;

use cmd_support::Place;
use serde_json::Value;

fn has(object: &Value, names: &[&str]) {
    for name in names {
        assert!(object.get(name).is_some(), "{name} in {object}");
    }
}

fn indexed() -> io::Result<Place> {
    let place = Place::new()?;
    place.write("c/a", "one two\nthree two\n")?;
    place.write("c/b", "two")?;
    place.output(&["index", "c"])?;
    Ok(place)
}

#[test]
fn index_prints_one_object() -> io::Result<()> {
    let summary = indexed()?.json(&["index", "c", "--replace", "--json"])?;
    for (name, value) in [
        ("documents", 2),
        ("terms", 5),
        ("postings", 4),
        ("bytes", 21),
        ("skipped", 0),
    ] {
        assert_eq!(summary[name], value, "{name} in {summary}");
    }
    has(
        &summary,
        &[
            "unreadable",
            "seconds",
            "megabytes_per_second",
            "hot_bytes",
            "cold_bytes",
        ],
    );
    Ok(())
}

#[test]
fn term_prints_an_object() -> io::Result<()> {
    let object = indexed()?.json(&["term", "TWO", "--json"])?;
    assert_eq!(
        object,
        serde_json::json!({ "term": "two", "documents": 2, "occurrences": 3 })
    );
    Ok(())
}

#[test]
fn search_prints_a_list() -> io::Result<()> {
    let list = indexed()?.json(&["search", "two", "three", "--json"])?;
    assert_eq!(list.as_array().map(Vec::len), Some(2), "{list}");
    assert_eq!(list[0]["path"], "c/a");
    assert_eq!(
        (&list[0]["line_number"], &list[0]["line"]),
        (&2.into(), &"three two".into())
    );
    assert!(
        list[0]["score"].as_f64() > list[1]["score"].as_f64(),
        "{list}"
    );
    Ok(())
}

#[test]
fn stats_and_tables_print_all_figures() -> io::Result<()> {
    let place = indexed()?;
    let stats = place.json(&["stats", "--json"])?;
    has(
        &stats,
        &[
            "mem_limit_bytes",
            "tracked_bytes",
            "resident_bytes",
            "disk_bytes",
            "disk_limit_bytes",
            "spilled_entries",
            "spilled_bytes",
            "promoted_entries",
            "merges",
            "merged_bytes",
            "sled_bytes",
            "stalls",
            "stall_ms",
            "stall_ms_max",
            "merge_stalls",
            "merge_stall_ms",
            "log_bytes",
            "connections",
            "operations",
        ],
    );
    let tables = place.json(&["tables", "--json"])?;
    for list in [&stats["tables"], &tables] {
        let names: Vec<&str> = list
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|table| table["name"].as_str())
            .collect();
        for name in ["index", "index.documents", "index.lengths", "index.about"] {
            assert!(names.contains(&name), "{name} in {names:?}");
        }
        let table = &list[0];
        assert!(
            ["values", "lists"]
                .iter()
                .any(|kind| table["kind"] == *kind),
            "{table}"
        );
        has(
            table,
            &[
                "entries_estimate",
                "hot_entries",
                "hot_bytes",
                "cold_runs",
                "cold_bytes",
            ],
        );
    }
    let text = place.output(&["stats"])?;
    assert!(
        text.contains("memory") && text.contains("index.documents"),
        "{text}"
    );
    assert!(place.output(&["tables"])?.starts_with("TABLE"));
    Ok(())
}

#[test]
fn ping_measures() -> io::Result<()> {
    let text = indexed()?.output(&["ping", "--count", "3"])?;
    assert_eq!(text.lines().count(), 4, "{text}");
    assert!(text.contains("median"), "{text}");
    Ok(())
}
