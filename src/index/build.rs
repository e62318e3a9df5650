//! Builds an index: starts the threads that read and gather, and sends what they gather.
//!
//! Three stages work at the same time, joined by queues of bounded length: one thread reads, one
//! gathers postings, and the calling one sends them. Two combiners go round between the last two,
//! so that one fills while the other is sent. Nothing grows with the corpus.

use std::{
    path::PathBuf,
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread,
};

use rhash_client::{Durability, blocking::Client};

use super::{
    catalogue::{self, About, Names, Tables},
    combiner::Combiner,
    figures::{Figures, Unreadable},
    gatherer::{Ended, Gatherer, Load, Start},
    lengths::{BLOCK_DOCUMENTS, Lengths},
    reader::{self, Corpus, PIECES_WAITING_MAX},
};
use crate::failure::{Failure, Outcome};

/// The memory of one load, of which there are two, as a share of what the server may use.
const LOAD_SHARE: u64 = 16;
/// The least and the most memory of one load.
const LOAD_BYTES_MIN: u64 = 512 * 1024;
const LOAD_BYTES_MAX: u64 = 8 * 1024 * 1024;

/// What becomes of an index that exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Existing {
    /// There is none.
    None,
    /// It is freed when the first documents are there to take its place.
    Replace,
    /// Documents are added to it.
    Add,
}

/// An index to build.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) names: Names,
    pub(crate) existing: Existing,
    /// That of its tables; none is the server's.
    pub(crate) durability: Option<Durability>,
    pub(crate) corpus: Corpus,
    /// The directory that relative paths start from.
    pub(crate) directory: PathBuf,
    /// `--mem-limit` of the server.
    pub(crate) server_bytes: u64,
}

/// What was built.
#[derive(Debug)]
pub(crate) struct Built {
    pub(crate) about: About,
    pub(crate) unreadable: Unreadable,
}

/// Builds an index and says what was built; `figures` tell how far it is, also after a failure.
///
/// # Errors
/// Those of the client; there are more documents than can be numbered.
pub(crate) fn run(client: &Client, job: &Job, figures: &Figures) -> Outcome<Built> {
    let (tables, start) = start(client, job)?;
    let before = About {
        documents: start.documents.into(),
        terms: start.terms,
        complete: false,
    };
    let gatherer = Gatherer::new(start, figures);
    let (piece_sender, pieces) = sync_channel(PIECES_WAITING_MAX);
    let (load_sender, loads) = sync_channel(0);
    let (spare_sender, spare) = sync_channel(1);
    let mut sender = Sender {
        client,
        job,
        figures,
        tables,
        about: before,
        documents_whole: before.documents,
        block: Vec::new(),
    };
    thread::scope(|scope| {
        let reader = scope.spawn(move || reader::run(&job.corpus, &piece_sender, figures));
        let gatherer = scope.spawn(move || gatherer.run(&pieces, &load_sender, &spare));
        let _room = spare_sender.try_send(Combiner::new());
        // The queues end with the sender, so that a failure of its ends the other stages too.
        let sent = sender.run(loads, spare_sender);
        let gathered = gatherer.join().map_err(|_panic| panicked())?;
        let unreadable = reader.join().map_err(|_panic| panicked())?;
        sent?;
        if gathered == Err(Ended::TooManyDocuments) {
            return Err(Failure::plain(format!(
                "an index has at most {} documents",
                u32::MAX
            )));
        }
        Ok(Built {
            about: sender.finish()?,
            unreadable,
        })
    })
}

fn panicked() -> Failure {
    Failure::plain("a thread of this command ended in a bug")
}

