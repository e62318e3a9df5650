//! What a test of abuse needs: somebody else who uses the server meanwhile, and an eye on what the
//! server takes.

use std::{
    fs,
    net::SocketAddr,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use rhash_protocol::{LimitInfo, Request, Response, Stats};
use tokio::{net::TcpStream, time::sleep};

use super::{DEADLINE, Peer, ServerProcess, TestResult};

/// What a server of these tests may take.
pub(crate) const MEM_LIMIT: &str = "64M";

/// Threads for requests that may touch the disk end when they have had nothing to do for 10 s; at full
/// scale that is waited for.
const BLOCKING_THREADS: usize = 8;

/// How long the bystander is measured on a quiet server; at full scale abuse lasts a good part of that, too,
/// or a p99 would be that of a few hundred answers.
fn spell() -> Duration {
    Duration::from_millis(if is_full() { 4000 } else { 500 })
}

/// At full scale the p99 of others may be so many times that beside a server under the same abuse.
const P99_FACTOR: f64 = 2.0;

/// So often each of the two is measured at least, in turn, and until others had so many answers under
/// it: a p99 of fewer is that of a handful of answers.
const ROUNDS_MIN: usize = 4;
const ANSWERS_MIN: usize = 10_000;
const ROUNDS_MAX: usize = 20;

/// At any scale, nobody waits longer for an answer.
pub(crate) const WAIT_MAX: Duration = Duration::from_secs(5);

/// Whether all is done as often as it is meant to be, or as often as a test has time for.
fn is_full() -> bool {
    std::env::var_os("RHASH_HOSTILE").is_some_and(|value| value == "full")
}

pub(crate) fn scaled(full: usize, short: usize) -> usize {
    if is_full() { full } else { short }
}

/// What a server has of what the system counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Resources {
    descriptors: usize,
    threads: usize,
}

impl Resources {
    fn of(server: &ServerProcess) -> TestResult<Self> {
        let count = |what: &str| -> TestResult<usize> {
            Ok(fs::read_dir(format!("/proc/{}/{what}", server.id()))?.count())
        };
        Ok(Self {
            descriptors: count("fd")?,
            threads: count("task")?,
        })
    }
}

/// A connection, once the server has one to give: those of the last abuse may not all have ended.
pub(crate) async fn connect_in_the_end(address: SocketAddr) -> TestResult<Peer> {
    let began = Instant::now();
    loop {
        let greeted = match TcpStream::connect(address).await {
            Ok(stream) => Peer::greet_over(stream, None, "").await,
            Err(error) => Err(error.into()),
        };
        let text = match greeted {
            Ok(Ok(peer)) => return Ok(peer),
            Ok(Err(refusal)) => refusal.text,
            Err(error) => error.to_string(),
        };
        if began.elapsed() > DEADLINE {
            return Err(text.into());
        }
        sleep(Duration::from_millis(20)).await;
    }
}

/// A client like any other, in a thread of its own, that gets a value over and over.
struct Bystander {
    stop: Arc<AtomicBool>,
    memory_bytes_max: Arc<AtomicU64>,
    thread: thread::JoinHandle<Result<Vec<Duration>, String>>,
}

impl Bystander {
    fn start(server: &ServerProcess) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let memory_bytes_max = Arc::new(AtomicU64::new(0));
        let (address, id) = (server.address, server.id());
        let (stopped, memory) = (Arc::clone(&stop), Arc::clone(&memory_bytes_max));
        let (here, is_here) = mpsc::channel();
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .map_err(|error| error.to_string())?;
            let watched = runtime.block_on(async {
                let mut peer = connect_in_the_end(address).await?;
                let (table, _) = peer.open(Some("bystander")).await?;
                peer.put(table, b"key", &[7; 100]).await?;
                // Nobody may listen any more, which is no failure.
                let _sent = here.send(());
                let mut times = Vec::new();
                while !stopped.load(Relaxed) {
                    let began = Instant::now();
                    let value = peer.get(table, b"key").await?;
                    times.push(began.elapsed());
                    if value.as_deref() != Some(&[7; 100]) {
                        return Err(format!("a wrong value: {value:?}").into());
                    }
                    if times.len().is_multiple_of(64) {
                        memory.fetch_max(anonymous_bytes(id)?, Relaxed);
                    }
                    // Many clients ask now and then, and not one all the time.
                    sleep(Duration::from_micros(200)).await;
                }
                TestResult::Ok(times)
            });
            watched.map_err(|error| error.to_string())
        });
        // One that cannot come says so when it is stopped.
        let _came = is_here.recv();
        Self {
            stop,
            memory_bytes_max,
            thread,
        }
    }

    fn stop(self) -> TestResult<Vec<Duration>> {
        self.stop.store(true, Relaxed);
        let times = self
            .thread
            .join()
            .map_err(|_panic| "the bystander panicked")?;
        Ok(times?)
    }
}

