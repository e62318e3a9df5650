//! One case: a copy of a base, one damage, a start, and a look at all that is there.
//!
//! What a case does follows from the seed and its number. Damage comes while no server runs, or, where it
//! changes bytes in their place, between a start and the first read. (Not after reads: what a server has checked of
//! a run's index it does not check again while it runs. And no file is cut under a server: it is mapped, and
//! only the server writes there.) Some cases stop the server after the look, start another and look again: what was
//! an error must not have become an absence by then.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::FileExt as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use fastrand::Rng;
use rhash_server::log::Durability;
use rhash_server::store::{Store, StoreConfig, StoreError, Tiny};
use tokio::runtime::Runtime;

use super::base::{self, Base, BaseFile, FileKind, LOG_LIMIT_BYTES, SMALL_RUN_BYTES};
use super::harm::Harm;
use super::judge::{Judgement, judge};
use super::log_file;
use super::panics;
use super::reader::{InProcess, OverTheWire, Reader};
use super::repaired::{Kept, repair_and_look};
use crate::failure::Failure;
use crate::process::Process;
use crate::server::Server;

/// One case in so many goes through the real binary.
pub(super) const BINARY_EVERY: u64 = 20;
/// One case in so many is repaired as well, in this process.
const REPAIR_EVERY: u64 = 3;
/// A store in this process has room for all, and for what the process has besides, which its governor counts.
const STORE_LIMIT_BYTES: u64 = 512 << 20;
/// What a spill takes at a time.
const SPILL_BYTES: usize = 4 << 20;
/// No start, stop or check of a real server takes longer.
const DEADLINE: Duration = Duration::from_secs(40);

/// Where sled's panics say that they come from.
const SLED_SOURCES: &str = "/sled-0.34";
/// How often it is tried again to remove a directory.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// When the damage comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum When {
    AtRest,
    InUse,
}

/// Where cases happen, and with what.
pub(super) struct Place<'a> {
    pub(super) bases: &'a [Base],
    pub(super) work: &'a Path,
    pub(super) binary: &'a Path,
    /// Whether `rhash-server --check` is there.
    pub(super) checks: bool,
    pub(super) seed: u64,
    pub(super) runtime: &'a Runtime,
}

/// How a case ended, if nothing was wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Ending {
    /// All is as it was.
    Whole,
    /// The end of the history was taken for a torn tail.
    GaveUp,
    /// The start said what is damaged, and nothing was served.
    Refused,
    /// Some reads said so.
    Errors,
}

/// What became of a case.
#[derive(Debug, Clone)]
pub(super) struct Outcome {
    pub(super) kind: FileKind,
    pub(super) ending: Ending,
    /// What was done, in words.
    pub(super) story: String,
    pub(super) violations: Vec<String>,
    /// The first thing that the server said of the damage.
    pub(super) said: Option<String>,
    /// What a repair kept, if there was one, and it found damage.
    pub(super) kept: Option<Kept>,
}

/// What is to be done.
struct Case<'a> {
    place: &'a Place<'a>,
    base: &'a Base,
    file: &'a BaseFile,
    harm: Harm,
    when: When,
    in_binary: bool,
    starts_again: bool,
    is_repaired: bool,
    original: Vec<u8>,
    damaged: Option<Vec<u8>>,
    dir: PathBuf,
    violations: Vec<String>,
    said: Vec<String>,
}

/// Runs a case.
pub(super) fn run(place: &Place<'_>, number: u64) -> Result<Outcome, Failure> {
    let mut case = Case::draw(place, number)?;
    case.base.copy(&case.dir, &case.file.path)?;
    if case.when == When::AtRest {
        case.damage_at_rest()?;
    }
    let ending = match case.in_binary {
        true => case.run_binary()?,
        false => case.run_here()?,
    };
    case.judge_words(ending);
    let kept = case.repair()?;
    remove(&case.dir)?;
    for panic in panics::take() {
        case.note_panic(&panic);
    }
    Ok(Outcome {
        kind: case.file.kind,
        ending,
        story: case.story(),
        violations: case.violations,
        said: case.said.into_iter().next(),
        kept,
    })
}

