//! Runs the programs in a directory of their own, each with a deadline, and makes corpora whose
//! terms are counted the slow and obvious way.

#![allow(dead_code, reason = "each test uses a part of this")]
#![expect(clippy::expect_used, reason = "a test that cannot go on panics")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{self, BufRead, BufReader, Read},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

/// How long a program may take. Far more than it needs, so that only one that hangs fails.
const DEADLINE: Duration = Duration::from_secs(120);

/// A directory to run `rhash` in.
pub(crate) struct Place {
    root: tempfile::TempDir,
}

/// What a program did.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Place {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {
            root: tempfile::tempdir()?,
        })
    }

    pub(crate) fn path(&self) -> &Path {
        self.root.path()
    }

    /// Writes a file, and the directories that it is in.
    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) -> io::Result<()> {
        let path = self.path().join(name);
        fs::create_dir_all(path.parent().expect("a file is in a directory"))?;
        fs::write(path, content)
    }

    /// Starts `rhash` with these arguments.
    pub(crate) fn start(&self, args: &[&str]) -> io::Result<Started> {
        let child = Command::new(env!("CARGO_BIN_EXE_rhash"))
            .args(args)
            .current_dir(self.path())
            .env_remove("RHASH_LOG")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        Ok(Started { child })
    }

    /// Runs `rhash` with these arguments to its end.
    pub(crate) fn run(&self, args: &[&str]) -> io::Result<Run> {
        self.start(args)?.end()
    }

    /// Runs `rhash`, which must succeed, and returns its output.
    pub(crate) fn output(&self, args: &[&str]) -> io::Result<String> {
        let run = self.run(args)?;
        assert_eq!(run.code, Some(0), "{args:?}: {run:?}");
        Ok(run.stdout)
    }

    /// Runs `rhash`, which must succeed, and reads its output as JSON.
    pub(crate) fn json(&self, args: &[&str]) -> io::Result<serde_json::Value> {
        Ok(serde_json::from_str(&self.output(args)?)?)
    }

    /// Runs `rhash`, which must fail with this code, and returns what it says about that.
    pub(crate) fn failure(&self, code: i32, args: &[&str]) -> io::Result<String> {
        let run = self.run(args)?;
        assert_eq!(run.code, Some(code), "{args:?}: {run:?}");
        assert!(!run.stderr.is_empty(), "{args:?} failed in silence");
        Ok(run.stderr)
    }
}

/// A program that runs.
pub(crate) struct Started {
    pub(crate) child: Child,
}

impl Started {
    /// Waits for the end of the program, for as long as it may take.
    pub(crate) fn end(mut self) -> io::Result<Run> {
        let stdout = read_all(self.child.stdout.take().expect("piped"));
        let stderr = read_all(self.child.stderr.take().expect("piped"));
        let (Ok(stdout), Ok(stderr)) =
            (stdout.recv_timeout(DEADLINE), stderr.recv_timeout(DEADLINE))
        else {
            self.child.kill()?;
            panic!("the program did not end within {DEADLINE:?}");
        };
        Ok(Run {
            code: self.child.wait()?.code(),
            stdout,
            stderr,
        })
    }
}

fn read_all(mut from: impl Read + Send + 'static) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let _cut = from.read_to_end(&mut bytes);
        let _gone = sender.send(String::from_utf8_lossy(&bytes).into_owned());
    });
    receiver
}

/// A `rhash-server` that is killed at the end, if not before.
pub(crate) struct Server {
    child: Child,
    pub(crate) address: String,
}