/// What counts against a memory limit.
fn anonymous_bytes(id: u32) -> TestResult<u64> {
    let status = fs::read_to_string(format!("/proc/{id}/status"))?;
    let kib = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let number = line.and_then(|line| line.trim().strip_suffix(" kB"));
        number
            .and_then(|number| number.parse::<u64>().ok())
            .unwrap_or(0)
    };
    Ok((kib("RssAnon:") + kib("RssShmem:")) * 1024)
}

/// What somebody saw who used a server.
#[derive(Default)]
struct Seen {
    /// In order.
    times: Vec<Duration>,
    memory_bytes_max: u64,
}

impl Seen {
    fn p99(&self) -> Duration {
        let last = self.times.len().saturating_sub(1);
        let at = (self.times.len() * 99 / 100).min(last);
        self.times.get(at).copied().unwrap_or_default()
    }

    fn worst(&self) -> Duration {
        self.times.last().copied().unwrap_or_default()
    }

    /// Adds what was seen at another time.
    fn add(&mut self, other: Self) {
        self.times.extend(other.times);
        self.times.sort_unstable();
        self.memory_bytes_max = self.memory_bytes_max.max(other.memory_bytes_max);
    }

    /// Whether nobody waited too long, and the server kept its limit.
    fn check(&self, name: &str, limit_bytes: u64) {
        let (bytes, worst) = (self.memory_bytes_max, self.worst());
        assert!(bytes <= limit_bytes, "{name}: {bytes} bytes");
        assert!(worst <= WAIT_MAX, "{name}: somebody waited {worst:?}");
    }
}

/// Does something while somebody uses a server.
async fn meanwhile(
    server: &ServerProcess,
    work: impl Future<Output = TestResult>,
) -> TestResult<Seen> {
    let bystander = Bystander::start(server);
    let worked = work.await;
    let memory_bytes_max = bystander.memory_bytes_max.load(Relaxed);
    let mut times = bystander
        .stop()
        .map_err(|error| format!("the bystander: {error}"))?;
    worked?;
    times.sort_unstable();
    Ok(Seen {
        times,
        memory_bytes_max,
    })
}

