//! The command line: what can be asked, and the help that teaches it.

use std::{path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum};
use rhash_server::{
    args::DurabilityLevel,
    size::{ByteSize, parse_span},
};

const EXAMPLES: &str = "\
Examples:
  rhash index ~/docs ~/src                  build an index with a server inside the command
  rhash search memory limit                 the ten best documents, with a line of each
  rhash term governor --json                how many documents hold a word, and how often

  rhash-server --mem-limit 32M --data ./data &
  rhash --server localhost:10080 index /usr/share/doc --name manuals
  rhash --server localhost:10080 search 'shared library' --name manuals --limit 3

  rhash put people ada '{\"born\": 1815}'     a table of values, made where there is none
  rhash get people ada
  rhash scan people | jq .value.born
  rhash stats
  rhash bench --html bench.html             memory only against spill, on this host

Without --server, the tables live in the directory that --data names, and a server runs for as
long as the command does. It is stopped cleanly at the end, so that the next command finds them.

Exit codes: 0 done; 1 failed, or nothing found; 2 the command line made no sense.";

/// Tables larger than memory, and an inverted index in them.
#[derive(Debug, Parser)]
#[command(name = "rhash", version, after_help = EXAMPLES, max_term_width = 100)]
#[command(propagate_version = true, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) place: Place,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Where the tables are.
#[derive(Debug, Args)]
#[command(next_help_heading = "Where the tables are")]
pub(crate) struct Place {
    /// Use the server at this address; without this, a server runs inside the command.
    #[arg(long, global = true, value_name = "HOST:PORT")]
    pub(crate) server: Option<String>,
    /// Show the server the token in this file, which others must not be able to read. A token may
    /// also stand in the address (rhash://TOKEN@HOST:PORT) or in the environment: RHASH_TOKEN, or
    /// RHASH_TOKEN_FILE for the name of a file.
    #[arg(long, global = true, value_name = "FILE", requires = "server")]
    pub(crate) token_file: Option<PathBuf>,
    /// Trust the authorities in this file (PEM), and not those of the system, where the address
    /// begins with rhash+tls://. The environment variable RHASH_CA does the same.
    #[arg(long, global = true, value_name = "FILE", requires = "server")]
    pub(crate) ca: Option<PathBuf>,
    /// Show the server the certificate in this file (PEM).
    #[arg(long, global = true, value_name = "FILE", requires = "client_key")]
    pub(crate) client_cert: Option<PathBuf>,
    /// The private key of that certificate (PEM).
    #[arg(long, global = true, value_name = "FILE", requires = "client_cert")]
    pub(crate) client_key: Option<PathBuf>,
    /// What the server inside the command may use of memory, such as 512M or 8GiB.
    /// Default: half of what this host or its control group has.
    #[arg(long, global = true, value_name = "SIZE", conflicts_with = "server")]
    pub(crate) mem_limit: Option<ByteSize>,
    /// The data directory of the server inside the command. Default: ./data
    #[arg(long, global = true, value_name = "DIR", conflicts_with = "server")]
    pub(crate) data: Option<PathBuf>,
}

/// What is asked.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Build an inverted index of the text files under some paths
    Index(Index),
    /// Find the documents that match any of the words best
    Search(Search),
    /// Tell how many documents hold a word, and how often
    Term(Term),
    /// Print the value of a key
    Get(Get),
    /// Set the value of a key
    Put(Put),
    /// Remove a key; one that is not there is no error
    Del(Del),
    /// Print the entries of a table, one JSON object a line
    Scan(Scan),
    /// Count the entries of a table, exactly
    Len(Len),
    /// Free a table in memory and on disk, for everybody
    Close(Close),
    /// List the tables
    Tables(Figures),
    /// Show the server's figures
    Stats(Stats),
    /// Measure round trips to the server
    Ping(Ping),
    /// Copy all named tables, as they are at one moment, while the server goes on
    Backup(Backup),
    /// Measure what spilling costs, or a server of yours
    Bench(Bench),
    /// Make the tokens by which a server knows its clients
    Token(Token),
    /// Serve until the standard input ends
    #[command(name = SERVE_COMMAND, hide = true)]
    Serve(Serve),
}

