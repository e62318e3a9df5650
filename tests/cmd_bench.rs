//! `rhash bench`: measures two servers, or one elsewhere, with tiny data; shows a table, JSON and a
//! page; leaves nothing behind, however it ends.

mod cmd_support;

use std::{
    fs, io,
    process::Command,
    time::{Duration, Instant},
};

use cmd_support::{Place, Server};
use serde_json::Value;

const STEPS: [&str; 12] = [
    "index build",
    "settle, lists",
    "list gets",
    "close, lists",
    "load",
    "settle",
    "batched gets, uniform",
    "batched gets, Zipf",
    "single gets, uniform",
    "single gets, Zipf",
    "scan",
    "close",
];

/// How long a condition is waited for: far longer than it takes.
const DEADLINE: Duration = Duration::from_secs(60);

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or(f64::NAN)
}

fn steps(setup: &Value) -> &[Value] {
    setup["steps"].as_array().map_or(&[], Vec::as_slice)
}

/// What must hold for the figures of any step.
fn is_sane(step: &Value) {
    let rate = &step["per_second"];
    if !rate.is_null() {
        assert!(number(&rate["least"]) > 0.0, "{step}");
        assert!(number(&rate["least"]) <= number(&rate["median"]), "{step}");
        assert!(number(&rate["median"]) <= number(&rate["most"]), "{step}");
        assert!(number(&step["operations"]) > 0.0, "{step}");
    }
    let latency = &step["latency"];
    if !latency.is_null() {
        let rising = ["p50_ms", "p90_ms", "p99_ms", "p999_ms", "max_ms"];
        for pair in rising.windows(2) {
            assert!(
                number(&latency[pair[0]]) <= number(&latency[pair[1]]),
                "{step}"
            );
        }
        assert!(
            number(&latency["p50_ms"]) > 0.0 && number(&latency["calls"]) > 0.0,
            "{step}"
        );
    }
    assert!(number(&step["server"]["memory_bytes_max"]) > 0.0, "{step}");
}

/// Whether each tag of a page is closed in its order; void elements close themselves.
fn is_well_formed(page: &str) -> Result<(), String> {
    let mut open: Vec<&str> = Vec::new();
    let mut rest = page.strip_prefix("<!DOCTYPE html>").ok_or("no doctype")?;
    while let Some(at) = rest.find('<') {
        let end = rest[at..].find('>').ok_or("a tag does not end")? + at;
        let tag = &rest[at + 1..end];
        rest = &rest[end + 1..];
        if tag.matches('"').count() % 2 != 0 || tag.contains('<') {
            return Err(format!("odd quotes in <{tag}>"));
        }
        if let Some(name) = tag.strip_prefix('/') {
            match open.pop() {
                Some(opened) if opened == name => {}
                opened => return Err(format!("</{name}> closes {opened:?}")),
            }
        } else if !tag.ends_with('/') {
            open.push(tag.split_whitespace().next().unwrap_or_default());
        }
    }
    if open.is_empty() {
        Ok(())
    } else {
        Err(format!("not closed: {open:?}"))
    }
}

fn left_behind(place: &Place) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(place.path())? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    Ok(names)
}