impl<'a> Case<'a> {
    fn draw(place: &'a Place<'a>, number: u64) -> Result<Self, Failure> {
        let seed = place.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ number;
        let mut rng = Rng::with_seed(seed);
        let base = &place.bases[rng.usize(..place.bases.len())];
        let file = draw_file(&mut rng, base);
        let original = base::read(&base.dir, &file.path)?;
        let older = base.older_copies(&file.path, &original);
        let harm = Harm::draw(&mut rng, original.len(), older.len());
        let damaged = harm.apply(&original, &older);
        let in_binary = number % BINARY_EVERY == BINARY_EVERY - 1;
        // A server has threads that may have read the index of a run by then.
        let is_checked = in_binary && file.kind == FileKind::Run;
        let can_be_in_use = harm.is_in_place() && file.kind != FileKind::Identity && !is_checked;
        let when = match can_be_in_use && rng.usize(..5) == 0 {
            true => When::InUse,
            false => When::AtRest,
        };
        Ok(Self {
            place,
            base,
            file,
            harm,
            when,
            in_binary,
            starts_again: when == When::InUse || rng.usize(..3) == 0,
            is_repaired: when == When::AtRest && !in_binary && number.is_multiple_of(REPAIR_EVERY),
            original,
            damaged,
            dir: place.work.join(format!("case-{number}")),
            violations: Vec::new(),
            said: Vec::new(),
        })
    }

    fn story(&self) -> String {
        let mut story = format!(
            "base {}, {}: {}",
            self.base.name,
            self.file.path.display(),
            self.harm
        );
        if self.when == When::InUse {
            story.push_str(", while a server had it open");
        }
        if self.in_binary {
            story.push_str(", in a process of its own");
        }
        if self.starts_again {
            story.push_str(", two starts");
        }
        if self.is_repaired {
            story.push_str(", and a repair");
        }
        story
    }

    fn path(&self) -> PathBuf {
        self.dir.join(&self.file.path)
    }

    fn damage_at_rest(&self) -> Result<(), Failure> {
        let path = self.path();
        let done = match &self.damaged {
            Some(bytes) => fs::write(&path, bytes),
            None => fs::remove_file(&path),
        };
        done.map_err(|error| Failure::new(path.display(), error))
    }

    /// Changes the bytes of the file that a server has open. It may have replaced or removed the file already;
    /// then nothing of it is in use any more.
    fn damage_in_use(&self) -> Result<(), Failure> {
        let Some(damaged) = &self.damaged else {
            return Ok(());
        };
        let path = self.path();
        let fail = |error| Failure::new(path.display(), error);
        if fs::read(&path).ok().as_ref() != Some(&self.original) {
            return Ok(());
        }
        let file = match File::options().write(true).open(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            file => file.map_err(fail)?,
        };
        let differs = |(at, (one, other)): (usize, (&u8, &u8))| (one != other).then_some(at);
        let places = self.original.iter().zip(damaged).enumerate();
        for at in places.filter_map(differs) {
            file.write_all_at(&damaged[at..=at], at as u64)
                .map_err(fail)?;
        }
        Ok(())
    }

    /// How many batches at the end of the history may be gone.
    fn given_up_max(&self) -> usize {
        match (self.file.kind, self.when) {
            (FileKind::LogEnd, When::AtRest) => {
                log_file::batches_given_up(&self.original, self.damaged.as_deref())
            }
            _ => 0,
        }
    }

    /// How a store in this process is opened.
    fn config(&self) -> StoreConfig {
        let mut config = StoreConfig::new(STORE_LIMIT_BYTES, Some(self.dir.clone()));
        config.durability = match self.base.durability() {
            "always" => Durability::Always,
            _ => Durability::EverySec,
        };
        config.small_run_bytes = SMALL_RUN_BYTES;
        config.log_limit_bytes = LOG_LIMIT_BYTES;
        config.read_threads = 2;
        if self.when == When::InUse {
            // Nobody but the reader reads, so that nothing of an index was checked before it was damaged.
            config.tiny = Some(Tiny {
                entries_bytes: STORE_LIMIT_BYTES as usize / 2,
                spill_bytes: SPILL_BYTES,
                range_bytes: STORE_LIMIT_BYTES,
                place_bits: u64::BITS,
                threads: false,
            });
        }
        config
    }

    /// Starts a store in this process.
    fn start(&mut self) -> Option<Arc<Store>> {
        let config = self.config();
        match catch_unwind(AssertUnwindSafe(|| Store::open(config))) {
            Ok(Ok(store)) => Some(store),
            Ok(Err(error)) => {
                self.said.push(with_causes(&error));
                None
            }
            // The hook has its words.
            Err(_panic) => {
                self.said.push("a panic".to_owned());
                None
            }
        }
    }