/// The command that `bench` starts servers by.
pub(crate) const SERVE_COMMAND: &str = "serve-for-bench";

/// The name of an index.
#[derive(Debug, Args)]
pub(crate) struct Name {
    /// The name of the index.
    #[arg(long, default_value = "index", value_name = "NAME", value_parser = index_name)]
    pub(crate) name: String,
}

/// Arguments of `index`.
#[derive(Debug, Args)]
#[command(after_help = "\
A document is a file of UTF-8 text without NUL bytes; other files are counted as skipped, and those
that cannot be read are named at the end. Hidden files are left out and links are not followed,
except where a PATH itself is one; ignore files such as .gitignore are not obeyed.

A term is a run of letters, digits and underscores, lower-cased, of 2 to 64 characters.

The index NAME is the tables NAME (term to postings), NAME.documents, NAME.lengths and NAME.about.
--add makes new documents of all files it finds, also of those that the index already has: a file
that is indexed twice is found twice. Use --replace to index files anew that have changed.

Examples:
  rhash index ~/src
  rhash index --name rust --mem-limit 64M ~/.rustup/toolchains
  rhash index --add notes.txt
  rhash index --replace --json ~/src > summary.json")]
pub(crate) struct Index {
    /// Files and directories to index.
    #[arg(required = true, value_name = "PATH")]
    pub(crate) paths: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) name: Name,
    /// Build the index anew where it exists.
    #[arg(long, conflicts_with = "add")]
    pub(crate) replace: bool,
    /// Add documents to the index where it exists.
    #[arg(long)]
    pub(crate) add: bool,
    /// Make the tables of the index with this durability, which they keep: `none` builds fastest, and
    /// survives a clean stop of the server; `everysec` survives a crash of it, `always` one of its
    /// machine. Default: that of the server.
    #[arg(long, value_name = "LEVEL", value_enum, conflicts_with = "add")]
    pub(crate) durability: Option<DurabilityLevel>,
    /// Print the summary as one JSON object.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Arguments of `search`.
#[derive(Debug, Args)]
#[command(after_help = "\
Documents that hold any of the words are ranked by BM25 (k1 1.2, b 0.75). The line shown is the
first one in the file, as it is now, that holds the most of the words.

Examples:
  rhash search memory limit
  rhash search --limit 3 --name rust 'Vec::with_capacity'
  rhash search --json governor | jq -r '.[].path'")]
