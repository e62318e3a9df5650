//! Cases in processes of their own, so that one that hangs, or ends its process, is seen and does not end the
//! others.
//!
//! A worker says on its standard output which case it begins, and then what came of it, in a line of JSON each.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::Duration;

use serde_json::{Value, json};

use super::base::{Base, FileKind, NAMES};
use super::case::{self, Ending, Outcome, Place};
use super::content::History;
use super::panics;
use super::repaired::Kept;
use super::tally::Tally;
use crate::failure::Failure;
use crate::process::Process;

/// The hidden task that a worker is.
pub(crate) const TASK: &str = "damage-worker";

/// Cases that one process runs.
const CHUNK: u64 = 100;
/// A case that takes longer hangs.
const CASE_LIMIT: Duration = Duration::from_secs(120);
/// Lines that may wait to be read.
const LINES_MAX: usize = 100;
const ENDINGS: [(Ending, &str); 4] = [
    (Ending::Whole, "whole"),
    (Ending::GaveUp, "gave up"),
    (Ending::Refused, "refused"),
    (Ending::Errors, "errors"),
];

/// What all workers of a run share.
#[derive(Debug, Clone)]
pub(super) struct Setting {
    pub(super) bases: PathBuf,
    pub(super) work: PathBuf,
    pub(super) binary: PathBuf,
    pub(super) checks: bool,
    pub(super) seed: u64,
}

/// Runs the cases from `from` to before `to` with so many processes at a time.
pub(super) fn run_all(
    setting: &Setting,
    cases: std::ops::Range<u64>,
    jobs: usize,
    tally: Tally,
) -> Result<Tally, Failure> {
    let next = AtomicU64::new(cases.start);
    let tally = Mutex::new(tally);
    let failed = Mutex::new(None);
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                loop {
                    let from = next.fetch_add(CHUNK, Relaxed);
                    let to = (from + CHUNK).min(cases.end);
                    if from >= to {
                        return;
                    }
                    if let Err(failure) = run_chunk(setting, from, to, &tally) {
                        next.store(cases.end, Relaxed);
                        lock(&failed).get_or_insert(failure);
                        return;
                    }
                }
            });
        }
    });
    match lock(&failed).take() {
        Some(failure) => Err(failure),
        None => Ok(std::mem::take(&mut *lock(&tally))),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Runs a chunk, in more than one process if a case ends one.
fn run_chunk(setting: &Setting, from: u64, to: u64, tally: &Mutex<Tally>) -> Result<(), Failure> {
    let mut next = from;
    while next < to {
        let mut command = worker_command(setting, next, to)?;
        let (mut process, output) =
            Process::start("a worker", &mut command, |child| child.stdout.take())?;
        let output = output.ok_or_else(|| Failure::Failed("a worker has no output".to_owned()))?;
        let lines = lines_of(output);
        let mut begun = None;
        let hung = loop {
            match lines.recv_timeout(CASE_LIMIT) {
                Ok(line) => match Said::read(&line)? {
                    Said::Begun(number) => begun = Some(number),
                    Said::Done(number, outcome) => {
                        lock(tally).take(number, &outcome);
                        begun = None;
                        next = number + 1;
                    }
                },
                Err(RecvTimeoutError::Disconnected) => break false,
                Err(RecvTimeoutError::Timeout) => break true,
            }
        };
        let status = match hung {
            true => process.kill(CASE_LIMIT)?,
            false => process.wait(CASE_LIMIT)?,
        };
        match begun {
            Some(number) => {
                let how = match hung {
                    true => format!("it hung for {CASE_LIMIT:?}"),
                    false => format!("it ended its process: {status}"),
                };
                lock(tally).take_end(number, how);
                next = number + 1;
            }
            None if next < to => {
                return Err(Failure::Failed(format!(
                    "a worker ended with {status} before case {next}; see what it said above"
                )));
            }
            None => {}
        }
    }
    Ok(())
}

fn worker_command(setting: &Setting, from: u64, to: u64) -> Result<Command, Failure> {
    let task = std::env::current_exe().map_err(|error| Failure::new("this program", error))?;
    let mut command = Command::new(task);
    command.arg(TASK).args([
        from.to_string(),
        to.to_string(),
        setting.seed.to_string(),
        setting.checks.to_string(),
    ]);
    command.arg(&setting.bases).arg(&setting.work);
    command.arg(&setting.binary);
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    Ok(command)
}

/// Passes on the lines of a worker, until it has ended.
fn lines_of(output: impl std::io::Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = sync_channel(LINES_MAX);
    std::thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

/// The worker itself.
pub(crate) fn work(arguments: &[String]) -> Result<(), Failure> {
    let [from, to, seed, checks, bases, work, binary] = arguments else {
        return Err(Failure::Usage(format!("{TASK} is for `damage` alone")));
    };
    let (from, to) = (
        crate::sizes::number(TASK, from)?,
        crate::sizes::number(TASK, to)?,
    );
    let setting = Setting {
        bases: PathBuf::from(bases),
        work: PathBuf::from(work).join(format!("{}", std::process::id())),
        binary: PathBuf::from(binary),
        checks: checks == "true",
        seed: crate::sizes::number(TASK, seed)?,
    };
    panics::watch();
    let done = run_here(&setting, from..to, |said| say!("{}", said.line()));
    std::fs::remove_dir_all(&setting.work).ok();
    done
}

/// Runs cases in this process.
pub(super) fn run_here(
    setting: &Setting,
    cases: std::ops::Range<u64>,
    mut tell: impl FnMut(Said),
) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new("cannot start a runtime", error))?;
    let bases = open_bases(&setting.bases, setting.seed)?;
    crate::place::directory(&setting.work)?;
    let place = Place {
        bases: &bases,
        work: &setting.work,
        binary: &setting.binary,
        checks: setting.checks,
        seed: setting.seed,
        runtime: &runtime,
    };
    for number in cases {
        tell(Said::Begun(number));
        let outcome = case::run(&place, number)?;
        tell(Said::Done(number, outcome));
    }
    Ok(())
}

