//! `rhash bench`: runs rounds on each server in turn, and shows what they gave as a table, as JSON
//! and as a page.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use rhash_client::Client;
use tokio::runtime::Runtime;

use crate::{
    bench::{
        data,
        figures::{RoundRun, SetupFigures, StepFigures},
        page,
        plan::{Plan, ServerPlace, Setup},
        progress::Progress,
        report::Report,
        round::Round,
        server::Server,
        watch::Watch,
    },
    cli::{self, Place},
    failure::{Failure, Outcome},
    interrupt::on_interrupt,
    output::{Align, Output, note, number_short, size, time_short},
};

/// Where the spilling server's directory is made, unless `--data` says otherwise.
const DATA_DIR: &str = ".";

/// Round trips whose median is told.
const ROUND_TRIPS: usize = 200;

/// How long a server that does not answer is tried again.
const RETRY_DEADLINE: Duration = Duration::from_secs(5);

/// Runs the command.
///
/// # Errors
/// The options make no sense, or a server failed or gave a wrong answer.
pub(crate) fn run(place: &Place, args: &cli::Bench, out: &mut Output) -> Outcome {
    if place.token_file.is_some() || place.ca.is_some() || place.client_cert.is_some() {
        return Err(Failure::Usage(
            "bench takes its token from the address or the environment (RHASH_TOKEN_FILE), and the \
             authorities that it trusts from RHASH_CA"
                .into(),
        ));
    }
    let plan = Plan::new(place, args)?;
    if let Some(file) = &args.html {
        check_writable(file)?;
    }
    let stopped = Arc::new(AtomicBool::new(false));
    let stop = Arc::clone(&stopped);
    on_interrupt(move || stop.store(true, Relaxed));
    let data = place
        .data
        .clone()
        .unwrap_or_else(|| PathBuf::from(DATA_DIR));
    let progress = Progress::new(stopped);
    let measured = measure(&plan, &data, &progress);
    progress.finish();
    let report = Report::new(&plan, measured?);
    if let Some(file) = &args.html {
        fs::write(file, page::page(&report)?).map_err(|error| cannot_write(file, &error))?;
    }
    if args.json {
        out.json(&report)?;
    } else {
        show(&report, out)?;
    }
    for setup in report.setups.iter().filter(|setup| !setup.memory_only) {
        if setup.spilled_bytes == 0 {
            note(format_args!(
                "{}: nothing was spilled, since {} of data fit {} of memory; a larger --size \
                 measures both tiers",
                setup.name,
                size(setup.data_bytes),
                size(setup.limit_bytes)
            ));
        }
    }
    Ok(())
}

fn measure(plan: &Plan, data: &Path, progress: &Progress) -> Outcome<Vec<SetupFigures>> {
    let runtime =
        Runtime::new().map_err(|error| Failure::plain(format!("cannot start threads: {error}")))?;
    let mut rounds: Vec<Vec<RoundRun>> = plan.setups.iter().map(|_| Vec::new()).collect();
    for number in 0..plan.rounds {
        // Servers take turns, so that whatever changes on the host meets them all.
        for (setup, rounds) in plan.setups.iter().zip(&mut rounds) {
            progress.round(format!("{} of {}  {}", number + 1, plan.rounds, setup.name));
            let seed = data::mix(plan.work.seed.wrapping_add(u64::from(number)));
            rounds.push(round(plan, setup, seed, data, progress, &runtime)?);
        }
    }
    let figures = plan
        .setups
        .iter()
        .zip(rounds)
        .filter_map(|(setup, rounds)| {
            SetupFigures::of(setup.name.clone(), setup.data_bytes, rounds)
        });
    Ok(figures.collect())
}

fn round(
    plan: &Plan,
    setup: &Setup,
    seed: u64,
    data: &Path,
    progress: &Progress,
    runtime: &Runtime,
) -> Outcome<RoundRun> {
    let server = Server::start(&setup.place, data)?;
    let watch = Watch::start(server.address()).map_err(|failure| named(&setup.place, failure))?;
    let mut run = runtime.block_on(async {
        let client = Client::builder()
            .retry_deadline(RETRY_DEADLINE)
            .client_name("rhash bench")
            .connect(server.address())
            .await?;
        let stats = client.stats().await?;
        let round_trip = round_trip(&client).await?;
        let mut round = Round {
            client: &client,
            work: &plan.work,
            data_bytes: setup.data_bytes,
            watch: &watch,
            progress,
            random: fastrand::Rng::with_seed(seed),
        };
        let steps = round.run().await?;
        client.shutdown().await?;
        Outcome::Ok(RoundRun {
            steps,
            samples: Vec::new(),
            limit_bytes: stats.mem_limit_bytes,
            memory_only: stats.memory_only,
            round_trip,
        })
    })?;
    run.samples = watch.finish();
    Ok(run)
}