#[test]
fn both_modes_run_all_steps_and_leave_a_page_and_nothing_else() -> io::Result<()> {
    let place = Place::new()?;
    let run = place.run(&[
        "bench",
        "--size",
        "1M",
        "--rounds",
        "2",
        "--get-time",
        "20ms",
        "--json",
        "--html",
        "bench.html",
    ])?;
    assert_eq!(run.code, Some(0), "{run:?}");
    assert!(
        run.stderr.contains("spill: nothing was spilled"),
        "{}",
        run.stderr
    );
    let report: Value = serde_json::from_str(&run.stdout)?;
    for (name, limit, memory_only) in [("memory only", 130 << 20, true), ("spill", 24 << 20, false)]
    {
        let setups = report["setups"].as_array().map_or(&[][..], Vec::as_slice);
        let setup = setups.iter().find(|setup| setup["name"] == name);
        let setup = setup.unwrap_or_else(|| panic!("{name} in {report}"));
        assert!(number(&setup["limit_bytes"]) >= f64::from(limit), "{setup}");
        assert_eq!(setup["memory_only"], memory_only);
        assert_eq!(setup["data_bytes"], 1 << 20);
        assert!(number(&setup["round_trip_ms"]) > 0.0);
        let names: Vec<&Value> = steps(setup).iter().map(|step| &step["step"]).collect();
        assert_eq!(names, STEPS);
        steps(setup).iter().for_each(is_sane);
        assert_eq!(steps(setup)[0]["operations"], (1 << 20) / 8);
        assert_eq!(steps(setup)[10]["operations"], (1 << 20) / 116);
        assert!(
            setup["samples"]
                .as_array()
                .is_some_and(|samples| samples.len() > 10)
        );
    }
    for name in ["version", "date", "command"] {
        assert!(report[name].is_string(), "{name} in {report}");
    }
    assert_eq!(report["settings"]["rounds"], 2);
    assert!(number(&report["machine"]["cores"]) > 0.0);

    let page = fs::read_to_string(place.path().join("bench.html"))?;
    if let Err(fault) = is_well_formed(&page) {
        panic!("{fault}");
    }
    assert!(!page.contains("<script") && !page.contains("src=") && !page.contains("href="));
    assert!(
        page.matches("role=\"img\"").count() >= 5,
        "charts are missing"
    );
    for part in STEPS
        .iter()
        .chain(&["memory only", "spill", "--html bench.html", "p99.9"])
    {
        assert!(page.contains(part), "{part} is not on the page");
    }
    assert_eq!(left_behind(&place)?, ["bench.html"]);
    Ok(())
}

#[test]
fn data_beyond_the_limit_spill_and_the_limit_holds() -> io::Result<()> {
    let place = Place::new()?;
    let report = place.json(&[
        "bench",
        "--size",
        "40M",
        "--mem-limit",
        "24M",
        "--work",
        "values",
        "--value",
        "8K",
        "--rounds",
        "1",
        "--get-time",
        "50ms",
        "--json",
    ])?;
    let (memory, spill) = (&report["setups"][0], &report["setups"][1]);
    assert_eq!(number(&memory["spilled_bytes"]), 0.0);
    assert_eq!(number(&memory["disk_bytes_max"]), 0.0);
    assert!(
        number(&spill["spilled_bytes"]) > f64::from(10 << 20),
        "{spill}"
    );
    assert!(
        number(&spill["disk_bytes_max"]) > f64::from(10 << 20),
        "{spill}"
    );
    assert!(
        number(&memory["memory_bytes_max"]) > f64::from(40 << 20),
        "{memory}"
    );
    assert!(
        number(&spill["memory_bytes_max"]) <= f64::from(24 << 20),
        "{spill}"
    );
    assert_eq!(steps(spill).len(), 8, "{spill}");
    steps(spill).iter().for_each(is_sane);
    assert!(left_behind(&place)?.is_empty());
    Ok(())
}

#[test]
fn a_server_elsewhere_is_measured_with_each_size_and_keeps_nothing() -> io::Result<()> {
    let place = Place::new()?;
    let server = Server::start(&place, "24M")?;
    let table = place.output(&[
        "bench",
        "--server",
        &server.address,
        "--size",
        "100K,200K",
        "--rounds",
        "1",
        "--get-time",
        "5ms",
    ])?;
    for part in [
        "STEP",
        "P99.9",
        "100.0 KiB: ",
        "200.0 KiB: ",
        "limit 24.0 MiB",
    ] {
        assert!(table.contains(part), "{part} in {table}");
    }
    for step in STEPS {
        assert!(table.contains(step), "{step} in {table}");
    }
    let tables = place.output(&["tables", "--server", &server.address])?;
    assert_eq!(tables, "no tables\n");
    Ok(())
}