/// The bases below a directory.
pub(super) fn open_bases(bases: &Path, seed: u64) -> Result<Vec<Base>, Failure> {
    let history = History::new(seed);
    NAMES
        .iter()
        .map(|name| Base::open(bases, name, &history))
        .collect()
}

/// What a worker says.
#[derive(Debug)]
pub(super) enum Said {
    Begun(u64),
    Done(u64, Outcome),
}

impl Said {
    fn line(&self) -> String {
        let value = match self {
            Self::Begun(number) => json!({ "begun": number }),
            Self::Done(number, outcome) => json!({
                "case": number,
                "kind": outcome.kind.name(),
                "ending": name_of(outcome.ending),
                "story": outcome.story,
                "violations": outcome.violations,
                "said": outcome.said,
                "kept": outcome.kept.map(|kept| [kept.right, kept.keys]),
            }),
        };
        value.to_string()
    }

    fn read(line: &str) -> Result<Self, Failure> {
        let odd = || Failure::Failed(format!("a worker said: {line}"));
        let value: Value = serde_json::from_str(line).ok().ok_or_else(odd)?;
        if let Some(number) = value["begun"].as_u64() {
            return Ok(Self::Begun(number));
        }
        let text = |name: &str| value[name].as_str().map(str::to_owned);
        let kind = text("kind").and_then(|name| {
            let mut kinds = FileKind::ALL.iter().copied();
            kinds.find(|kind| kind.name() == name)
        });
        let ending = text("ending").and_then(|name| {
            let mut endings = ENDINGS.iter();
            endings.find(|known| known.1 == name).map(|known| known.0)
        });
        let violations = value["violations"].as_array().map(|all| {
            let texts = all.iter().filter_map(Value::as_str);
            texts.map(str::to_owned).collect()
        });
        let outcome = Outcome {
            kind: kind.ok_or_else(odd)?,
            ending: ending.ok_or_else(odd)?,
            story: text("story").ok_or_else(odd)?,
            violations: violations.ok_or_else(odd)?,
            said: text("said"),
            kept: kept_of(&value["kept"]),
        };
        Ok(Self::Done(value["case"].as_u64().ok_or_else(odd)?, outcome))
    }
}

fn kept_of(value: &Value) -> Option<Kept> {
    Some(Kept {
        right: value.get(0)?.as_u64()?,
        keys: value.get(1)?.as_u64()?,
    })
}

/// What an ending is called.
pub(super) fn name_of(ending: Ending) -> &'static str {
    let mut endings = ENDINGS.iter();
    endings
        .find(|known| known.0 == ending)
        .map_or("", |known| known.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_worker_says_is_read_as_it_was_said() {
        let outcome = Outcome {
            kind: FileKind::Run,
            ending: Ending::Errors,
            story: "a bit, \"quoted\"".to_owned(),
            violations: vec!["one".to_owned()],
            said: None,
            kept: Some(Kept { right: 3, keys: 4 }),
        };
        let Said::Done(7, read) = Said::read(&Said::Done(7, outcome.clone()).line()).unwrap()
        else {
            panic!("it is done");
        };
        assert_eq!((read.kind, read.ending), (outcome.kind, outcome.ending));
        assert_eq!((read.story, read.said), (outcome.story, outcome.said));
        assert_eq!(read.kept, outcome.kept);
        assert_eq!(read.violations, outcome.violations);
        let begun = Said::read(&Said::Begun(9).line()).unwrap();
        assert!(matches!(begun, Said::Begun(9)));
        assert!(Said::read("no JSON").is_err() && Said::read("{}").is_err());
    }
}