/// Does something bad to a server while somebody else uses it, and sees that nothing comes of it.
///
/// At full scale it is done again and again. In turn to this server and to one beside it, since abuse
/// takes processor time of those who share its cores, whomever it is done to: what others wait longer
/// is this server's own doing. And at last at the least priority, as if it came from another host,
/// which takes no processor time of this one.
#[expect(clippy::print_stdout, reason = "the figures are what it is run for")]
pub(crate) async fn hold(
    name: &str,
    start: impl Fn() -> TestResult<ServerProcess>,
    mut attack: impl AsyncFnMut(&ServerProcess) -> TestResult,
) -> TestResult {
    let failed = |error| format!("{name}: {error}");
    let server = start()?;
    let quiet = meanwhile(&server, async {
        sleep(spell()).await;
        Ok(())
    });
    let quiet = quiet.await.map_err(failed)?;
    let mut observer = Peer::connect(&server).await?;
    let before = settled(&server, &mut observer, None).await?;
    let limit_bytes = stats(&mut observer).await?.mem_limit_bytes;
    let began = Instant::now();
    let mut attack = async |server: &ServerProcess| {
        let began = Instant::now();
        loop {
            attack(server).await?;
            if !is_full() || began.elapsed() >= spell() / 4 {
                return TestResult::Ok(());
            }
        }
    };
    let mut under = meanwhile(&server, attack(&server)).await.map_err(failed)?;
    let took = began.elapsed();
    let after = settled(&server, &mut observer, Some(before))
        .await
        .map_err(failed)?;

    println!(
        "{name}: {took:.1?}; p99 {:.2?} quiet, {:.2?} under it, worst {:.1?} of {}; {:.1} MiB of \
         {:.0}; {before:?}, {after:?} after it",
        quiet.p99(),
        under.p99(),
        under.worst(),
        under.times.len(),
        mib(under.memory_bytes_max),
        mib(limit_bytes),
    );
    under.check(name, limit_bytes);
    if is_full() {
        let mut beside = Seen::default();
        for round in 0..ROUNDS_MAX {
            if round >= ROUNDS_MIN && under.times.len() >= ANSWERS_MIN {
                break;
            }
            if round > 0 {
                under.add(meanwhile(&server, attack(&server)).await.map_err(failed)?);
                let back = settled(&server, &mut observer, Some(before)).await;
                back.map_err(failed)?;
            }
            let other = start()?;
            beside.add(meanwhile(&server, attack(&other)).await.map_err(failed)?);
        }
        under.check(name, limit_bytes);
        // IMPORTANT: last, since not everybody may take this back.
        let afar = meanwhile(&server, async {
            lower_priority()?;
            attack(&server).await
        });
        let afar = afar.await.map_err(failed)?;
        let factor = |to: &Seen| under.p99().as_secs_f64() / to.p99().as_secs_f64();
        println!(
            "{name}: p99 {:.2?} of {} under it, {:.2?} beside a server under it, {:.2?} if it is of the least \
             priority; {:.1} times the quiet one, {:.1} times that beside",
            under.p99(),
            under.times.len(),
            beside.p99(),
            afar.p99(),
            factor(&quiet),
            factor(&beside),
        );
        assert!(
            factor(&beside) <= P99_FACTOR,
            "{name}: more than {P99_FACTOR} times that beside a server under it"
        );
    }
    Ok(())
}

/// Lets this thread run where nobody else wants to.
fn lower_priority() -> TestResult {
    let thread = fs::read_link("/proc/thread-self")?;
    let id = thread.file_name().ok_or("no thread")?.to_owned();
    let status = Command::new("renice")
        .args(["-n", "19", "-p"])
        .arg(id)
        .status()?;
    if status.success() {
        Ok(())
    } else {
        Err("the priority could not be lowered".into())
    }
}

/// Waits until connections are gone but the observer's, and descriptors and threads are no more than
/// they were.
async fn settled(
    server: &ServerProcess,
    observer: &mut Peer,
    before: Option<Resources>,
) -> TestResult<Resources> {
    let began = Instant::now();
    loop {
        let now = Resources::of(server)?;
        let is_back = before.is_none_or(|before| {
            let threads = before.threads + if is_full() { 0 } else { BLOCKING_THREADS };
            now.descriptors <= before.descriptors && now.threads <= threads
        });
        let connections = match is_back {
            true => limit(observer, "connections").await?.used,
            false => None,
        };
        if connections == Some(1) {
            return Ok(now);
        }
        if began.elapsed() > DEADLINE {
            return Err(format!("{connections:?} connections, {now:?} of {before:?}").into());
        }
        // Each look is a request that keeps a thread from ending that is for these.
        sleep(Duration::from_millis(if is_full() { 500 } else { 10 })).await;
    }
}

async fn stats(peer: &mut Peer) -> TestResult<Stats> {
    match peer.call(Request::Stats).await?.response()? {
        Response::Stats(stats) => Ok(*stats),
        response => Err(format!("{response:?}").into()),
    }
}

async fn limit(peer: &mut Peer, name: &str) -> TestResult<LimitInfo> {
    let limits = stats(peer).await?.limits;
    let found = limits.into_iter().find(|limit| limit.name == name);
    Ok(found.ok_or_else(|| format!("no limit {name}"))?)
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / (1 << 20) as f64
}

pub(crate) fn start(args: &[&str]) -> TestResult<ServerProcess> {
    let small = ["--memory-only", "--mem-limit", MEM_LIMIT];
    ServerProcess::start(&[&small[..], args].concat())
}
