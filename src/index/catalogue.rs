//! The tables of an index, and what it says of itself.
//!
//! An index NAME is four tables: NAME holds the postings of each term, NAME.documents a record of
//! each document, NAME.lengths their lengths, and NAME.about the figures. About is made first and
//! freed last, and its `complete` is set when all else is written, so that what an interrupted
//! command leaves behind is known for what it is.

use rhash_client::{
    BytesCodec, Durability, ErrorKind, List, TableInfo, Value, ValueCodec,
    blocking::{Client, RemoteHash},
};

use super::lengths::{LengthsTable, read_block};
use crate::failure::{Failure, Outcome};

/// The format that this program writes and reads.
const FORMAT: i64 = 1;

/// Terms to postings.
pub(crate) type PostingsTable = RemoteHash<Vec<u8>, List<u8>, BytesCodec>;
/// Numbers to records of documents.
pub(crate) type DocumentsTable = RemoteHash<Vec<u8>, Vec<u8>, BytesCodec>;
/// Names to figures.
type AboutTable = RemoteHash<Value, Value, ValueCodec>;

/// The names of the four tables.
#[derive(Debug, Clone)]
pub(crate) struct Names {
    pub(crate) postings: String,
    documents: String,
    lengths: String,
    about: String,
}

impl Names {
    pub(crate) fn new(index: &str) -> Self {
        Self {
            postings: index.to_owned(),
            documents: format!("{index}.documents"),
            lengths: format!("{index}.lengths"),
            about: format!("{index}.about"),
        }
    }

    /// All names, in the order in which the tables are freed.
    pub(crate) fn all(&self) -> [&str; 4] {
        [&self.postings, &self.documents, &self.lengths, &self.about]
    }
}

/// What an index says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct About {
    pub(crate) documents: u64,
    pub(crate) terms: u64,
    /// Everything was written; if not, a command was interrupted, or is still at work.
    pub(crate) complete: bool,
}

/// What there is under the name of an index.
#[derive(Debug)]
pub(crate) enum State {
    /// Nothing.
    Missing,
    /// A table that belongs to no index.
    Taken(String),
    /// An index of a format that this program does not know.
    Unknown(i64),
    /// An index.
    Present(About),
}

/// Looks what there is under a name.
///
/// # Errors
/// Those of the client.
pub(crate) fn find(client: &Client, names: &Names) -> Outcome<State> {
    let about = client
        .table(&*names.about)
        .existing()
        .open::<Value, Value, ValueCodec>();
    let about = match about {
        Ok(about) => about,
        Err(error) if error.kind() == ErrorKind::NoSuchTable => {
            let tables = client.tables()?;
            let is_ours = |info: &TableInfo| {
                info.name
                    .as_deref()
                    .is_some_and(|name| names.all().contains(&name))
            };
            let taken = tables.into_iter().find(is_ours).and_then(|info| info.name);
            return Ok(taken.map_or(State::Missing, State::Taken));
        }
        Err(error) if matches!(error.kind(), ErrorKind::WrongCodec | ErrorKind::WrongKind) => {
            return Ok(State::Taken(names.about.clone()));
        }
        Err(error) => return Err(error.into()),
    };
    match about.get("format")? {
        // About is made before its first entry is written.
        None | Some(Value::Int(FORMAT)) => Ok(State::Present(read_about(&about)?)),
        Some(Value::Int(format)) => Ok(State::Unknown(format)),
        Some(_) => Ok(State::Taken(names.about.clone())),
    }
}

fn read_about(about: &AboutTable) -> Outcome<About> {
    let number = |name: &str| -> Outcome<u64> {
        match about.get(name)? {
            Some(Value::Int(number)) => Ok(u64::try_from(number).unwrap_or(0)),
            _ => Ok(0),
        }
    };
    Ok(About {
        documents: number("documents")?,
        terms: number("terms")?,
        complete: about.get("complete")? == Some(Value::Bool(true)),
    })
}

/// The open tables of an index.
#[derive(Debug)]
pub(crate) struct Tables {
    pub(crate) postings: PostingsTable,
    pub(crate) documents: DocumentsTable,
    pub(crate) lengths: LengthsTable,
    about: AboutTable,
}

impl Tables {
    /// Opens the tables of an index that exists.
    ///
    /// # Errors
    /// Those of the client.
    pub(crate) fn open(client: &Client, names: &Names) -> Outcome<Self> {
        Ok(Self {
            about: client.table(&*names.about).existing().open()?,
            lengths: client.table(&*names.lengths).open()?,
            documents: client.table(&*names.documents).open()?,
            postings: client.table(&*names.postings).open()?,
        })
    }