#[test]
fn what_makes_no_sense_is_refused_before_anything_runs() -> io::Result<()> {
    let place = Place::new()?;
    for (args, part) in [
        (&["--size", "lots"][..], "512M"),
        (&["--size", "1K"], "8 entries"),
        (&["--size", "100M", "--mem-limit", "1M"], "at least 24 MiB"),
        (&["--batch", "0"], "0"),
        (&["--get-time", "0s"], "1ms"),
        (&["--zipf", "9"], "0.1"),
        (&["--work", "nothing"], "lists"),
        (&["--rounds", "0"], "1..=100"),
        (&["--server", "no port:x"], "--server"),
    ] {
        let args = [&["bench"], args].concat();
        let said = place.failure(2, &args)?;
        assert!(said.contains(part), "{args:?}: {part} in {said}");
    }
    let said = place.failure(1, &["bench", "--html", "no/such/directory/page.html"])?;
    assert!(said.contains("no/such/directory/page.html"), "{said}");
    assert!(left_behind(&place)?.is_empty());
    Ok(())
}

#[test]
fn help_says_what_is_measured() -> io::Result<()> {
    let place = Place::new()?;
    let help = place.output(&["bench", "--help"])?;
    for part in ["Examples:", "--server", "an eighth", "removed", "Default"] {
        assert!(
            help.to_lowercase().contains(&part.to_lowercase()),
            "{part} in {help}"
        );
    }
    assert!(!place.output(&["--help"])?.contains("serve-for-bench"));
    Ok(())
}

/// The directories that servers were started in.
fn data_directories(place: &Place) -> io::Result<Vec<String>> {
    let mut names = left_behind(place)?;
    names.retain(|name| name.starts_with("rhash-bench-"));
    Ok(names)
}

/// The processes whose command line names a directory.
fn processes(directory: &str) -> io::Result<Vec<u32>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let entry = entry?;
        let Ok(id) = entry.file_name().to_string_lossy().parse() else {
            continue;
        };
        // A process may end while it is looked at.
        let command = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        if String::from_utf8_lossy(&command).contains(directory) {
            found.push(id);
        }
    }
    Ok(found)
}

fn wait_until(what: &str, mut holds: impl FnMut() -> io::Result<bool>) -> io::Result<()> {
    let began = Instant::now();
    while !holds()? {
        assert!(began.elapsed() < DEADLINE, "waited too long until {what}");
        std::thread::park_timeout(Duration::from_millis(10));
    }
    Ok(())
}

/// A run that is in the midst of its work on the spilling server, and that server's process.
fn started(place: &Place) -> io::Result<(cmd_support::Started, u32)> {
    // The one that keeps all in memory comes first, and must be through with its gets.
    let run = place.start(&[
        "bench",
        "--size",
        "64K",
        "--work",
        "values",
        "--get-time",
        "100ms",
        "--rounds",
        "100",
    ])?;
    let mut server = None;
    wait_until("a server runs", || {
        if let Some(directory) = data_directories(place)?.first() {
            server = processes(directory)?.first().copied();
        }
        Ok(server.is_some())
    })?;
    Ok((run, server.unwrap_or_default()))
}

#[test]
fn an_interrupted_run_ends_in_order() -> io::Result<()> {
    let place = Place::new()?;
    let (run, _) = started(&place)?;
    let id = run.child.id().to_string();
    assert!(
        Command::new("kill")
            .args(["-s", "INT", &id])
            .status()?
            .success()
    );
    let run = run.end()?;
    assert_eq!(run.code, Some(1), "{run:?}");
    assert!(run.stderr.contains("stopped before the end"), "{run:?}");
    assert!(left_behind(&place)?.is_empty(), "{:?}", left_behind(&place));
    Ok(())
}

#[test]
fn no_server_outlives_the_command() -> io::Result<()> {
    let place = Place::new()?;
    let (mut run, server) = started(&place)?;
    run.child.kill()?;
    run.child.wait()?;
    wait_until("the server has ended", || {
        Ok(!fs::exists(format!("/proc/{server}"))?)
    })
}
