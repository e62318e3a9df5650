//! `rhash index`: builds an index and sums up what was done.

use std::{
    path::Path,
    sync::{Arc, mpsc},
    thread,
    time::{Duration, Instant},
};

use rhash_client::{Stats, blocking::Client};
use rhash_server::args::DurabilityLevel;
use serde_json::json;

use super::progress;
use crate::{
    cli,
    connection::Session,
    failure::{Failure, Outcome},
    index::{
        build::{self, Built, Existing, Job},
        catalogue::{self, Names, State, not_an_index, unknown_format},
        figures::{Figures, Unreadable},
        reader::Corpus,
    },
    interrupt::on_interrupt,
    output::{Output, count, count_of, megabytes, note, per_second, size},
};

/// Runs the command.
///
/// # Errors
/// The index exists, nothing was found to index, or the server failed.
pub(crate) fn run(session: &Session, args: &cli::Index, out: &mut Output) -> Outcome {
    let client = session.client();
    let names = Names::new(&args.name.name);
    let existing = existing(client, &names, args)?;
    let directory = std::env::current_dir().map_err(|error| {
        Failure::plain(format!("the current directory cannot be read: {error}"))
    })?;
    let server_bytes = client.stats()?.mem_limit_bytes;
    let corpus = Corpus {
        paths: args.paths.clone(),
        left_out: session.data_directory().map(Path::to_path_buf),
    };
    let job = Job {
        names: names.clone(),
        existing,
        durability: args.durability.map(DurabilityLevel::level),
        corpus,
        directory,
        server_bytes,
    };
    let figures = Arc::new(Figures::default());
    let stoppable = Arc::clone(&figures);
    on_interrupt(move || stoppable.stop());
    let started = Instant::now();
    let built = build_and_show(client, &job, &figures);
    let elapsed = started.elapsed();
    let built = built.map_err(|failure| stopped_early(&failure, &figures, &args.name.name))?;
    name_unreadable(&built.unreadable);
    if Figures::get(&figures.documents) == 0 {
        return Err(nothing_indexed(&figures, &built.unreadable));
    }
    let summary = Summary {
        args,
        built: &built,
        figures: &figures,
        elapsed,
    };
    let stats = client.stats()?;
    if args.json {
        summary.json(&stats, &names, out)?
    } else {
        summary.text(&stats, &names, out)?
    }
    if figures.is_stopped() {
        return Err(Failure::plain(format!(
            "stopped: the index `{}` holds {} and is marked as not complete",
            args.name.name,
            count_of(built.about.documents, "document")
        )));
    }
    Ok(())
}

/// What is to become of the index that exists, if one does.
fn existing(client: &Client, names: &Names, args: &cli::Index) -> Outcome<Existing> {
    let index = &args.name.name;
    match catalogue::find(client, names)? {
        State::Missing => Ok(Existing::None),
        State::Taken(table) => Err(not_an_index(index, &table)),
        _ if args.replace => Ok(Existing::Replace),
        State::Unknown(format) => Err(unknown_format(index, format)),
        State::Present(_) if args.add => Ok(Existing::Add),
        State::Present(about) => {
            let documents = count_of(about.documents, "document");
            let state = if about.complete {
                format!("exists with {documents}")
            } else {
                format!(
                    "exists, but is not complete: the command that builds it was interrupted after \
                     {documents}, or is still at work"
                )
            };
            Err(Failure::plain(format!(
                "the index `{index}` {state}; --replace builds it anew, --add adds documents to \
                 it, and --name makes another"
            )))
        }
    }
}

fn build_and_show(client: &Client, job: &Job, figures: &Figures) -> Outcome<Built> {
    let (running, done) = mpsc::sync_channel(0);
    thread::scope(|scope| {
        scope.spawn(move || progress::show(client, figures, &done));
        let built = build::run(client, job, figures);
        drop(running);
        built
    })
}

