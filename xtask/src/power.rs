//! `cargo xtask power`: a server whose disk loses its power, at thousands of moments. What was promised
//! is there, and nothing else is.
//!
//! A library before the C library writes down what a loaded server does to its files, those of sled included (`trace`).
//! A model of a disk replays that (`disk`, `file`), and at each point says what a power cut might have
//! left. A plain server is started on it (`trial`), and what it has is held against what the clients
//! wrote down (`journal`, `found`).

pub(crate) mod draws;
pub(crate) mod preload;
pub(crate) mod trace;
mod file;
pub(crate) mod disk;
pub(crate) mod peer;
pub(crate) mod journal;
pub(crate) mod plan;
pub(crate) mod load;
pub(crate) mod found;
mod points;
mod syncs;
pub(crate) mod stage;
pub(crate) mod trial;
mod options;

pub(crate) use file::Survival;

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use crate::checklist::Checklist;
use crate::failure::Failure;
use crate::place;
use crate::server::Server;
use disk::Disk;
use draws::Draws;
use found::Cut;
use load::Done;
use options::Options;
use preload::Preload;
use stage::Stage;
use trace::{Event, Trace};
use trial::{DEADLINE, Homes, Trial, Trials, runtime, server_command};

/// At `everysec` what is older than this is there.
const EVERYSEC_NS: u64 = 1_500_000_000;

/// A sync takes so much longer than the memory under it, like that of a good disk.
const SYNC_US: u64 = 1500;

/// So many of the points are on a server that keeps nearly all in sled, as a divisor.
const SLED_SHARE: usize = 3;

/// Images that are tried at the same time.
const WORKERS: usize = 2;

/// After so many failures it is clear enough.
const FAILURES_MAX: usize = 5;

/// It says how far it is after so many points.
const SAY_EVERY: usize = 500;

/// Events before the cut that a failure tells.
const EVENTS_TOLD: usize = 6;

/// Runs the power cuts.
pub(crate) fn run(arguments: &[String]) -> Result<(), Failure> {
    let Some(options) = Options::parse(arguments)? else {
        say!("{}", options::HELP);
        return Ok(());
    };
    let given = options.bin_dir.as_deref();
    let binaries = place::binaries_of(options.debug, given, DEADLINE * 30)?;
    let stage = Stage::new("power")?;
    let failed = place::target_directory()?.join("power");
    place::empty_directory(&failed)?;
    let preload = Preload::build(&failed)?;
    let mut checks = Checklist::default();
    for &level in &options.levels {
        let in_sled = options.points / SLED_SHARE;
        let of_files = options.points - in_sled;
        for (homes, points) in [(Homes::Files, of_files), (Homes::Sled, in_sled)] {
            let power = Power {
                options: &options,
                level,
                homes,
                points,
                binary: &binaries.join("rhash-server"),
                stage: &stage,
                failed: &failed,
            };
            power.run(&preload, &mut checks)?;
        }
    }
    checks.outcome("power")
}

/// The power cuts at one level.
struct Power<'a> {
    options: &'a Options,
    level: &'a str,
    homes: Homes,
    points: usize,
    binary: &'a Path,
    stage: &'a Stage,
    /// Where disks go on which something was wrong.
    failed: &'a Path,
}

/// What workers share.
struct Work {
    trials: Mutex<Receiver<Trial>>,
    failures: Mutex<Vec<String>>,
}

