//! Faults under a running server: what it answers meanwhile, whether it goes on by itself, and what a server on a
//! healthy disk has afterwards.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rhash_protocol::{ErrorCode, Stats};

use super::cases::{Case, Phase};
use super::client::{self, Board, Hand};
use super::control::Control;
use super::ledger::Ledger;
use super::outcome::Outcome;
use super::template::Template;
use crate::failure::Failure;
use crate::power::Survival;
use crate::power::disk::Disk;
use crate::power::draws::Draws;
use crate::power::peer::Peer;
use crate::power::preload::Preload;
use crate::power::stage::Stage;
use crate::power::trace::Trace;
use crate::power::trial::{DEADLINE, log_tail, runtime, server_command};
use crate::server::Server;

/// The load before the first fault.
const BEFORE: Duration = Duration::from_millis(150);
/// For a fault that is to come it is waited so long, …
const HIT_WAIT: Duration = Duration::from_millis(1500);
/// … and it then goes on for so long.
const FAILING: Duration = Duration::from_millis(600);
/// A log whose every call fails has failed by then: it is synced each second.
const LOG_WAIT: Duration = Duration::from_secs(4);
/// How long a full disk stays full, so that all that waits for room has come to its end.
const FULL: Duration = Duration::from_millis(1500);
/// Writes go on within this by themselves.
const RESUME_MAX: Duration = Duration::from_secs(5);
/// The load afterwards.
const AFTER: Duration = Duration::from_millis(150);
/// It is looked so often.
const LOOK: Duration = Duration::from_millis(10);
/// Reads when nothing fails any more.
const READS_AFTER: u32 = 60;
/// Discards on a full disk.
const DISCARDS: u32 = 10;

/// What cases share.
#[derive(Debug)]
pub(super) struct Bench<'a> {
    pub(super) binary: &'a Path,
    pub(super) preload: &'a Preload,
    pub(super) stage: &'a Stage,
    pub(super) stopped: &'a Template,
    pub(super) killed: &'a Template,
    pub(super) seed: u64,
}

/// What was seen of a server whose disk failed.
struct Seen {
    during: Stats,
    after: Stats,
    log_failed: bool,
}