/// Where the run begins; of an index that is added to, its tables too.
fn start(client: &Client, job: &Job) -> Outcome<(Option<Tables>, Start)> {
    let load_bytes = (job.server_bytes / LOAD_SHARE).clamp(LOAD_BYTES_MIN, LOAD_BYTES_MAX) as usize;
    let mut start = Start {
        documents: 0,
        terms: 0,
        lengths: Lengths::default(),
        directory: job.directory.clone(),
        load_bytes,
    };
    if job.existing != Existing::Add {
        return Ok((None, start));
    }
    let tables = Tables::open(client, &job.names)?;
    let about = tables.recount()?;
    start.documents = u32::try_from(about.documents)
        .map_err(|_too_many| Failure::plain("the index has no numbers left for more documents"))?;
    start.terms = about.terms;
    let last_block = start.documents / BLOCK_DOCUMENTS;
    let last_block = tables
        .lengths
        .get(last_block.to_be_bytes().to_vec())?
        .unwrap_or_default();
    start.lengths = Lengths::after(start.documents, &last_block);
    Ok((Some(tables), start))
}

/// The third stage.
struct Sender<'a> {
    client: &'a Client,
    job: &'a Job,
    figures: &'a Figures,
    /// The tables, once there is something to put into them.
    tables: Option<Tables>,
    about: About,
    /// The documents that are stored whole.
    documents_whole: u64,
    /// The encoded postings of one term.
    block: Vec<u8>,
}

impl Sender<'_> {
    fn run(&mut self, loads: Receiver<Load>, spare: SyncSender<Combiner>) -> Outcome {
        let mut begun = false;
        for mut load in loads {
            if !begun {
                self.begin()?;
                begun = true;
            }
            self.send(&load)?;
            load.combiner.clear();
            // Nobody takes the combiner of the last load.
            let _full = spare.try_send(load.combiner);
        }
        Ok(())
    }

    /// Makes the tables, or says that those there are will change. Nothing is touched before
    /// there are documents, so that an empty corpus costs no index.
    fn begin(&mut self) -> Outcome {
        if let Some(tables) = &self.tables {
            return tables.begin();
        }
        if self.job.existing == Existing::Replace {
            catalogue::remove(self.client, &self.job.names)?;
        }
        self.tables = Some(Tables::create(
            self.client,
            &self.job.names,
            self.job.durability,
        )?);
        Ok(())
    }

    fn send(&mut self, load: &Load) -> Outcome {
        let Some(tables) = &self.tables else {
            return Ok(());
        };
        // IMPORTANT: lengths and records are acknowledged before postings leave. The other way
        // round, a run that ends here would leave postings of documents that nobody knows, and
        // the next run would give their numbers to other documents.
        let mut bulk = tables.lengths.bulk();
        for (number, block) in &load.lengths {
            bulk.insert(&number.to_be_bytes()[..], &block[..])?;
            if bulk.is_full() {
                bulk.send()?;
            }
        }
        bulk.finish()?;
        let mut bulk = tables.documents.bulk();
        for (number, record) in &load.records {
            bulk.insert(&super::record::key(*number)[..], &record[..])?;
            if bulk.is_full() {
                bulk.send()?;
            }
        }
        bulk.finish()?;
        let mut bulk = tables.postings.bulk();
        let mut posting_bytes = 0;
        for index in 0..load.combiner.len() {
            let term = load.combiner.block(index, &mut self.block);
            bulk.append(term, &self.block[..])?;
            posting_bytes += self.block.len() as u64;
            if bulk.is_full() {
                bulk.send()?;
            }
        }
        bulk.finish()?;
        Figures::add(
            &self.figures.documents_sent,
            load.documents_whole - self.documents_whole,
        );
        self.documents_whole = load.documents_whole;
        Figures::add(&self.figures.postings_sent, load.combiner.postings());
        Figures::add(&self.figures.appends_sent, load.combiner.len() as u64);
        Figures::add(&self.figures.posting_bytes_sent, posting_bytes);
        self.about = About {
            documents: load.documents,
            terms: load.terms,
            complete: false,
        };
        tables.note(self.about)
    }

    fn finish(self) -> Outcome<About> {
        let about = About {
            complete: !self.figures.is_stopped(),
            ..self.about
        };
        if let Some(tables) = self.tables {
            if self.job.durability == Some(Durability::None) {
                // IMPORTANT: before it is said to be complete. What these tables have in RAM alone is lost in a
                // crash, and that they are complete may not be.
                self.client.sync()?;
            }
            tables.note(about)?;
        }
        Ok(about)
    }
}
