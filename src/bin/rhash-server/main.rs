//! The `rhash-server` command: a runtime, a log, and a server that stops when it is told to.

mod examine;

use std::{
    error::Error,
    io::{self, IsTerminal as _, Write as _},
    process::ExitCode,
};

use clap::{CommandFactory as _, Parser as _, error::ErrorKind};
use rhash_server::{
    allocator,
    args::{Args, LogFormat, LogLevel},
    config::Config,
    embed::{self, Handle, Server, ServerError},
};
use tokio::signal::unix::{SignalKind, signal};

fn main() -> ExitCode {
    allocator::without_thread_caches();
    allocator::give_back_soon();
    let args = Args::parse();
    log_to_standard_error(args.log, args.log_format);
    let (check, repair, json) = (args.check, args.repair, args.json);
    if json && !check && !repair {
        let error = "--json tells what --check or --repair found; give one of them";
        Args::command()
            .error(ErrorKind::MissingRequiredArgument, error)
            .exit();
    }
    let config = match Config::from_args(args) {
        Ok(config) => config,
        // Prints it with the usage, and exits as clap does for any other mistake.
        Err(error) => Args::command()
            .error(ErrorKind::ValueValidation, error)
            .exit(),
    };
    let done = if check {
        examine::run_check(&config.store, json)
    } else if repair {
        examine::run_repair(&config.store, json)
    } else {
        run(config).map(|()| true)
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            // Standard error is the last resort; where it is gone, the exit code says enough.
            drop(writeln!(
                io::stderr(),
                "rhash-server: {}",
                with_causes(&*error)
            ));
            match error.downcast_ref() {
                Some(
                    ServerError::Exposed { .. } | ServerError::Tokens(_) | ServerError::Tls(_),
                ) => ExitCode::from(2),
                _ => ExitCode::FAILURE,
            }
        }
    }
}

fn with_causes(error: &dyn Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !line.contains(&more) {
            line.push_str(&format!(": {more}"));
        }
        cause = error.source();
    }
    line
}

fn run(config: Config) -> Result<(), Box<dyn Error>> {
    embed::runtime()?.block_on(serve(config))
}

async fn serve(config: Config) -> Result<(), Box<dyn Error>> {
    // Before anybody can know of the server, so that no signal is missed.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    let server = Server::start(config).await?;
    if let Err(error) = announce(&server) {
        tracing::warn!(%error, "standard output is gone; serving all the same");
    }
    loop {
        tokio::select! {
            _ = terminate.recv() => break tracing::info!("SIGTERM: stopping"),
            _ = interrupt.recv() => break tracing::info!("SIGINT: stopping"),
            _ = hang_up.recv() => if let Err(error) = server.reload().await {
                let error = with_causes(&error);
                tracing::error!(error, "tokens and certificates stay as they were");
            },
        }
    }
    let stopped = server.stop();
    tokio::select! {
        stopped = stopped => Ok(stopped?),
        // Whoever asks twice does not want to wait for the disk.
        _ = interrupt.recv() => Err("stopped at once, as asked twice".into()),
    }
}

/// Says that the server is ready, and where.
fn announce(server: &Handle) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "listening on {}", server.local_addr())?;
    if let Some(address) = server.metrics_addr() {
        writeln!(out, "metrics on {address}")?;
    }
    out.flush()
}

fn log_to_standard_error(level: LogLevel, format: LogFormat) {
    let log = tracing_subscriber::fmt()
        .with_max_level(level.filter())
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal() && format == LogFormat::Text)
        .with_target(false);
    match format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().flatten_event(true).init(),
    }
}
