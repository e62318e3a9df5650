//! What both parts of the task share: servers at one level of durability, on directories of their own.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use tokio::runtime::Runtime;

use super::options::Options;
use crate::failure::Failure;
use crate::server::Server;

/// No start takes longer.
const DEADLINE: Duration = Duration::from_secs(120);

/// Starts servers.
pub(super) struct Rig<'a> {
    pub(super) options: &'a Options,
    pub(super) level: &'a str,
    pub(super) binaries: &'a Path,
    pub(super) stage: &'a Path,
    pub(super) runtime: &'a Runtime,
}

impl Rig<'_> {
    /// Starts a server on the directory that belongs to the first word of `name`; at an address where an earlier
    /// one was, or at any.
    pub(super) fn start(&self, name: &str, address: Option<&str>) -> Result<Server, Failure> {
        let data = name.split('-').next().unwrap_or(name);
        let mut command = Command::new(self.binaries.join("rhash-server"));
        command
            .arg("--mem-limit")
            .arg(self.options.mem_limit_bytes.to_string());
        command.args(["--durability", self.level, "--log", "warn"]);
        // A log that is cut now and then.
        command.args(["--log-limit", "16M"]);
        command.arg("--data").arg(self.stage.join(data));
        let log = self.stage.join(format!("{name}.log"));
        let mut server = match address {
            Some(address) => Server::start_at(&mut command, address, &log)?,
            None => Server::start(&mut command, &log)?,
        };
        server.wait_until_ready(DEADLINE)?;
        Ok(server)
    }
}