/// An address that is none is the command line's fault.
fn named(place: &ServerPlace, failure: Failure) -> Failure {
    match (place, failure) {
        (ServerPlace::Elsewhere { .. }, Failure::Client(error))
            if error.kind() == rhash_client::ErrorKind::Usage =>
        {
            Failure::Usage(format!("--server {error}"))
        }
        (_, failure) => failure,
    }
}

async fn round_trip(client: &Client) -> Outcome<Duration> {
    let mut times = Vec::with_capacity(ROUND_TRIPS);
    for _ in 0..ROUND_TRIPS {
        times.push(client.ping().await?);
    }
    times.sort_unstable();
    Ok(times[ROUND_TRIPS / 2])
}

/// Finds out before the run whether the page can be written after it.
fn check_writable(file: &Path) -> Outcome {
    let existed = file.exists();
    fs::OpenOptions::new()
        .append(true)
        .create(true)
        .open(file)
        .map_err(|error| cannot_write(file, &error))?;
    if !existed {
        // Nothing is lost if it stays: the page replaces it.
        let _left = fs::remove_file(file);
    }
    Ok(())
}

fn cannot_write(file: &Path, error: &std::io::Error) -> Failure {
    Failure::plain(format!("cannot write {}: {error}", file.display()))
}

fn show(report: &Report, out: &mut Output) -> Outcome {
    let settings = &report.settings;
    let machine = &report.machine;
    out.line(format_args!(
        "rhash {} on {}, {} cores, {}",
        report.version, machine.processor, machine.cores, machine.system
    ))?;
    out.line(format_args!(
        "keys of {} and values of {} bytes, gets of {} keys, Zipf {}, seed {}; rounds: {}",
        settings.key_bytes,
        settings.value_bytes,
        settings.batch_keys,
        settings.zipf_exponent,
        settings.seed,
        settings.rounds,
    ))?;
    for setup in &report.setups {
        let tier = if setup.memory_only {
            "in memory only"
        } else {
            "the rest on disk"
        };
        out.line(format_args!(
            "{}: {} of data, limit {}, {tier}; most memory {}, round trip {}",
            setup.name,
            size(setup.data_bytes),
            size(setup.limit_bytes),
            size(setup.memory_bytes_max),
            time_short(setup.round_trip_ms),
        ))?;
    }
    out.line("")?;
    table(report, out)
}

fn table(report: &Report, out: &mut Output) -> Outcome {
    let headings = [
        ("STEP", Align::Left),
        ("SERVER", Align::Left),
        ("A SECOND", Align::Right),
        ("TIME", Align::Right),
        ("P50", Align::Right),
        ("P99", Align::Right),
        ("P99.9", Align::Right),
        ("MOST", Align::Right),
        ("MEMORY", Align::Right),
        ("DISK", Align::Right),
    ];
    let steps = report.setups.iter().map(|setup| setup.steps.len()).max();
    let mut rows = Vec::new();
    for at in 0..steps.unwrap_or(0) {
        for (place, setup) in report.setups.iter().enumerate() {
            if let Some(step) = setup.steps.get(at) {
                rows.push(row(step, &setup.name, place == 0));
            }
        }
    }
    Ok(out.table(headings, &rows)?)
}

fn row(step: &StepFigures, server: &str, is_first: bool) -> [String; 10] {
    let name = match (is_first, step.unit) {
        (false, _) => String::new(),
        (true, None) => step.step.name().to_owned(),
        (true, Some(unit)) => format!("{} ({unit})", step.step.name()),
    };
    let latency = |of: fn(&crate::bench::figures::Percentiles) -> f64| {
        let shown = step.latency.as_ref().map(|latency| time_short(of(latency)));
        shown.unwrap_or_default()
    };
    [
        name,
        server.to_owned(),
        step.per_second
            .map(|rate| number_short(rate.median))
            .unwrap_or_default(),
        time_short(step.seconds.median * 1e3),
        latency(|latency| latency.p50_ms),
        latency(|latency| latency.p99_ms),
        latency(|latency| latency.p999_ms),
        latency(|latency| latency.max_ms),
        size(step.server.memory_bytes_max),
        size(step.server.disk_bytes),
    ]
}
