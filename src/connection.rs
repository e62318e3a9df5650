//! The way to the tables: a server elsewhere, or one inside this command.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use rhash_client::{ErrorKind, blocking::Client};

use crate::{
    cli::Place,
    embedded::{Embedded, Keep},
    failure::{Failure, Outcome},
};

/// What the client's cache may hold. Commands run once, so there is little to find again.
const CACHE_BYTES: usize = 4 * 1024 * 1024;
/// What may be sent and not answered: enough to keep a server busy, and little beside the memory of
/// one that runs inside this command.
const IN_FLIGHT_BYTES: usize = 2 * 1024 * 1024;
/// How long a server that does not answer is tried again.
const RETRY_DEADLINE: Duration = Duration::from_secs(5);
/// Where the data directory is, unless `--data` says otherwise.
const DATA_DIR: &str = "./data";

/// Whether a command makes tables, or can only find those that there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Intent {
    Make,
    Find,
}

/// A connected client, and the server if it is ours.
#[derive(Debug)]
pub(crate) struct Session {
    client: Client,
    embedded: Option<Embedded>,
    /// Where the server inside this command keeps its data.
    data_directory: Option<PathBuf>,
}

impl Session {
    /// Connects to the server that the options name, or starts one.
    ///
    /// # Errors
    /// There is no server at that address, or none can be started.
    pub(crate) fn open(place: &Place, intent: Intent) -> Outcome<Self> {
        if let Some(address) = &place.server {
            return Ok(Self {
                client: connect(address, place)?,
                embedded: None,
                data_directory: None,
            });
        }
        let data = place
            .data
            .clone()
            .unwrap_or_else(|| PathBuf::from(DATA_DIR));
        if intent == Intent::Find && !data.is_dir() {
            return Err(Failure::plain(format!(
                "there is no data directory at {}: build an index there with `rhash index PATH`, \
                 name another with --data, or a server with --server",
                data.display()
            )));
        }
        let embedded = Embedded::start(Keep::In(data.clone()), place.mem_limit)?;
        let client = match connect(&embedded.address(), place) {
            Ok(client) => client,
            Err(failure) => {
                embedded.stop()?;
                return Err(failure);
            }
        };
        Ok(Self {
            client,
            embedded: Some(embedded),
            data_directory: Some(data),
        })
    }

    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// The data directory of the server inside this command, if there is one.
    pub(crate) fn data_directory(&self) -> Option<&Path> {
        self.data_directory.as_deref()
    }

    /// Lets go of the server, or stops the one inside this command cleanly.
    ///
    /// # Errors
    /// What was written last did not arrive, or could not be kept.
    pub(crate) fn end(self) -> Outcome {
        let shut_down = self.client.shutdown();
        if let Some(embedded) = self.embedded {
            embedded.stop()?;
        }
        Ok(shut_down?)
    }
}

fn connect(address: &str, place: &Place) -> Outcome<Client> {
    let mut builder = Client::builder()
        .cache_bytes(CACHE_BYTES)
        .in_flight_bytes(IN_FLIGHT_BYTES)
        .retry_deadline(RETRY_DEADLINE);
    if let Some(file) = &place.token_file {
        builder = builder.token_file(file);
    }
    if let Some(file) = &place.ca {
        builder = builder.tls_ca(file);
    }
    if let (Some(cert), Some(key)) = (&place.client_cert, &place.client_key) {
        builder = builder.tls_identity(cert, key);
    }
    builder
        .client_name("rhash")
        .connect(address)
        .map_err(|error| match error.kind() {
            ErrorKind::Usage => Failure::Usage(format!("--server {error}")),
            _ => error.into(),
        })
}