fn stopped_early(failure: &Failure, figures: &Figures, index: &str) -> Failure {
    let sent = Figures::get(&figures.documents_sent);
    let read = Figures::get(&figures.documents);
    Failure::plain(format!(
        "{failure}\nrhash: indexed {} of the {} that were read before that; the index \
         `{index}` is not complete",
        count_of(sent, "document"),
        count(read),
    ))
}

fn nothing_indexed(figures: &Figures, unreadable: &Unreadable) -> Failure {
    let skipped = Figures::get(&figures.skipped);
    Failure::plain(format!(
        "nothing to index: found no text files ({} skipped, {} unreadable); no index was made or \
         changed",
        count(skipped),
        count(unreadable.count)
    ))
}

fn name_unreadable(unreadable: &Unreadable) {
    for (path, reason) in &unreadable.named {
        note(format_args!("cannot read {}: {reason}", path.display()));
    }
    let unnamed = unreadable.count - unreadable.named.len() as u64;
    if unnamed > 0 {
        note(format_args!("cannot read {} more", count(unnamed)));
    }
}

/// What is said at the end.
struct Summary<'a> {
    args: &'a cli::Index,
    built: &'a Built,
    figures: &'a Figures,
    elapsed: Duration,
}

impl Summary<'_> {
    fn text(&self, stats: &Stats, names: &Names, out: &mut Output) -> Outcome {
        let figures = self.figures;
        let bytes = Figures::get(&figures.bytes);
        out.line(format_args!(
            "indexed {}, {:.1} MB, in {:.1} s ({:.1} MB/s)",
            count_of(Figures::get(&figures.documents), "document"),
            megabytes(bytes),
            self.elapsed.as_secs_f64(),
            per_second(megabytes(bytes), self.elapsed),
        ))?;
        out.line(format_args!(
            "{} in {}; {} skipped for not being text, {} unreadable",
            count_of(Figures::get(&figures.terms), "term"),
            count_of(Figures::get(&figures.postings_sent), "posting"),
            count_of(Figures::get(&figures.skipped), "file"),
            count(self.built.unreadable.count),
        ))?;
        let (hot, cold) = tiers(stats, names);
        out.line(format_args!(
            "index `{}`: {}, {} in memory, {} on disk",
            self.args.name.name,
            count_of(self.built.about.documents, "document"),
            size(hot),
            size(cold),
        ))?;
        Ok(())
    }

    fn json(&self, stats: &Stats, names: &Names, out: &mut Output) -> Outcome {
        let figures = self.figures;
        let bytes = Figures::get(&figures.bytes);
        let (hot, cold) = tiers(stats, names);
        let seconds = self.elapsed.as_secs_f64();
        out.json(&json!({
            "index": self.args.name.name,
            "documents": Figures::get(&figures.documents),
            "documents_in_index": self.built.about.documents,
            "complete": self.built.about.complete,
            "skipped": Figures::get(&figures.skipped),
            "unreadable": self.built.unreadable.count,
            "terms": Figures::get(&figures.terms),
            "postings": Figures::get(&figures.postings_sent),
            "appends": Figures::get(&figures.appends_sent),
            "posting_bytes": Figures::get(&figures.posting_bytes_sent),
            "bytes": bytes,
            "seconds": seconds,
            "megabytes_per_second": per_second(megabytes(bytes), self.elapsed),
            "hot_bytes": hot,
            "cold_bytes": cold,
        }))?;
        Ok(())
    }
}

/// The RAM and the disk that the tables of an index take.
fn tiers(stats: &Stats, names: &Names) -> (u64, u64) {
    let is_ours = |name: &str| names.all().contains(&name);
    let tables = stats
        .tables
        .iter()
        .filter(|table| table.name.as_deref().is_some_and(is_ours));
    tables.fold((0, 0), |(hot, cold), table| {
        (hot + table.hot_bytes, cold + table.cold_bytes)
    })
}
