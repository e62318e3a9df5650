//! The `rhash` command: reads the command line, finds the server or starts one, runs one
//! subcommand, and ends with an exit code.

mod cli;
mod connection;
mod embedded;
mod interrupt;
mod failure;
mod output;
mod json;
mod context;
mod rank;
mod index;
mod bench;
mod command;

use std::{
    io::{self, IsTerminal},
    process::ExitCode,
};

use clap::Parser;

use self::{
    cli::{Cli, Command},
    command::{
        backup, bench as bench_command, index as index_command, search, serve, server_info, table,
        term, token,
    },
    connection::{Intent, Session},
    failure::Outcome,
    output::{Output, note},
};

fn main() -> ExitCode {
    rhash_server::allocator::give_back_soon();
    let cli = Cli::parse();
    match run(&cli) {
        Err(failure) if !failure.is_closed_pipe() => {
            note(&failure);
            ExitCode::from(failure.exit_code())
        }
        _ => ExitCode::SUCCESS,
    }
}

fn run(cli: &Cli) -> Outcome {
    log_warnings();
    match &cli.command {
        // These have servers of their own, or are one.
        Command::Bench(args) => {
            let mut out = Output::new();
            bench_command::run(&cli.place, args, &mut out)?;
            return Ok(out.flush()?);
        }
        Command::Serve(args) => return serve::run(&cli.place, args),
        Command::Token(args) => {
            let mut out = Output::new();
            token::run(args, &mut out)?;
            return Ok(out.flush()?);
        }
        _ => {}
    }
    let session = Session::open(&cli.place, intent(&cli.command))?;
    let mut out = Output::new();
    let outcome = dispatch(&session, &cli.command, &mut out);
    // What was found is shown even if something failed after it.
    let flushed = out.flush();
    // The server inside the command stops cleanly whatever happened, so that nothing is lost.
    let ended = session.end();
    outcome?;
    flushed?;
    ended
}

/// Whether a command may begin with an empty data directory.
fn intent(command: &Command) -> Intent {
    match command {
        Command::Index(_) | Command::Put(_) | Command::Ping(_) => Intent::Make,
        _ => Intent::Find,
    }
}

fn dispatch(session: &Session, command: &Command, out: &mut Output) -> Outcome {
    let client = session.client();
    match command {
        Command::Index(args) => index_command::run(session, args, out),
        Command::Search(args) => search::run(client, args, out),
        Command::Term(args) => term::run(client, args, out),
        Command::Get(args) => table::get(client, args, out),
        Command::Put(args) => table::put(client, args),
        Command::Del(args) => table::del(client, args),
        Command::Scan(args) => table::scan(client, args, out),
        Command::Len(args) => table::len(client, args, out),
        Command::Close(args) => table::close(client, args),
        Command::Tables(args) => server_info::tables(client, args, out),
        Command::Stats(args) => server_info::stats(client, args, out),
        Command::Ping(args) => server_info::ping(client, args, out),
        Command::Backup(args) => backup::run(client, args, out),
        Command::Bench(_) | Command::Serve(_) | Command::Token(_) => Ok(()),
    }
}

/// The server inside this command logs what goes wrong, and no more. What goes wrong with the
/// client is in the error that the command ends with.
fn log_warnings() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("RHASH_LOG")
        .unwrap_or_else(|_unset| tracing_subscriber::EnvFilter::new("rhash_server=warn"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(io::stderr().is_terminal())
        .with_writer(io::stderr)
        .init();
}
