//! Clients that are cut off in the middle of their batches: processes that are killed, and sessions whose
//! connection ends with a reset. Every batch is whole or absent, and those that were answered are there.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::process::{ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use fastrand::Rng;
use rhash_client::{Client, ErrorKind};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::batch::{Name, TABLE, Table, write_on};
use super::proxy::{Figures, Plan, Proxy};
use super::rig::Rig;
use crate::checklist::Checklist;
use crate::failure::Failure;
use crate::process::Process;

/// The hidden task that a client process is.
pub(crate) const TASK: &str = "cuts-client";

/// Sessions at the same time.
const SESSIONS: usize = 8;
/// A session is cut after so many bytes at most: in the middle of some batch.
const UP_BYTES_MAX: u64 = 600_000;
/// Its answers are short.
const DOWN_BYTES_MAX: u64 = 600;
/// A process lives for so long at most after it has begun to write.
const LIFE_MS_MAX: u64 = 120;
/// No session, and no wait for a process, takes longer.
const DEADLINE: Duration = Duration::from_secs(120);
/// Parts that a batch may have, for the marks of those that were seen.
type Parts = u32;

/// How many batches of each client were answered, by its number.
type Answered = BTreeMap<u64, u64>;

/// Cuts clients off, ends the server, and looks at what is there.
pub(super) fn run(rig: &Rig<'_>, checks: &mut Checklist) -> Result<(), Failure> {
    let options = rig.options;
    let level = rig.level;
    let mut server = rig.start("crowd", None)?;
    let address = server.address().to_owned();
    let sessions = options.processes..options.clients;
    let cutting = {
        let (address, seed) = (address.clone(), options.seed);
        rig.runtime.spawn(cut_sessions(address, seed, sessions))
    };
    let mut answered = kill_processes(&address, options.seed, options.processes)?;
    let (figures, by_sessions) = rig.runtime.block_on(cutting)??;
    answered.extend(by_sessions);
    let mut seen = Vec::new();
    for ends in 0..2 {
        let look = look(server.address(), options.seed, &answered);
        seen.push(rig.runtime.block_on(look)?);
        if ends == 0 {
            server.kill(DEADLINE)?;
            server = rig.start("crowd-again", Some(&address))?;
        }
    }
    server.stop(DEADLINE)?;
    let (before, after) = (&seen[0], &seen[1]);
    let detail = format!(
        "{} clients ({} killed as processes, {} cut, {} of these inside of a frame): {before}",
        options.clients, options.processes, figures.cuts, figures.in_frames
    );
    let name = format!("{level}: each batch is whole or absent, and nothing else is there");
    checks.check(&name, before.is_right(), detail);
    let name = format!("{level}: and so after the server was killed");
    checks.check(
        &name,
        after.is_right() && after == before,
        after.to_string(),
    );
    let name = format!("{level}: clients were cut off while they wrote");
    let cut = figures.cuts + options.processes;
    let detail = format!("{cut} of {}", options.clients);
    checks.check(&name, cut == options.clients && before.whole > 0, detail);
    Ok(())
}

/// Runs sessions through a proxy each, which cuts them once.
async fn cut_sessions(
    address: String,
    seed: u64,
    clients: std::ops::Range<u64>,
) -> Result<(Figures, Answered), Failure> {
    let room = Arc::new(Semaphore::new(SESSIONS));
    let mut sessions = JoinSet::new();
    let (mut figures, mut answered) = (Figures::default(), Answered::new());
    for client in clients {
        let permit = Arc::clone(&room).acquire_owned().await;
        let permit = permit.map_err(|error| Failure::new("sessions", error))?;
        let address = address.clone();
        sessions.spawn(async move {
            let session = tokio::time::timeout(DEADLINE, cut_session(&address, seed, client));
            let ended = session.await.map_err(|_elapsed| {
                Failure::Failed(format!("client {client} goes on after it was cut off"))
            });
            drop(permit);
            ended?.map(|(figures, count)| (figures, client, count))
        });
        while let Some(ended) = sessions.try_join_next() {
            let (cut, client, count) = ended??;
            figures = figures.and(cut);
            answered.insert(client, count);
        }
    }
    while let Some(ended) = sessions.join_next().await {
        let (cut, client, count) = ended??;
        figures = figures.and(cut);
        answered.insert(client, count);
    }
    Ok((figures, answered))
}