    /// Makes the tables of a new index, with this durability if one is given.
    ///
    /// # Errors
    /// Those of the client; a table of such a name exists.
    pub(crate) fn create(
        client: &Client,
        names: &Names,
        durability: Option<Durability>,
    ) -> Outcome<Self> {
        let new = |name: &str| {
            let table = client.table(name).create_new();
            match durability {
                Some(durability) => table.durability(durability),
                None => table,
            }
        };
        // IMPORTANT: about comes first, since tables without it would belong to no index, and
        // nothing but `close` could take them away.
        let about: AboutTable = new(&names.about).open()?;
        about.insert("format", FORMAT)?;
        about.insert("complete", false)?;
        about.flush()?;
        Ok(Self {
            about,
            lengths: new(&names.lengths).open()?,
            documents: new(&names.documents).open()?,
            postings: new(&names.postings).open()?,
        })
    }

    /// Says that the index is being changed.
    ///
    /// # Errors
    /// Those of the client.
    pub(crate) fn begin(&self) -> Outcome {
        self.about.insert("complete", false)?;
        Ok(self.about.flush()?)
    }

    /// Says how far the index got. That it is complete is written by itself, after all else.
    ///
    /// # Errors
    /// Those of the client.
    pub(crate) fn note(&self, about: About) -> Outcome {
        self.about.insert("documents", about.documents)?;
        self.about.insert("terms", about.terms)?;
        self.about.flush()?;
        if about.complete {
            self.about.insert("complete", true)?;
            self.about.flush()?;
        }
        Ok(())
    }

    /// What there is, counted anew, since what an interrupted command said may lag behind.
    ///
    /// # Errors
    /// Those of the client.
    pub(crate) fn recount(&self) -> Outcome<About> {
        let documents = self.documents.len()?;
        let mut terms = 0;
        let mut lengths_left = documents;
        let mut number = 0u32;
        while lengths_left > 0 {
            let Some(block) = self.lengths.get(number.to_be_bytes().to_vec())? else {
                break;
            };
            let lengths = read_block(&block);
            let known = lengths
                .iter()
                .take(usize::try_from(lengths_left).unwrap_or(usize::MAX));
            terms += known.map(|length| u64::from(*length)).sum::<u64>();
            lengths_left = lengths_left.saturating_sub(lengths.len() as u64);
            number += 1;
        }
        Ok(About {
            documents,
            terms,
            complete: false,
        })
    }
}

/// Frees the tables of an index.
///
/// # Errors
/// Those of the client.
pub(crate) fn remove(client: &Client, names: &Names) -> Outcome {
    for name in names.all() {
        match client.close_table(name) {
            Err(error) if error.kind() == ErrorKind::NoSuchTable => {}
            other => other?,
        }
    }
    Ok(())
}

/// Opens an index to read it, and says on the standard error if it is not complete.
///
/// # Errors
/// Those of the client; there is no such index.
pub(crate) fn open_to_read(client: &Client, index: &str) -> Outcome<(Tables, About)> {
    let names = Names::new(index);
    match find(client, &names)? {
        State::Present(about) => {
            if !about.complete {
                crate::output::note(format_args!(
                    "the index `{index}` is not complete: the command that builds it was \
                     interrupted or is still at work; answers cover what was written"
                ));
            }
            let tables = client.tables()?;
            for table in names.all() {
                // Reading makes no tables, and an answer without one of them would be wrong.
                if !tables
                    .iter()
                    .any(|info| info.name.as_deref() == Some(table))
                {
                    return Err(Failure::plain(format!(
                        "the table `{table}` of the index `{index}` is missing; `rhash index PATH \
                         --name {index} --replace` builds the index anew"
                    )));
                }
            }
            Ok((Tables::open(client, &names)?, about))
        }
        State::Missing => Err(Failure::plain(format!(
            "there is no index `{index}`; `rhash index PATH --name {index}` builds it"
        ))),
        State::Taken(table) => Err(not_an_index(index, &table)),
        State::Unknown(format) => Err(unknown_format(index, format)),
    }
}

/// The table that has the name of an index's belongs to none.
pub(crate) fn not_an_index(index: &str, table: &str) -> Failure {
    Failure::plain(format!(
        "`{index}` is not an index: the table `{table}` exists, but is no part of one; choose \
         another --name, or free the table with `rhash close {table}`"
    ))
}

/// The index was written by another program.
pub(crate) fn unknown_format(index: &str, format: i64) -> Failure {
    Failure::plain(format!(
        "the index `{index}` has format {format} and this program reads format {FORMAT}; \
         `rhash index PATH --name {index} --replace` builds it anew"
    ))
}