    fn run_here(&mut self) -> Result<Ending, Failure> {
        let Some(store) = self.start() else {
            return Ok(Ending::Refused);
        };
        if self.when == When::InUse {
            self.damage_in_use()?;
        }
        let ending = self.look(&mut InProcess::new(&store, self.place.runtime));
        if !self.starts_again {
            return Ok(ending);
        }
        // A stop that cannot write down a table says so, and the next start is one after a crash.
        let stopped = catch_unwind(AssertUnwindSafe(|| store.stop()));
        drop((stopped, store));
        let Some(store) = self.start() else {
            return Ok(Ending::Refused.max(ending));
        };
        let again = self.look(&mut InProcess::new(&store, self.place.runtime));
        Ok(again.max(ending))
    }

    /// Reads all, and takes down what is wrong.
    fn look(&mut self, reader: &mut dyn Reader) -> Ending {
        let judgement = judge(reader, &self.base.content, self.given_up_max());
        let Judgement {
            errors,
            given_up,
            violations,
            violations_count,
            texts,
            ..
        } = judgement;
        let left = violations_count.saturating_sub(violations.len() as u64);
        self.violations.extend(violations);
        if left > 0 {
            self.violations.push(format!("and {left} more"));
        }
        self.said.extend(texts);
        match (errors, given_up) {
            (0, 0) => Ending::Whole,
            (0, _) => Ending::GaveUp,
            _ => Ending::Errors,
        }
    }

    /// The same with a server in a process of its own.
    fn run_binary(&mut self) -> Result<Ending, Failure> {
        let mut ending = self.serve(self.when == When::InUse)?;
        if self.starts_again && ending != Ending::Refused {
            ending = self.serve(false)?.max(ending);
        }
        if self.place.checks
            && self.when == When::AtRest
            && matches!(ending, Ending::Refused | Ending::Errors)
        {
            self.check()?;
        }
        Ok(ending)
    }

    /// Runs a server from its start to its stop.
    fn serve(&mut self, damages: bool) -> Result<Ending, Failure> {
        let log = self.dir.with_extension("err");
        let level = self.base.durability();
        let mut command = base::server_command(self.place.binary, &self.dir, level);
        let mut server = Server::start(&mut command, &log)?;
        if server.wait_until_ready(DEADLINE).is_err() {
            let status = server.kill(DEADLINE)?;
            let text = fs::read_to_string(&log).unwrap_or_default();
            if status.code() != Some(1) {
                self.violations
                    .push(format!("a start ended with {status}: {text}"));
            }
            self.note_panics(&text);
            // The last line is the reason, those before are what it noticed on the way.
            let reason = text.lines().next_back().unwrap_or_default();
            self.said.push(reason.to_owned());
            return Ok(Ending::Refused);
        }
        if damages {
            self.damage_in_use()?;
        }
        let address = server.address().to_owned();
        let mut reader = OverTheWire::connect(&address, self.place.runtime)?;
        let ending = self.look(&mut reader);
        reader.close();
        let status = server.stop(DEADLINE)?;
        let text = fs::read_to_string(&log).unwrap_or_default();
        self.note_panics(&text);
        if !matches!(status.code(), Some(0 | 1)) {
            self.violations.push(format!("a stop ended with {status}"));
        }
        Ok(ending)
    }

    fn note_panics(&mut self, text: &str) {
        let lines = text.lines().filter(|line| line.contains("panicked at"));
        for line in lines {
            self.note_panic(line);
        }
    }

    /// A panic is a violation, but for one: sled panics over some damage of its file. The server catches that, and who
    /// asked gets an error that names the directory.
    fn note_panic(&mut self, panic: &str) {
        if !(panic.contains(SLED_SOURCES) && self.file.kind.is_sled()) {
            self.violations.push(format!("a panic: {panic}"));
        }
    }

    /// Asks `rhash-server --check` about the same damage.
    fn check(&mut self) -> Result<(), Failure> {
        self.base.copy(&self.dir, &self.file.path)?;
        self.damage_at_rest()?;
        let path = self.dir.with_extension("check");
        let open = || File::create(&path).map_err(|error| Failure::new(path.display(), error));
        let output = open()?;
        let errors = output
            .try_clone()
            .map_err(|error| Failure::new(path.display(), error))?;
        let mut command = Command::new(self.place.binary);
        command.arg("--check").arg("--data").arg(&self.dir);
        command.stdin(Stdio::null()).stdout(output).stderr(errors);
        let status = Process::start("rhash-server --check", &mut command, |_| ())?
            .0
            .wait(DEADLINE)?;
        let text = fs::read_to_string(&path).unwrap_or_default();
        if status.code() != Some(1) {
            let text = format!("--check ended with {status}, and this was damaged: {text}");
            self.violations.push(text);
        } else if !self.names(&text) {
            let text = format!("--check does not name the file: {text}");
            self.violations.push(text);
        }
        Ok(())
    }