pub(crate) struct Search {
    /// Words to look for; each is cut into terms as documents are.
    #[arg(required = true, value_name = "WORDS")]
    pub(crate) words: Vec<String>,
    #[command(flatten)]
    pub(crate) name: Name,
    /// The most documents to show.
    #[arg(long, default_value_t = 10, value_name = "COUNT")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) limit: u32,
    /// Print a JSON list of objects with path, score, line_number and line.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Arguments of `term`.
#[derive(Debug, Args)]
pub(crate) struct Term {
    /// The word; of several, each has a line of its own.
    #[arg(required = true, value_name = "WORD")]
    pub(crate) words: Vec<String>,
    #[command(flatten)]
    pub(crate) name: Name,
    /// Print a JSON object with term, documents and occurrences.
    #[arg(long)]
    pub(crate) json: bool,
}

const KEYS_AND_VALUES: &str = "\
Tables of the codecs `value` and `bytes` can be read and written here. In a table of values, an
argument that parses as JSON is that, and any other is a string: 17 is a number, '\"17\"' a string.
In a table of bytes, an argument is its own bytes. Bytes that are not text are written as
{\"$hex\": \"00ff\"}, in arguments as in answers. In a table of values, keys that are equal as
numbers are one key: 1, 1.0 and true.";

/// Arguments of `get`.
#[derive(Debug, Args)]
#[command(after_help = KEYS_AND_VALUES)]
pub(crate) struct Get {
    /// The name of the table.
    pub(crate) table: String,
    /// The key.
    #[arg(allow_hyphen_values = true)]
    pub(crate) key: String,
}

/// Arguments of `put`.
#[derive(Debug, Args)]
#[command(after_help = KEYS_AND_VALUES)]
pub(crate) struct Put {
    /// The name of the table; where there is none, a table of values is made.
    pub(crate) table: String,
    /// The key.
    #[arg(allow_hyphen_values = true)]
    pub(crate) key: String,
    /// The value: for a table of lists a JSON list, for one of counters a whole number.
    #[arg(allow_hyphen_values = true)]
    pub(crate) value: String,
    /// Make the table with this durability, which it keeps; one that exists must have it. With `none`
    /// what is put survives a clean stop of the server, with `everysec` a crash of it, with `always` one
    /// of its machine. Default: that of the table, or else of the server.
    #[arg(long, value_name = "LEVEL", value_enum)]
    pub(crate) durability: Option<DurabilityLevel>,
}

/// Arguments of `del`.
#[derive(Debug, Args)]
#[command(after_help = KEYS_AND_VALUES)]
pub(crate) struct Del {
    /// The name of the table.
    pub(crate) table: String,
    /// The key.
    #[arg(allow_hyphen_values = true)]
    pub(crate) key: String,
}

/// Arguments of `scan`.
#[derive(Debug, Args)]
#[command(after_help = "\
Each entry that lives throughout the scan is printed exactly once, in no order that means anything.

Examples:
  rhash scan people
  rhash scan people --keys --limit 100 | jq -r .key")]
pub(crate) struct Scan {
    /// The name of the table.
    pub(crate) table: String,
    /// The most entries to print.
    #[arg(long, value_name = "COUNT")]
    pub(crate) limit: Option<u64>,
    /// Print the keys only; values are not even read.
    #[arg(long)]
    pub(crate) keys: bool,
}

/// Arguments of `len`.
#[derive(Debug, Args)]
pub(crate) struct Len {
    /// The name of the table.
    pub(crate) table: String,
}

/// Arguments of `close`.
#[derive(Debug, Args)]
#[command(after_help = "\
An index NAME is four tables: NAME, NAME.documents, NAME.lengths and NAME.about, the one to close
last. Where only some of them are left, `rhash index --name NAME --replace` builds it anew.")]
pub(crate) struct Close {
    /// The name of the table.
    pub(crate) table: String,
    /// Do not ask.
    #[arg(long)]
    pub(crate) yes: bool,
}

/// Arguments of `tables`.
#[derive(Debug, Args)]
pub(crate) struct Figures {
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Arguments of `stats`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  rhash --server localhost:10080 stats
  rhash --server localhost:10080 stats --watch        a line every two seconds, until Ctrl-C
  rhash --server localhost:10080 stats --watch 10s --json >> figures.jsonl")]
pub(crate) struct Stats {
    /// Print JSON; with --watch, an object a line.
    #[arg(long)]
    pub(crate) json: bool,
    /// Go on, with a line of what changed every so often.
    #[arg(long, value_name = "TIME", num_args = 0..=1, default_missing_value = "2s")]
    #[arg(value_parser = watch_time)]
    pub(crate) watch: Option<Duration>,
    /// End after so many lines.
    #[arg(long, value_name = "COUNT", requires = "watch")]
    #[arg(value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) count: Option<u64>,
}

/// Arguments of `ping`.
#[derive(Debug, Args)]
pub(crate) struct Ping {
    /// How many round trips to measure.
    #[arg(long, default_value_t = 5, value_name = "COUNT")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) count: u32,
}

/// Arguments of `backup`.
#[derive(Debug, Args)]
#[command(after_help = "\
The copy has all writes up to one record of the log, and none behind it. It is a data directory: to
restore it, start a server on it, or on a copy of it. Until it is whole, its name ends with .partial;
what a crash leaves under that name is of no use.

On the file system of the data directory, large runs are hard links, which take no time and no disk
until the server has merged them away. So keep a copy elsewhere, too, against a disk that fails, and
change nothing inside of DIR. The server needs a log: not --memory-only, not --durability none. With
tokens, this needs the right admin.

Examples:
  rhash --server localhost:10080 backup /var/backups/rhash/monday
  rhash-server --listen localhost:10081 --data /var/backups/rhash/monday
  rhash backup --data ./data ./data-before-the-change")]
pub(crate) struct Backup {
    /// The directory to make, on the server's host and not on this one. It must not exist, and the
    /// directory that it will be in must. A relative path begins where this command runs.
    #[arg(value_name = "DIR")]
    pub(crate) dir: PathBuf,
    /// Print what was made as one JSON object.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Arguments of `bench`.
#[derive(Debug, Args)]
#[command(after_help = "\
Without --server, two servers are started, one after the other: one with memory for all data, and
one with an eighth of it (or --mem-limit), which spills to a new directory inside --data (default:
the current directory; it is removed at the end). With --server, yours is measured with its own
limit, in temporary tables that are freed at the end: choose --size below and above its limit.

An index build appends postings of 8 bytes to lists, by words as unequal as those of text. Entries
have keys of 16 bytes. All answers are checked. Gets go past the client's cache, and follow one
another on one connection; run several at once to see what more connections give. Rates are the
medians of all rounds; latencies are those of all calls of all rounds, of writes the time to hand
over a batch. MEMORY is the most that the server held, DISK what it held at the end of a step.

Other programs, and a disk or a processor that sleeps, show in the figures: run it twice.

Examples:
  rhash bench
  rhash bench --size 1G --mem-limit 64M --html bench.html
  rhash bench --rounds 1 --work values --value 4K
  rhash bench --server localhost:10080 --size 100M,20G --json > bench.json")]
pub(crate) struct Bench {
    /// Keys and values of a table, and bytes of postings; of several sizes, each is measured.
    #[arg(
        long,
        value_name = "SIZE",
        value_delimiter = ',',
        default_value = "256M"
    )]
    pub(crate) size: Vec<ByteSize>,
    /// The length of a value.
    #[arg(long, value_name = "SIZE", default_value = "100")]
    pub(crate) value: ByteSize,
    /// What is done: an index build, a table of values, or both.
    #[arg(long, value_name = "KIND", value_delimiter = ',', value_enum)]
    #[arg(default_values_t = [WorkKind::Lists, WorkKind::Values])]
    pub(crate) work: Vec<WorkKind>,
    /// Keys of a batched get.
    #[arg(long, value_name = "COUNT", default_value_t = 100)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub(crate) batch: u32,
    /// How unequally entries are asked for, where they are: the exponent of Zipf's law.
    #[arg(long, value_name = "EXPONENT", default_value_t = 0.99, value_parser = zipf_exponent)]
    pub(crate) zipf: f64,
    /// How long each kind of get is measured.
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = get_time)]
    pub(crate) get_time: Duration,
    /// How often all is done, each time on new servers, in turn.
    #[arg(long, value_name = "COUNT", default_value_t = 3)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) rounds: u32,
    /// Where random draws begin.
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    pub(crate) seed: u64,
    /// Print all figures as one JSON object.
    #[arg(long)]
    pub(crate) json: bool,
    /// Write a page with charts and all figures, in one file that needs nothing else.
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
}