/// One session: writes until it is cut off; says how many batches were answered.
async fn cut_session(address: &str, seed: u64, client: u64) -> Result<(Figures, u64), Failure> {
    let plan = Plan {
        cuts: 1,
        up_bytes: (1, UP_BYTES_MAX),
        down_bytes: (1, DOWN_BYTES_MAX),
        once: true,
        seed: seed.wrapping_mul(31).wrapping_add(client),
    };
    let proxy = Proxy::start(address, plan).await?;
    let mut answered = 0;
    let ended = write_on(&proxy.address(), seed, client, |count| answered = count).await;
    let figures = proxy.figures();
    match ended {
        Err(error)
            if matches!(
                error.kind(),
                ErrorKind::Connection | ErrorKind::FlushFailed | ErrorKind::Timeout
            ) =>
        {
            Ok((figures, answered))
        }
        Err(error) => Err(Failure::new(
            format_args!("client {client} ended for another reason than its cut"),
            format!("{error} ({:?})", error.kind()),
        )),
        Ok(()) => Err(Failure::Failed(format!("client {client} came to an end"))),
    }
}

/// Starts clients as processes, one after the other, and kills each while it writes.
fn kill_processes(address: &str, seed: u64, count: u64) -> Result<Answered, Failure> {
    let mut rng = Rng::with_seed(seed);
    let mut answered = Answered::new();
    let program = std::env::current_exe().map_err(|error| Failure::new("this program", error))?;
    for client in 0..count {
        let mut command = Command::new(&program);
        command.args([TASK, address, &seed.to_string(), &client.to_string()]);
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let (mut process, output) =
            Process::start("a client", &mut command, |child| child.stdout.take())?;
        let output = output.ok_or_else(|| Failure::Failed("a client has no output".to_owned()))?;
        let counts = counts_of(output);
        let begun = counts.recv_timeout(DEADLINE);
        begun.map_err(|_silent| Failure::Failed(format!("client {client} does not begin")))?;
        let life = Duration::from_millis(rng.u64(..LIFE_MS_MAX));
        std::thread::park_timeout(life);
        process.kill(DEADLINE)?;
        // Its output ends with it.
        let last = counts.iter().last();
        answered.insert(client, last.unwrap_or(0));
    }
    Ok(answered)
}

/// The numbers that a process says, until it has ended.
fn counts_of(output: ChildStdout) -> Receiver<u64> {
    // A process says no more in its life.
    let (sender, receiver) = sync_channel(10_000);
    std::thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            if let Ok(count) = line.trim().parse::<u64>()
                && sender.send(count).is_err()
            {
                return;
            }
        }
    });
    receiver
}

/// A client process: says how many of its batches were answered, and goes on until it is killed.
pub(crate) fn client(arguments: &[String]) -> Result<(), Failure> {
    let [address, seed, number] = arguments else {
        return Err(Failure::Usage(format!("{TASK} is for `cuts` alone")));
    };
    let seed = crate::sizes::number(TASK, seed)?;
    let number = crate::sizes::number(TASK, number)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .map_err(|error| Failure::new("cannot start threads", error))?;
    let writing = write_on(address, seed, number, |count| say!("{count}"));
    Ok(runtime.block_on(writing)?)
}

/// What is in the table.
#[derive(Debug, Default, PartialEq, Eq)]
struct Seen {
    /// Batches that are there whole.
    whole: u64,
    /// Batches that are there in part, …
    torn: u64,
    /// … were answered and are not there, …
    lost: u64,
    /// … or are there though they were never sent, by what was answered before.
    early: u64,
    /// Entries that no batch has, or with another value.
    strange: u64,
    /// The first that is wrong.
    example: Option<String>,
}