    /// Repairs a directory with the same damage, and says what that kept.
    fn repair(&mut self) -> Result<Option<Kept>, Failure> {
        if !self.is_repaired {
            return Ok(None);
        }
        // Elsewhere, since threads of the store that was started may write for a moment.
        let dir = self.dir.with_extension("repaired");
        let before = std::mem::replace(&mut self.dir, dir);
        self.base.copy(&self.dir, &self.file.path)?;
        self.damage_at_rest()?;
        let repaired = repair_and_look(
            &self.config(),
            self.file.kind,
            &self.base.content,
            self.given_up_max(),
            self.place.runtime,
        );
        self.violations.extend(repaired.violations);
        remove(&self.dir)?;
        self.dir = before;
        Ok(repaired.kept)
    }

    /// Whether the words name what was damaged, or, where that cannot be known, some file of the directory.
    fn names(&self, text: &str) -> bool {
        let name = self.file.path.file_name().unwrap_or_default();
        let name = name.to_string_lossy();
        let any = [
            "IDENTITY",
            "MANIFEST",
            "/log",
            "run ",
            ".run",
            "sled",
            "has format",
        ];
        let is_named = match self.file.kind {
            FileKind::Run => text.contains(&*name) || text.contains(&run_words(&name)),
            kind if kind.is_sled() => text.contains("sled") || text.contains("run "),
            // Format numbers of these stand before all checksums, and are those of the directory.
            FileKind::Identity if text.contains("has format") => true,
            // Behind what something later says was safe, damage is taken for a torn end, and is seen by what is
            // then missing.
            FileKind::Manifest => any.iter().any(|word| text.contains(word)),
            _ => text.contains(&*name),
        };
        is_named || (!self.harm.is_in_place() && any.iter().any(|word| text.contains(word)))
    }

    /// Holds what the server said of the damage against what it has to say.
    fn judge_words(&mut self, ending: Ending) {
        let is_told = matches!(ending, Ending::Refused | Ending::Errors);
        if !is_told {
            return;
        }
        let unnamed = self.said.iter().find(|text| !self.names(text)).cloned();
        if let Some(text) = unnamed {
            self.violations
                .push(format!("the message does not name the file: {text}"));
        }
        let has_places = matches!(
            self.file.kind,
            FileKind::LogEnd | FileKind::LogBefore | FileKind::Run
        );
        let placeless = |text: &&String| !text.contains("byte ") && !text.contains("format ");
        if has_places
            && self.harm.is_in_place()
            && let Some(text) = self.said.iter().find(placeless).cloned()
        {
            self.violations
                .push(format!("the message does not say at which byte: {text}"));
        }
    }
}

/// Removes a case's directory, to which threads of a store that was let go of may write for a moment.
fn remove(dir: &Path) -> Result<(), Failure> {
    let began = Instant::now();
    loop {
        match fs::remove_dir_all(dir) {
            Err(error) if began.elapsed() > DEADLINE => {
                return Err(Failure::new(dir.display(), error));
            }
            Err(error) if error.kind() != ErrorKind::NotFound => {
                std::thread::park_timeout(LOOK_EVERY);
            }
            _ => return Ok(()),
        }
    }
}

/// How messages call the run of this file.
fn run_words(name: &str) -> String {
    let number = name.strip_suffix(".run");
    let number = number.and_then(|digits| u64::from_str_radix(digits, 16).ok());
    number.map_or_else(|| name.to_owned(), |number| format!("run {number} "))
}

fn draw_file<'a>(rng: &mut Rng, base: &'a Base) -> &'a BaseFile {
    let kinds = FileKind::ALL.iter().copied();
    let has = |kind: &FileKind| base.files.iter().any(|file| file.kind == *kind);
    let kinds: Vec<FileKind> = kinds.filter(has).collect();
    let weights: usize = kinds.iter().map(|kind| kind.weight()).sum();
    let mut draw = rng.usize(..weights);
    let mut drawn = kinds[0];
    for kind in kinds {
        if draw < kind.weight() {
            drawn = kind;
            break;
        }
        draw -= kind.weight();
    }
    let files: Vec<&BaseFile> = base
        .files
        .iter()
        .filter(|file| file.kind == drawn)
        .collect();
    files[rng.usize(..files.len())]
}

/// An error as the server's command says it.
pub(super) fn with_causes(error: &StoreError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        // Writing to a string does not fail.
        write!(text, ": {error}").ok();
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_named_by_its_number() {
        assert_eq!(run_words("000000000000001f.run"), "run 31 ");
        assert_eq!(run_words("odd"), "odd");
    }
}