/// What `bench` does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum WorkKind {
    /// An index build: appends to lists, gets of lists.
    Lists,
    /// A table of values: load, gets, scan.
    Values,
}

/// Arguments of `token`.
#[derive(Debug, Args)]
pub(crate) struct Token {
    #[command(subcommand)]
    pub(crate) command: TokenCommand,
}

/// What is done about tokens.
#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Make a token, and print it: this once
    New(NewToken),
}

/// Arguments of `token new`.
#[derive(Debug, Args)]
#[command(after_help = "\
The token goes to standard output, and is kept nowhere. Its line, with a hash in its place, goes to
the end of the file that --file names, or else to standard error, for you to put into one. A server
that runs with --tokens FILE lets it in after a SIGHUP; to revoke it, take the line out and send
another.

Rights: read to look at entries; write to change them, and to make, clear and free tables; admin for
the figures of the server, which name all tables, and for backups. Writes that tell what was there need read, too.

Examples:
  rhash token new ci --file tokens --tables 'test-*' --rights read,write > ci.token
  rhash token new dashboard --rights read,admin
  rhash --server db:10080 --token-file ci.token len test-1")]
pub(crate) struct NewToken {
    /// What the token is called, in the file and in the server's log.
    pub(crate) name: String,
    /// The tables that it is for: names with * for any characters and ? for any one, with commas
    /// in between.
    #[arg(long, value_name = "PATTERNS", default_value = "*")]
    pub(crate) tables: String,
    /// What its bearer may do: read, write, admin, with commas in between.
    #[arg(long, value_name = "RIGHTS", default_value = "read,write")]
    pub(crate) rights: String,
    /// Add its line to this tokens file.
    #[arg(long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
}