impl Bench<'_> {
    /// A case of a running server, in the place of a worker.
    pub(super) fn run(&self, case: &Case, worker: usize, number: u64) -> Result<Outcome, Failure> {
        let root = self.stage.empty(&format!("case-{worker}"))?;
        let trace = self.stage.path(&format!("trace-{worker}"));
        std::fs::remove_file(&trace).ok();
        let control = Control::new(&self.stage.path(&format!("control-{worker}")))?;
        let mut ledger = match case.phase {
            Phase::BeforeACut => Ledger::new(),
            _ => {
                self.stopped.copy(self.stage, &root)?;
                self.stopped.ledger.clone()
            }
        };
        let log = root.join("server.log");
        let mut command = server_command(self.binary, case.level, &root);
        self.preload.put_before(&mut command, &root);
        Preload::control(&mut command, control.path());
        if case.phase == Phase::BeforeACut {
            Preload::trace(&mut command, &trace, 300);
        }
        let mut server = Server::start(&mut command, &log)?;
        server.wait_until_ready(DEADLINE)?;
        let board = Board::default();
        let mut draws = Draws::new(self.seed, number);
        let address = server.address().to_owned();
        let loading = self.load(&address, case, &control, &board, &mut ledger, &mut draws);
        let loaded = runtime()?.block_on(loading);
        control.disarm()?;
        let mut outcome = Outcome::new(case, &control, &board);
        match loaded {
            Ok(seen) => look_at(case, &seen, &board, &mut outcome),
            Err(failure) => outcome.wrong(format!("{failure}; its log: {}", log_tail(&log))),
        }
        end(&mut server, case, number, &mut outcome);
        look_at_log(&log, &mut outcome);
        let root = match case.phase {
            Phase::BeforeACut => self.cut(&trace, worker)?,
            _ => root,
        };
        let checked = self.check_restarted(&root, case.level, &ledger);
        if let Err(why) = checked {
            outcome.wrong(why);
        }
        Ok(outcome)
    }

    async fn load(
        &self,
        address: &str,
        case: &Case,
        control: &Control,
        board: &Board,
        ledger: &mut Ledger,
        draws: &mut Draws,
    ) -> Result<Seen, Failure> {
        let before = match case.phase {
            Phase::BeforeACut => Ledger::new(),
            _ => self.stopped.ledger.clone(),
        };
        let mut writer = Hand::connect(address).await?;
        let mut reader = Hand::connect(address).await?;
        let mut director = Hand::connect(address).await?;
        let mut reader_draws = Draws::new(self.seed, draws.any());
        let mut director_draws = Draws::new(self.seed, draws.any());
        let directing = async {
            let seen = direct(case, control, board, &mut director).await;
            if seen.is_ok() {
                for _ in 0..READS_AFTER {
                    client::read_some(&mut director, &before, board, &mut director_draws).await?;
                }
            }
            board.stop();
            seen
        };
        let writing = stop_others(board, client::write(&mut writer, ledger, board, draws));
        let reading = client::read(&mut reader, &before, board, &mut reader_draws);
        let reading = stop_others(board, reading);
        let (seen, written, read) = tokio::join!(directing, writing, reading);
        let mut seen = seen?;
        written?;
        read?;
        // One more, with nobody else about: a log that failed refuses it, and nothing else does for good.
        let refusal = client::discard(&mut writer, ledger, draws).await?;
        seen.log_failed = refusal.is_some_and(|error| says_log_failed(&error.text));
        seen.after = director.stats().await?;
        Ok(seen)
    }

    /// What a power cut leaves of the traced disk, when nothing that was not synced survives.
    fn cut(&self, trace: &Path, worker: usize) -> Result<PathBuf, Failure> {
        let trace = Trace::read(trace)?;
        let mut disk = Disk::new(&trace.bytes);
        for event in &trace.events {
            disk.apply(event)?;
        }
        let root = self.stage.empty(&format!("cut-{worker}"))?;
        let mut draws = Draws::new(self.seed, 1);
        disk.image(Survival::Nothing, &mut draws).write(&root)?;
        Ok(root)
    }

    /// Starts a server on a healthy disk, and holds what it has against the ledger.
    pub(super) fn check_restarted(
        &self,
        root: &Path,
        level: &str,
        ledger: &Ledger,
    ) -> Result<(), String> {
        let log = root.join("restarted.log");
        let say = |failure: Failure| {
            format!(
                "started on a healthy disk: {failure}; its log: {}",
                log_tail(&log)
            )
        };
        let mut command = server_command(self.binary, level, root);
        let mut server = Server::start(&mut command, &log).map_err(say)?;
        server.wait_until_ready(DEADLINE).map_err(say)?;
        let address = server.address().to_owned();
        let reading = async {
            let mut peer = Peer::connect(&address).await?;
            Ledger::read_all(&mut peer).await
        };
        let contents = runtime().and_then(|runtime| runtime.block_on(reading));
        let contents = contents.map_err(say)?;
        server.kill(DEADLINE).map_err(say)?;
        let checked = ledger.check(&contents);
        let checked = checked.map_err(|why| format!("after a restart on a healthy disk: {why}"));
        let said = log_tail(&log);
        match said.contains("ERROR") || said.contains("panicked") {
            true => Err(format!(
                "the restarted server logged trouble: {said}; {checked:?}"
            )),
            false => checked,
        }
    }
}

/// Ends the others' work when one of the clients meets what it cannot go on with.
async fn stop_others(
    board: &Board,
    work: impl Future<Output = Result<(), Failure>>,
) -> Result<(), Failure> {
    let worked = work.await;
    if worked.is_err() {
        board.stop();
    }
    worked
}

