//! An index of text from end to end: `rhash index` under a limit, and tantivy with one thread.
//!
//! Both take the same documents: all files that are text, as `rhash index` walks. Both keep for each
//! term its documents and how often it occurs there; neither keeps the text itself.

use std::{
    collections::BTreeMap,
    fs,
    io::{Read as _, Write as _},
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use ignore::WalkBuilder;
use rhash_harness::{Launch, Meter, Place, Process, Report, Result, Unit, Usage, say, take_turns};
use serde_json::{Value, json};
use tantivy::{
    Index, TantivyDocument, Term,
    schema::{IndexRecordOption, STORED, STRING, Schema, TextFieldIndexing, TextOptions},
    tokenizer::{LowerCaser, RemoveLongFilter, TextAnalyzer, Token, TokenStream, Tokenizer},
};

use crate::options::Peers;

/// What this program is told to be tantivy.
pub(crate) const TANTIVY_ARGUMENT: &str = "--be-tantivy";

const WORKLOAD: &str = "text";
const RHASH: &str = "rhash-index";
const TANTIVY: &str = "tantivy";

/// What both may use of memory before they write.
const LIMIT: &str = "32M";
const LIMIT_BYTES: usize = 32 << 20;

/// No index takes longer.
const DEADLINE: Duration = Duration::from_secs(1200);

/// Words whose counts are compared.
const WORDS: [&str; 6] = ["memory", "hash", "the", "zugzwang", "lifetime", "server"];

/// Lets both index, in turn.
pub(crate) fn run(peers: &Peers, place: &Place, report: &mut Report) -> Result<()> {
    let directories = directories(&peers.documents)?;
    let (documents, bytes) = files(&directories).fold((0_u64, 0_u64), |(count, bytes), path| {
        text_of(&path).map_or((count, bytes), |text| {
            (count + 1, bytes + text.len() as u64)
        })
    });
    let size = format!(
        "{documents} documents, {:.0} MiB of text",
        bytes as f64 / f64::from(1 << 20)
    );
    say(format_args!("text: {size}"));
    report.fact(WORKLOAD, &size);
    let sides = [RHASH, TANTIVY].map(str::to_owned);
    let sides: Vec<_> = sides
        .into_iter()
        .filter(|side| peers.options.wants_side(side))
        .collect();
    let mut answers: BTreeMap<String, Value> = BTreeMap::new();
    take_turns(peers.options.runs(), &sides, |_, side| {
        let data = place.empty_directory(side)?;
        let begin = Instant::now();
        let (process, answer) = if side == RHASH {
            index_with_rhash(place, &data, &directories)?
        } else {
            index_with_tantivy(&data, &directories)?
        };
        let seconds = begin.elapsed().as_secs_f64();
        say(format_args!("text, {side}: {seconds:.2} s"));
        let mut add = |metric, unit, value| report.add(WORKLOAD, side, metric, unit, value);
        add("time", Unit::Seconds, seconds);
        add("text", Unit::BytesPerSecond, bytes as f64 / seconds);
        add("CPU", Unit::Seconds, process.cpu_seconds);
        add("memory, most", Unit::Bytes, process.memory_bytes_max as f64);
        add("written", Unit::Bytes, process.written_bytes as f64);
        add("on disk", Unit::Bytes, Place::disk_bytes(&data) as f64);
        if answer["documents"] != documents {
            return Err(format!(
                "{side} has {} documents, not {documents}",
                answer["documents"]
            )
            .into());
        }
        let words = if side == RHASH {
            words_of_rhash(place, &data)?
        } else {
            answer["words"].clone()
        };
        answers.insert(side.clone(), words);
        Ok(())
    })?;
    if let (Some(ours), Some(theirs)) = (answers.get(RHASH), answers.get(TANTIVY)) {
        report.fact("documents with a word, rhash", ours);
        report.fact("documents with a word, tantivy", theirs);
        if ours != theirs {
            report.note(
                WORKLOAD,
                format!("counts of words differ: {ours} and {theirs}"),
            );
        }
    }
    let metrics = ["time", "CPU", "memory, most", "written", "on disk"];
    report.finish(
        WORKLOAD,
        &format!("Index of text at {LIMIT}: {size}"),
        &metrics,
    )
}

fn index_with_rhash(place: &Place, data: &Path, directories: &[PathBuf]) -> Result<(Usage, Value)> {
    let program = place.binary("rhash");
    let launch = Launch::new(RHASH, &program)
        .args(["index", "--json", "--mem-limit", LIMIT, "--data"])
        .args([data])
        .args(directories);
    watch(launch.start()?)
}

fn words_of_rhash(place: &Place, data: &Path) -> Result<Value> {
    let mut words = BTreeMap::new();
    for word in WORDS {
        let mut command = Command::new(place.binary("rhash"));
        command.args(["term", word, "--json", "--mem-limit", LIMIT, "--data"]);
        let said: Value = serde_json::from_slice(&command.arg(data).output()?.stdout)?;
        words.insert(word, said["documents"].clone());
    }
    Ok(json!(words))
}

fn index_with_tantivy(data: &Path, directories: &[PathBuf]) -> Result<(Usage, Value)> {
    let program = std::env::current_exe()?;
    let launch = Launch::new(TANTIVY, &program)
        .args([TANTIVY_ARGUMENT])
        .args([data])
        .args(directories);
    watch(launch.start()?)
}

/// Waits for a process that prints one JSON object and ends, and says what it used.
fn watch(mut process: Process) -> Result<(Usage, Value)> {
    let meter = Meter::start(process.id())?;
    drop(process.input());
    let mut text = String::new();
    let mut output = process.output().ok_or("no output")?;
    output.read_to_string(&mut text)?;
    // Until it is waited for, its figures are there.
    let usage = meter.stop()?;
    let status = process.wait(DEADLINE)?;
    if !status.success() {
        return Err(format!("the indexer ended with {status}").into());
    }
    Ok((usage, serde_json::from_str(&text)?))
}

/// This process as tantivy: an index of the directories that follow, one thread, and what it holds.
pub(crate) fn be_tantivy() -> Result<()> {
    let paths: Vec<PathBuf> = std::env::args_os().skip(2).map(Into::into).collect();
    let (data, directories) = paths.split_first().ok_or("no directory")?;
    let mut schema = Schema::builder();
    let path_field = schema.add_text_field("path", STRING | STORED);
    let indexing = TextFieldIndexing::default()
        .set_tokenizer(WORD_TOKENIZER)
        .set_index_option(IndexRecordOption::WithFreqs);
    let options = TextOptions::default().set_indexing_options(indexing);
    let text_field = schema.add_text_field("text", options);
    let index = Index::create_in_dir(data, schema.build())?;
    let tokenizer = TextAnalyzer::builder(WordTokenizer::default())
        .filter(RemoveLongFilter::limit(WORD_BYTES_MAX))
        .filter(LowerCaser)
        .build();
    index.tokenizers().register(WORD_TOKENIZER, tokenizer);
    let mut writer = index.writer_with_num_threads::<TantivyDocument>(1, LIMIT_BYTES)?;
    let mut count = 0_u64;
    for path in files(directories) {
        let Some(text) = text_of(&path) else { continue };
        let mut document = TantivyDocument::default();
        document.add_text(path_field, path.to_string_lossy());
        document.add_text(text_field, text);
        writer.add_document(document)?;
        count += 1;
    }
    writer.commit()?;
    writer.wait_merging_threads()?;
    let searcher = index.reader()?.searcher();
    let mut words = BTreeMap::new();
    for word in WORDS {
        let documents = searcher.doc_freq(&Term::from_field_text(text_field, word))?;
        words.insert(word, documents);
    }
    if searcher.num_docs() != count {
        return Err(format!("{} documents, not {count}", searcher.num_docs()).into());
    }
    let said = json!({ "documents": count, "words": words });
    writeln!(std::io::stdout(), "{said}")?;
    Ok(())
}

/// tantivy's name for the words below.
const WORD_TOKENIZER: &str = "rhash-words";

/// Longer words are left out, as in tantivy's default.
const WORD_BYTES_MAX: usize = 40;

/// Letters, digits and underscores, as `rhash index` takes words; tantivy's own tokenizer ends a word
/// at an underscore.
#[derive(Debug, Clone, Default)]
struct WordTokenizer {
    token: Token,
}

struct WordStream<'a> {
    text: &'a str,
    chars: std::str::CharIndices<'a>,
    token: &'a mut Token,
}