impl Seen {
    fn is_right(&self) -> bool {
        self.torn + self.lost + self.early + self.strange == 0
    }
}

impl std::fmt::Display for Seen {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            out,
            "{} batches whole, {} in part, {} lost, {} never sent, {} strange entries{}",
            self.whole,
            self.torn,
            self.lost,
            self.early,
            self.strange,
            self.example.as_deref().unwrap_or_default()
        )
    }
}

/// Reads the table, and holds it against what clients were answered.
async fn look(address: &str, seed: u64, answered: &Answered) -> Result<Seen, Failure> {
    let client = Client::connect(address).await?;
    let table: Table = client.table(TABLE).existing().open().await?;
    let mut seen = Seen::default();
    let mut parts: BTreeMap<Name, Parts> = BTreeMap::new();
    let mut entries = table.iter();
    while let Some(entry) = entries.next().await {
        let (key, value) = entry?;
        let named = Name::of_key(&key)
            .filter(|(name, part)| *part < name.parts(seed) && value == name.value(seed, *part));
        match named {
            Some((name, part)) => *parts.entry(name).or_default() |= 1 << part,
            None => {
                let key = String::from_utf8_lossy(&key).into_owned();
                seen.strange += 1;
                seen.example.get_or_insert(format!("; {key}"));
            }
        }
    }
    client.shutdown().await?;
    judge(&mut seen, &parts, seed, answered);
    Ok(seen)
}

fn judge(seen: &mut Seen, parts: &BTreeMap<Name, Parts>, seed: u64, answered: &Answered) {
    for (name, found) in parts {
        let all = Parts::MAX >> (Parts::BITS - name.parts(seed) as u32);
        // The one after the last that was answered was under way.
        let sent = answered.get(&name.client).copied();
        if *found != all {
            seen.torn += 1;
            seen.example.get_or_insert(format!("; {name:?}"));
        } else if sent.is_none_or(|answered| name.batch > answered) {
            seen.early += 1;
            seen.example.get_or_insert(format!("; {name:?}"));
        } else {
            seen.whole += 1;
        }
    }
    for (&client, &count) in answered {
        for batch in 0..count {
            let name = Name { client, batch };
            if !parts.contains_key(&name) {
                seen.lost += 1;
                seen.example.get_or_insert(format!("; {name:?}"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(change: impl FnOnce(&mut BTreeMap<Name, Parts>)) -> Seen {
        let answered = Answered::from([(0, 2), (1, 0)]);
        let mut parts = BTreeMap::new();
        for (client, batch) in [(0, 0), (0, 1), (0, 2), (1, 0)] {
            let name = Name { client, batch };
            parts.insert(name, Parts::MAX >> (Parts::BITS - name.parts(7) as u32));
        }
        change(&mut parts);
        let mut seen = Seen::default();
        judge(&mut seen, &parts, 7, &answered);
        seen
    }

    #[test]
    fn whole_batches_that_were_answered_or_under_way_are_right() {
        let seen = judged(|_| ());
        assert!(seen.is_right() && seen.whole == 4, "{seen}");
        let none_under_way = judged(|parts| {
            parts.remove(&Name {
                client: 1,
                batch: 0,
            });
        });
        assert!(none_under_way.is_right(), "{none_under_way}");
    }

    #[test]
    fn torn_lost_and_made_up_batches_are_not() {
        let first = Name {
            client: 0,
            batch: 0,
        };
        assert_eq!(
            judged(|parts| *parts.get_mut(&first).unwrap() &= !2).torn,
            1
        );
        let lost = judged(|parts| {
            parts.remove(&first);
        });
        assert_eq!(lost.lost, 1);
        let never = Name {
            client: 1,
            batch: 1,
        };
        let all = Parts::MAX >> (Parts::BITS - never.parts(7) as u32);
        let early = judged(|parts| {
            parts.insert(never, all);
        });
        assert_eq!(early.early, 1);
    }
}