/// Arguments of the command that `bench` starts servers by.
#[derive(Debug, Args)]
pub(crate) struct Serve {
    /// Keep nothing on disk.
    #[arg(long)]
    pub(crate) memory_only: bool,
}

/// The longest time of a step of gets.
const GET_TIME_MAX: Duration = Duration::from_secs(3600);

fn get_time(text: &str) -> Result<Duration, String> {
    match parse_span(text) {
        Err(error) => Err(error.to_string()),
        Ok(time) if time.is_zero() || time > GET_TIME_MAX => {
            Err("gets are measured for 1ms at least and 1h at most".into())
        }
        Ok(time) => Ok(time),
    }
}

/// How seldom `stats --watch` may look.
const WATCH_TIME_MAX: Duration = Duration::from_secs(24 * 3600);

fn watch_time(text: &str) -> Result<Duration, String> {
    match parse_span(text) {
        Err(error) => Err(error.to_string()),
        Ok(time) if time.is_zero() || time > WATCH_TIME_MAX => {
            Err("watch every 1ms at least and every 24h at most".into())
        }
        Ok(time) => Ok(time),
    }
}

fn zipf_exponent(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(exponent) if (0.1..=3.0).contains(&exponent) => Ok(exponent),
        _ => Err("write a number from 0.1 (nearly equal) to 3 (few get nearly all)".into()),
    }
}

/// The longest name of an index, which leaves room for the ends of its tables' names.
const INDEX_NAME_BYTES_MAX: usize = 240;

fn index_name(name: &str) -> Result<String, String> {
    if name.is_empty() {
        return Err("an index needs a name".into());
    }
    if name.len() > INDEX_NAME_BYTES_MAX {
        return Err(format!(
            "a name has at most {INDEX_NAME_BYTES_MAX} bytes, not {}",
            name.len()
        ));
    }
    Ok(name.to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn values_may_begin_with_a_hyphen() {
        let cli = Cli::try_parse_from(["rhash", "put", "t", "k", "-1"]).unwrap();
        assert!(matches!(cli.command, Command::Put(put) if put.value == "-1"));
    }

    #[test]
    fn a_server_elsewhere_takes_no_data_directory() {
        for (flag, value) in [("--data", "x"), ("--mem-limit", "1G")] {
            let cli = Cli::try_parse_from(["rhash", "stats", "--server", "a:1", flag, value]);
            assert_eq!(
                cli.unwrap_err().kind(),
                clap::error::ErrorKind::ArgumentConflict
            );
        }
    }
}