/// Lets the disk fail, looks, and lets it be well again.
async fn direct(
    case: &Case,
    control: &Control,
    board: &Board,
    hand: &mut Hand,
) -> Result<Seen, Failure> {
    tokio::time::sleep(BEFORE).await;
    control.arm(&case.fault)?;
    let armed = Instant::now();
    while control.hits() == 0 && armed.elapsed() < HIT_WAIT {
        tokio::time::sleep(LOOK).await;
    }
    tokio::time::sleep(if case.fault.growing { FULL } else { FAILING }).await;
    let mut during = hand.stats().await?;
    while case.log_must_fail && !says_trouble(&during) && armed.elapsed() < LOG_WAIT {
        tokio::time::sleep(LOOK).await;
        during = hand.stats().await?;
    }
    if case.discards_go_on {
        discards(hand, board).await?;
    }
    control.disarm()?;
    board.cleared();
    let cleared = Instant::now();
    while board.resumed_after().is_none() && cleared.elapsed() < RESUME_MAX + LOOK * 20 {
        if says_trouble(&hand.stats().await?) {
            break;
        }
        tokio::time::sleep(LOOK).await;
    }
    tokio::time::sleep(AFTER).await;
    let after = hand.stats().await?;
    Ok(Seen {
        during,
        after,
        log_failed: false,
    })
}

/// Discards go on where a disk is full. Of keys that nobody has, so that the ledgers stay as they are.
async fn discards(hand: &mut Hand, board: &Board) -> Result<(), Failure> {
    for number in 0..DISCARDS {
        if let Some(error) = hand.discard_nothing(number).await? {
            board.wrong(format!(
                "a discard on a full disk was refused: {}",
                error.text
            ));
            break;
        }
    }
    Ok(())
}

fn says_log_failed(text: &str) -> bool {
    text.contains("the log failed")
}

fn says_trouble(stats: &Stats) -> bool {
    stats.log_trouble.as_deref().is_some_and(says_log_failed)
}

/// Holds what was seen against what was promised.
fn look_at(case: &Case, seen: &Seen, board: &Board, outcome: &mut Outcome) {
    outcome.log_failed = seen.log_failed;
    let trouble = seen.after.log_trouble.clone().unwrap_or_default();
    if seen.log_failed != says_log_failed(&trouble) {
        outcome.wrong(format!(
            "a write says that the log failed: {}; stats say: {trouble:?}",
            seen.log_failed
        ));
    }
    if case.log_must_fail && outcome.hits > 0 && !seen.log_failed {
        outcome.wrong("the log's calls failed, and the server goes on to take writes".to_owned());
    }
    let resumed = board.resumed_after();
    outcome.resumed = resumed;
    if case.must_resume && resumed.is_none_or(|after| after > RESUME_MAX) {
        let text = trouble.clone();
        outcome.wrong(format!("writes do not go on within 5 s (stats: {text:?})"));
    }
    if case.fault.growing && outcome.hits > 0 {
        let errors = board.errors();
        let full = format!("a write: {:?}", ErrorCode::DiskFull);
        let refused = board.refused.load(std::sync::atomic::Ordering::Relaxed);
        if refused > 0 && !errors.contains_key(&full) {
            outcome.wrong(format!(
                "no write was told that the disk is full: {errors:?}"
            ));
        }
        outcome.note(format!("stats meanwhile: {:?}", seen.during.log_trouble));
    }
    if board.reads.load(std::sync::atomic::Ordering::Relaxed) == 0 {
        outcome.wrong("no read was answered".to_owned());
    }
}

/// Stops or kills the server; a stop must come to an end.
fn end(server: &mut Server, case: &Case, number: u64, outcome: &mut Outcome) {
    let stops = number.is_multiple_of(2) && case.phase != Phase::BeforeACut;
    let ended = match stops {
        true => server.stop(DEADLINE),
        false => server.kill(DEADLINE),
    };
    match ended {
        Err(failure) => outcome.wrong(failure.to_string()),
        Ok(status) if stops => {
            if status.code().is_none_or(|code| code > 1) {
                outcome.wrong(format!("a stop ended with {status}"));
            }
        }
        Ok(_) => {}
    }
}

fn look_at_log(log: &Path, outcome: &mut Outcome) {
    let said = std::fs::read_to_string(log).unwrap_or_default();
    if let Some(at) = said.find("panicked") {
        let from = said.floor_char_boundary(at.saturating_sub(200));
        let to = said.floor_char_boundary(at + 400);
        outcome.wrong(format!("it panicked: {}", &said[from..to]));
    }
    if outcome.log_failed && !says_log_failed(&said) {
        outcome.wrong("the server's own log does not say that the log failed".to_owned());
    }
}
