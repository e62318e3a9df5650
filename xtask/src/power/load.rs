//! The load of a power run: clients that write down when each step left and when it was answered.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use rhash_protocol::{Ops, Request, Response, TableId, TableKind};
use tokio::task::JoinSet;

use super::draws::Draws;
use super::journal::{COUNTERS, Journal, LISTS, OWN, StepNumber, TABLES, table_name};
use super::peer::{Peer, now_ns, unexpected};
use super::plan::{BALLAST_KEYS, Expected, Planned, plan, plan_ballast};
use crate::failure::Failure;

/// Clients that write at the same time.
pub(crate) const CLIENTS: u64 = 4;
/// The first client waits for each answer; the others have so many steps on their way.
const WINDOW: usize = 4;
/// A client makes no more than one step in this time, so that the trace stays small.
const PACE: Duration = Duration::from_millis(3);
/// One client asks for a sync after so many steps.
const SYNC_EVERY: StepNumber = 150;
/// Keys of the ballast in a batch.
const BALLAST_BATCH: u32 = 8;

/// What was done to a server.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) journals: Vec<Journal>,
    /// The tables that all share, and when each was there.
    pub(crate) shared: Vec<(String, u64)>,
    /// When the last answer had come.
    pub(crate) ended_ns: u64,
}

/// A client at work.
struct Client {
    peer: Peer,
    journal: Journal,
    draws: Draws,
    tables: [TableId; TABLES],
    on_the_way: VecDeque<(u64, StepNumber, Vec<Expected>)>,
    window: usize,
}

/// Loads a server for some time.
pub(crate) async fn load(address: &str, seed: u64, time: Duration) -> Result<Done, Failure> {
    let mut shared = Vec::new();
    let mut peer = Peer::connect(address).await?;
    for table in 0..OWN {
        let name = table_name(table, 0);
        peer.open(&name, kind_of(table)).await?;
        shared.push((name, now_ns()));
    }
    let mut clients = JoinSet::new();
    let until = Instant::now() + time;
    for number in 0..CLIENTS {
        let client = Client::connect(address, number, seed).await?;
        clients.spawn(client.run(until));
    }
    let mut journals = Vec::new();
    while let Some(ended) = clients.join_next().await {
        journals.push(ended??);
    }
    journals.sort_by_key(|journal| journal.client);
    Ok(Done {
        journals,
        shared,
        ended_ns: now_ns(),
    })
}

/// What the entries of a table are.
pub(crate) fn kind_of(table: usize) -> TableKind {
    match table {
        LISTS => TableKind::Lists,
        COUNTERS => TableKind::Counters,
        _ => TableKind::Values,
    }
}

impl Client {
    async fn connect(address: &str, number: u64, seed: u64) -> Result<Self, Failure> {
        let mut peer = Peer::connect(address).await?;
        let mut tables = [0; TABLES];
        for (table, id) in tables.iter_mut().enumerate().take(OWN) {
            *id = peer
                .open(&table_name(table, number), kind_of(table))
                .await?;
        }
        Ok(Self {
            peer,
            journal: Journal::new(number),
            draws: Draws::new(seed, number),
            tables,
            on_the_way: VecDeque::new(),
            window: if number == 0 { 1 } else { WINDOW },
        })
    }

    async fn run(mut self, until: Instant) -> Result<Journal, Failure> {
        let mut pace = tokio::time::interval(PACE);
        pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut ballast = 0;
        while Instant::now() < until {
            if u64::from(ballast) < BALLAST_KEYS {
                let keys = ballast..ballast + BALLAST_BATCH;
                let planned = Planned::Batch(plan_ballast(&mut self.journal, keys));
                self.step(planned).await?;
                ballast += BALLAST_BATCH;
            }
            let planned = plan(&mut self.journal, &mut self.draws);
            self.step(planned).await?;
            let syncs = self.journal.client == CLIENTS - 1;
            if syncs && self.journal.next_step().is_multiple_of(SYNC_EVERY) {
                self.sync().await?;
            }
            pace.tick().await;
        }
        self.drain().await?;
        Ok(self.journal)
    }

    async fn step(&mut self, planned: Planned) -> Result<(), Failure> {
        let batch = match planned {
            Planned::Batch(batch) => batch,
            other => return self.change_table(&other).await,
        };
        while self.on_the_way.len() >= self.window {
            self.receive().await?;
        }
        let step = self.journal.next_step();
        self.journal.sent(now_ns());
        let write = Request::Write {
            table: self.tables[batch.table],
            ops: Ops::new(batch.count, &batch.ops),
        };
        let request = self.peer.send(write).await?;
        self.on_the_way.push_back((request, step, batch.outcomes));
        Ok(())
    }

    async fn receive(&mut self) -> Result<(), Failure> {
        let (answered, answer) = self.peer.receive().await?;
        let acked_ns = now_ns();
        let next = self.on_the_way.pop_front();
        let Some((_, step, outcomes)) = next.filter(|(request, ..)| *request == answered) else {
            let text = format!("an answer to {answered}, where another was next");
            return Err(Failure::Failed(text));
        };
        match answer.response()? {
            Response::Written(is) => check_outcomes(&outcomes, is.iter().flatten())?,
            other => return Err(unexpected("a write", &other)),
        }
        self.journal.acked(step, acked_ns);
        Ok(())
    }

    async fn drain(&mut self) -> Result<(), Failure> {
        while !self.on_the_way.is_empty() {
            self.receive().await?;
        }
        Ok(())
    }

    /// Makes, clears or closes the own table, with nothing else on the way.
    async fn change_table(&mut self, planned: &Planned) -> Result<(), Failure> {
        self.drain().await?;
        let step = self.journal.next_step();
        self.journal.sent(now_ns());
        let table = self.tables[OWN];
        match planned {
            Planned::Clear => self.done(Request::Clear { table }).await?,
            Planned::Close => self.done(Request::Close { table }).await?,
            _ => {
                let name = table_name(OWN, self.journal.client);
                self.tables[OWN] = self.peer.open(&name, kind_of(OWN)).await?;
            }
        }
        self.journal.acked(step, now_ns());
        Ok(())
    }

    async fn sync(&mut self) -> Result<(), Failure> {
        self.drain().await?;
        self.done(Request::Sync).await?;
        self.journal.synced(now_ns());
        Ok(())
    }

    async fn done(&mut self, request: Request<'_>) -> Result<(), Failure> {
        match self.peer.call(request).await?.response()? {
            Response::Done => Ok(()),
            other => Err(unexpected("clearing, closing or syncing", &other)),
        }
    }
}

/// Holds what conditional operations came to against what they must.
pub(crate) fn check_outcomes<'a>(
    must: &[Expected],
    is: impl Iterator<Item = rhash_protocol::Outcome<'a>>,
) -> Result<(), Failure> {
    let is: Vec<_> = is.collect();
    let fits = must.len() == is.len() && must.iter().zip(&is).all(|(must, is)| must.is(is));
    match fits {
        true => Ok(()),
        false => Err(Failure::Failed(format!(
            "outcomes that cannot be: {} where {} were due, {is:?}",
            is.len(),
            must.len()
        ))),
    }
}
