//! The main job under cuts: `rhash index` reads text while its connection is cut and its server is killed, and what
//! it built equals what it builds in peace.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::index::{all_differing, read};
use super::proxy::{Plan, Proxy};
use super::rig::Rig;
use crate::checklist::Checklist;
use crate::failure::Failure;
use crate::process::Process;
use crate::{place, step};

/// A connection carries at least so much before it is cut, so that the longest batches get through, …
const UP_BYTES: (u64, u64) = (250 << 10, 1000 << 10);
/// … and lives for so many bytes of answers, which are more than a greeting.
const DOWN_BYTES: (u64, u64) = (400, 1200);
/// The server is killed after so many cuts, …
const CUTS_A_KILL: u64 = 4;
/// … but not more often than this.
const KILLS_MAX: u64 = 10;
/// How often it is looked whether the server is to be killed.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// No build takes longer.
const DEADLINE: Duration = Duration::from_secs(1800);

/// Builds an index twice, and compares.
pub(super) fn run(rig: &Rig<'_>, checks: &mut Checklist) -> Result<(), Failure> {
    let mut server = rig.start("command", None)?;
    let address = server.address().to_owned();
    let plan = Plan {
        cuts: u64::MAX,
        up_bytes: UP_BYTES,
        down_bytes: DOWN_BYTES,
        once: false,
        seed: rig.options.seed,
    };
    let proxy = rig.runtime.block_on(Proxy::start(&address, plan))?;
    let mut indexing = start(rig, &proxy.address(), "command")?;
    let (began, mut kills) = (Instant::now(), 0);
    let status = loop {
        match indexing.wait(LOOK_EVERY) {
            Ok(status) => break status,
            Err(failure) if began.elapsed() > DEADLINE => return Err(failure),
            Err(_goes_on) => {}
        }
        if kills < KILLS_MAX && proxy.figures().cuts >= CUTS_A_KILL * (kills + 1) {
            server.kill(DEADLINE)?;
            server = rig.start(&format!("command-{kills}"), Some(&address))?;
            kills += 1;
        }
    };
    let figures = proxy.figures();
    let seconds = began.elapsed().as_secs_f64();
    let name = format!("{}: `rhash index` goes on over cuts and kills", rig.level);
    let detail = format!(
        "{status}; {} cuts, {kills} kills, {seconds:.1} s; see {}",
        figures.cuts,
        rig.stage.join("command.out").display()
    );
    checks.check(&name, status.success() && figures.cuts > 0, detail);
    let cut = rig.runtime.block_on(read(address))?;
    server.stop(DEADLINE)?;

    let mut server = rig.start("calm", None)?;
    let status = start(rig, server.address(), "calm")?.wait(DEADLINE)?;
    let uncut = rig.runtime.block_on(read(server.address().to_owned()))?;
    server.stop(DEADLINE)?;
    let differing = all_differing(&cut, &uncut);
    let [_, documents, terms] = uncut.each_ref().map(std::collections::BTreeMap::len);
    let example = differing.first().map(String::as_str).unwrap_or_default();
    let name = format!("{}: what it built is what it builds in peace", rig.level);
    let detail = format!(
        "{} entries of {documents} documents and {terms} terms differ {example}",
        differing.len()
    );
    let is_equal = differing.is_empty() && status.success() && documents > 0;
    checks.check(&name, is_equal, detail);
    Ok(())
}

/// Starts the command.
fn start(rig: &Rig<'_>, address: &str, name: &str) -> Result<Process, Failure> {
    let path = rig.stage.join(format!("{name}.out"));
    let output = File::create(&path).map_err(|error| Failure::new(path.display(), error))?;
    let errors = output
        .try_clone()
        .map_err(|error| Failure::new(path.display(), error))?;
    let mut command = Command::new(rig.binaries.join("rhash"));
    command.args(["--server", address, "index"]);
    command.args(corpus(rig)?);
    command.stdin(Stdio::null()).stdout(output).stderr(errors);
    Ok(Process::start("rhash index", &mut command, |_| ())?.0)
}

/// What is indexed.
fn corpus(rig: &Rig<'_>) -> Result<Vec<PathBuf>, Failure> {
    if let Some(path) = &rig.options.corpus {
        return Ok(vec![place::absolute(path)?]);
    }
    let home = std::env::var_os("CARGO_HOME").map_or_else(
        || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cargo"),
        PathBuf::from,
    );
    let crates = home.join("registry/src");
    if !rig.options.quick && crates.is_dir() {
        return Ok(vec![crates]);
    }
    let sources = ["client", "protocol", "server", "src", "tests", "xtask/src"];
    Ok(sources.map(|name| step::root().join(name)).to_vec())
}