impl Server {
    pub(crate) fn start(place: &Place, mem_limit: &str) -> io::Result<Self> {
        let mut child = Command::new(env!("CARGO_BIN_EXE_rhash-server"))
            .args([
                "--listen",
                "127.0.0.1:0",
                "--data",
                "data",
                "--mem-limit",
                mem_limit,
            ])
            .current_dir(place.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let stdout = child.stdout.take().expect("piped");
        let (sender, receiver) = mpsc::channel();
        thread::spawn(move || {
            let mut line = String::new();
            let _cut = BufReader::new(stdout).read_line(&mut line);
            let _gone = sender.send(line);
        });
        let line = receiver
            .recv_timeout(DEADLINE)
            .expect("the server says where it listens");
        let address = line
            .trim()
            .strip_prefix("listening on ")
            .expect("the line of a server");
        Ok(Self {
            child,
            address: address.to_owned(),
        })
    }

    /// Ends the server as a crash does.
    pub(crate) fn kill(&mut self) {
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// How many documents hold a term, and how often it occurs in them.
pub(crate) type Counts = BTreeMap<String, (u64, u64)>;

/// Text files that are made of random words.
pub(crate) struct Corpus {
    pub(crate) seed: u64,
    /// Paths, as given to `rhash`, and texts.
    pub(crate) files: Vec<(PathBuf, String)>,
}

impl Corpus {
    /// Writes so many files of so many words under `place/corpus`.
    pub(crate) fn write(place: &Place, seed: u64, files: usize, words: usize) -> io::Result<Self> {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut corpus = Self {
            seed,
            files: Vec::new(),
        };
        for number in 0..files {
            let words: Vec<String> = (0..random.usize(0..=words))
                .map(|_| word(&mut random))
                .collect();
            let separators = [" ", "\n", ", ", "-", "…"];
            let mut text = String::new();
            for word in words {
                text.push_str(&word);
                text.push_str(separators[random.usize(0..separators.len())]);
            }
            let name = format!("corpus/part{}/file{number}.txt", number % 7);
            place.write(&name, &text)?;
            corpus.files.push((name.into(), text));
        }
        Ok(corpus)
    }

    /// Counts all terms.
    pub(crate) fn counts(&self) -> Counts {
        let mut counts = Counts::new();
        for (_, text) in &self.files {
            let terms = slow_terms(text);
            for term in &terms {
                counts.entry(term.clone()).or_default().1 += 1;
            }
            for term in terms.into_iter().collect::<BTreeSet<_>>() {
                counts.entry(term).or_default().0 += 1;
            }
        }
        counts
    }

    /// Ranks by BM25, as its definition says.
    pub(crate) fn ranked(&self, words: &[&str]) -> Vec<(PathBuf, f64)> {
        let terms: Vec<Vec<String>> = self
            .files
            .iter()
            .map(|(_, text)| slow_terms(text))
            .collect();
        let documents = terms.len() as f64;
        let average = terms.iter().map(Vec::len).sum::<usize>() as f64 / documents;
        let counts = self.counts();
        let score = |terms: &Vec<String>| {
            let of_word = |word: &&str| {
                let tf = terms.iter().filter(|term| term == word).count() as f64;
                let df = counts.get(*word).map_or(0.0, |count| count.0 as f64);
                let idf = (1.0 + (documents - df + 0.5) / (df + 0.5)).ln();
                let norm = 1.2 * (1.0 - 0.75 + 0.75 * terms.len() as f64 / average);
                idf * tf * 2.2 / (tf + norm)
            };
            words.iter().map(of_word).sum::<f64>()
        };
        let paths = self.files.iter().map(|(path, _)| path.clone());
        let mut ranked: Vec<_> = paths.zip(terms.iter().map(score)).collect();
        ranked.retain(|(_, score)| *score > 0.0);
        ranked.sort_by(|left, right| right.1.total_cmp(&left.1));
        ranked
    }
}

/// A word: few are frequent and many are rare, some are not ASCII, some are no terms at all.
fn word(random: &mut fastrand::Rng) -> String {
    let rank = (1.0 / (random.f64() + 1e-4)) as u64;
    match random.u32(0..20) {
        0 => "x".into(),
        1 => format!("{}{rank}", "long".repeat(16)),
        2 => format!("Größe{rank}"),
        3 => format!("ΟΔΟΣ{}", rank % 5),
        4 => format!("Under_Score{rank}"),
        _ => format!("Word{rank}"),
    }
}

/// The definition of a term.
fn slow_terms(text: &str) -> Vec<String> {
    text.split(|char: char| !(char.is_alphanumeric() || char == '_'))
        .map(str::to_lowercase)
        .filter(|term| (2..=64).contains(&term.chars().count()))
        .collect()
}