impl Power<'_> {
    fn run(&self, preload: &Preload, checks: &mut Checklist) -> Result<(), Failure> {
        let (name, points, seed) = (self.name(), self.points, self.options.seed);
        say!("xtask: power: {points} cuts, {name}, seed {seed} …");
        let (trace, done) = self.trace(preload, checks)?;
        self.check_trace(&trace, &done, checks);
        let began = Instant::now();
        let (tried, failures) = self.cut(&trace, &done)?;
        let seconds = began.elapsed().as_secs_f64();
        let steps: usize = done.journals.iter().map(|one| one.answers().count()).sum();
        let detail = match failures.first() {
            Some(first) => format!("{} of {tried} cuts, the first: {first}", failures.len()),
            None => format!(
                "{tried} cuts of {steps} steps by {} clients, {seconds:.0} s",
                load::CLIENTS
            ),
        };
        for failure in failures.iter().skip(1) {
            say!("xtask: power: {failure}");
        }
        let promise = match self.level {
            "always" => "what was answered is there, once, and nothing else",
            _ => "a prefix of each client's steps is there, short by 1.5 s at most",
        };
        checks.check(&format!("{name}: {promise}"), failures.is_empty(), detail);
        Ok(())
    }

    fn name(&self) -> String {
        let homes = match self.homes {
            Homes::Files => "",
            Homes::Sled => ", most runs in sled",
        };
        format!("{}{homes}", self.level)
    }

    /// Loads a server whose disk is traced, and stops it.
    fn trace(&self, preload: &Preload, checks: &mut Checklist) -> Result<(Trace, Done), Failure> {
        let root = self.stage.empty("traced")?;
        let path = self.stage.path("trace");
        std::fs::remove_file(&path).ok();
        let log = self.stage.path("traced.log");
        let mut command = server_command(self.binary, self.level, self.homes, &root);
        preload.put_before(&mut command, &root);
        Preload::trace(&mut command, &path, SYNC_US);
        let mut server = Server::start(&mut command, &log)?;
        server.wait_until_ready(DEADLINE)?;
        let time = Duration::from_secs(self.options.seconds);
        let loading = load::load(server.address(), self.options.seed, time);
        let done = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .map_err(|error| Failure::new("cannot start threads", error))?
            .block_on(loading)?;
        let stopped = server.stop(DEADLINE)?;
        let said = trial::log_tail(&log);
        let name = format!("{}: the traced server stops cleanly", self.name());
        let clean = stopped.success() && !said.contains("ERROR") && !said.contains("panicked");
        checks.check(&name, clean, format!("{stopped} {said}"));
        Ok((Trace::read(&path)?, done))
    }

    fn check_trace(&self, trace: &Trace, done: &Done, checks: &mut Checklist) {
        let deeds = points::deeds(trace);
        let megabytes = trace.bytes.len() >> 20;
        let name = format!("{}: the load makes the disk do everything", self.name());
        let detail = format!("{} events, {megabytes} MiB, {deeds:?}", trace.events.len());
        checks.check(&name, deeds.are_all(self.homes), detail);
        if self.level == "always" {
            let seen = syncs::look(trace, &done.journals);
            let name = "each write was synced between its arrival and its answer";
            let name = format!("{}: {name}", self.name());
            let detail = match &seen.early {
                Some(early) => early.clone(),
                None => format!(
                    "{} writes, {} of them by a client that waits for each, {} syncs of the log",
                    seen.writes, seen.lone_writes, seen.syncs
                ),
            };
            let enough = seen.lone_writes > 0 && seen.syncs >= seen.lone_writes;
            checks.check(&name, seen.early.is_none() && enough, detail);
        }
    }

    /// Cuts the power at points of the trace; returns how often, and what was wrong.
    fn cut(&self, trace: &Trace, done: &Done) -> Result<(usize, Vec<String>), Failure> {
        let trials = Trials {
            binary: self.binary,
            level: self.level,
            homes: self.homes,
            stage: self.stage,
            done,
        };
        let (sender, receiver) = sync_channel(1);
        let work = Work {
            trials: Mutex::new(receiver),
            failures: Mutex::default(),
        };
        let tried = std::thread::scope(|scope| {
            for worker in 0..WORKERS {
                let (work, trials) = (&work, &trials);
                scope.spawn(move || self.work(worker, work, trials));
            }
            self.make_trials(trace, done, &work, sender)
        })?;
        let failures = work.failures.into_inner();
        Ok((tried, failures.unwrap_or_default()))
    }

    /// Replays the trace, and hands out the image of each point.
    fn make_trials(
        &self,
        trace: &Trace,
        done: &Done,
        work: &Work,
        sender: SyncSender<Trial>,
    ) -> Result<usize, Failure> {
        let mut draws = Draws::new(self.options.seed, 77);
        let points = points::draw(trace, self.points, &mut draws);
        let mut disk = Disk::new(&trace.bytes);
        let mut events = trace.events.iter().enumerate().peekable();
        for (number, point) in points.iter().enumerate() {
            while let Some((_, event)) = events.next_if(|(index, _)| index < point) {
                disk.apply(event)?;
            }
            let at_ns = trace.events.get(*point).map(|event| event.at_ns);
            let at_ns = at_ns.unwrap_or(done.ended_ns.max(1));
            let safe_ns = match self.level {
                "always" => at_ns,
                _ => at_ns.saturating_sub(EVERYSEC_NS),
            };
            let survival = survival(&mut draws);
            let trial = Trial {
                number,
                image: disk.image(survival, &mut draws),
                cut: Cut { at_ns, safe_ns },
                what: describe(&trace.events, *point, survival),
            };
            let failed = work.failures.lock().map_or(0, |failures| failures.len());
            if failed >= FAILURES_MAX || sender.send(trial).is_err() {
                return Ok(number);
            }
            if number > 0 && number.is_multiple_of(SAY_EVERY) {
                say!("xtask: power: {number} cuts");
            }
        }
        Ok(points.len())
    }

    /// Tries images until there are no more.
    fn work(&self, worker: usize, work: &Work, trials: &Trials<'_>) {
        let runtime = match runtime() {
            Ok(runtime) => runtime,
            Err(failure) => return work.fail(failure.to_string()),
        };
        loop {
            let next = work
                .trials
                .lock()
                .ok()
                .and_then(|trials| trials.recv().ok());
            let Some(trial) = next else {
                return;
            };
            if let Err(why) = trials.run(&runtime, worker, &trial) {
                let kept = self.keep(&trial);
                let kept = kept.map_or_else(
                    |failure| failure.to_string(),
                    |path| path.display().to_string(),
                );
                work.fail(format!("{}: {why} (the disk is in {kept})", trial.what));
            }
        }
    }

    /// Keeps an image on which something was wrong.
    fn keep(&self, trial: &Trial) -> Result<PathBuf, Failure> {
        let path = self
            .failed
            .join(format!("{}-{:?}-{}", self.level, self.homes, trial.number));
        place::empty_directory(&path)?;
        trial.image.write(&path)?;
        Ok(path)
    }
}

impl Work {
    fn fail(&self, why: String) {
        if let Ok(mut failures) = self.failures.lock() {
            failures.push(why);
        }
    }
}

/// Draws what a cut leaves.
fn survival(draws: &mut Draws) -> Survival {
    match draws.below(20) {
        0..4 => Survival::Nothing,
        4 => Survival::Everything,
        5..8 => Survival::Files,
        8..13 => Survival::Pages,
        _ => Survival::Sectors,
    }
}

/// Says where a cut is.
fn describe(events: &[Event], point: usize, survival: Survival) -> String {
    let told = &events[point.saturating_sub(EVENTS_TOLD)..point];
    let told: Vec<String> = told
        .iter()
        .map(|event| format!("{:?}", event.what))
        .collect();
    format!(
        "at event {point} of {}, of what was not synced {survival:?}, after {}",
        events.len(),
        told.join(", ")
    )
}