impl Tokenizer for WordTokenizer {
    type TokenStream<'a> = WordStream<'a>;

    fn token_stream<'a>(&'a mut self, text: &'a str) -> WordStream<'a> {
        self.token.reset();
        WordStream {
            text,
            chars: text.char_indices(),
            token: &mut self.token,
        }
    }
}

impl TokenStream for WordStream<'_> {
    fn advance(&mut self) -> bool {
        self.token.text.clear();
        self.token.position = self.token.position.wrapping_add(1);
        let of_word = |char: char| char.is_alphanumeric() || char == '_';
        let Some((begin, _)) = self.chars.by_ref().find(|&(_, char)| of_word(char)) else {
            return false;
        };
        let end = self.chars.by_ref().find(|&(_, char)| !of_word(char));
        let end = end.map_or(self.text.len(), |(index, _)| index);
        (self.token.offset_from, self.token.offset_to) = (begin, end);
        self.token.text.push_str(&self.text[begin..end]);
        true
    }

    fn token(&self) -> &Token {
        self.token
    }

    fn token_mut(&mut self) -> &mut Token {
        self.token
    }
}

/// What is indexed if nothing is named: what a machine with Rust has.
fn directories(named: &[PathBuf]) -> Result<Vec<PathBuf>> {
    if !named.is_empty() {
        return Ok(named.to_vec());
    }
    let output = Command::new("rustc")
        .args(["--print", "sysroot"])
        .output()?;
    let sysroot = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
    let home = std::env::var_os("CARGO_HOME").map_or_else(
        || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cargo"),
        PathBuf::from,
    );
    let mut found = vec![sysroot.join("share/doc"), home.join("registry/src")];
    found.retain(|path| path.is_dir());
    if found.is_empty() {
        return Err("no documents to index; name a directory with --documents".into());
    }
    Ok(found)
}

/// The files that `rhash index` takes: no hidden ones, no links, no ignore files obeyed.
fn files(directories: &[PathBuf]) -> impl Iterator<Item = PathBuf> {
    directories.iter().flat_map(|directory| {
        WalkBuilder::new(directory)
            .standard_filters(false)
            .hidden(true)
            .sort_by_file_name(Ord::cmp)
            .build()
            .flatten()
            .filter(|entry| entry.file_type().is_some_and(|kind| kind.is_file()))
            .map(ignore::DirEntry::into_path)
    })
}

/// The text of a file, if it is text: UTF-8 without NUL.
fn text_of(path: &Path) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    (!text.contains('\0')).then_some(text)
}
