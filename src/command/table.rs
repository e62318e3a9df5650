//! `rhash get`, `put`, `del`, `scan`, `len` and `close`: one table at a time.

use std::io::{self, BufRead, IsTerminal, Write};

use rhash_client::blocking::Client;
use rhash_server::args::DurabilityLevel;
use serde_json::json;

use super::typed::{no_such_table, open, open_or_create};
use crate::{
    cli,
    failure::{Failure, Outcome},
    output::{Output, count},
};

/// Prints the value of a key.
///
/// # Errors
/// There is no such key or table, or the client failed.
pub(crate) fn get(client: &Client, args: &cli::Get, out: &mut Output) -> Outcome {
    match open(client, &args.table)?.get(&args.key)? {
        Some(value) => Ok(out.json(&value)?),
        None => Err(Failure::plain(format!(
            "`{}` has no key `{}`",
            args.table, args.key
        ))),
    }
}

/// Sets the value of a key.
///
/// # Errors
/// The value does not fit the table, or the client failed.
pub(crate) fn put(client: &Client, args: &cli::Put) -> Outcome {
    let durability = args.durability.map(DurabilityLevel::level);
    open_or_create(client, &args.table, durability)?.put(&args.key, &args.value)
}

/// Removes a key.
///
/// # Errors
/// There is no such table, or the client failed.
pub(crate) fn del(client: &Client, args: &cli::Del) -> Outcome {
    open(client, &args.table)?.discard(&args.key)
}

/// Prints entries, one JSON object a line.
///
/// # Errors
/// There is no such table, or the client failed.
pub(crate) fn scan(client: &Client, args: &cli::Scan, out: &mut Output) -> Outcome {
    let table = open(client, &args.table)?;
    let mut left = args.limit.unwrap_or(u64::MAX);
    if left == 0 {
        return Ok(());
    }
    if args.keys {
        return table.each_key(&mut |key| {
            out.json(&json!({ "key": key }))?;
            left -= 1;
            Ok(left > 0)
        });
    }
    table.each_entry(&mut |key, value| {
        out.json(&json!({ "key": key, "value": value }))?;
        left -= 1;
        Ok(left > 0)
    })
}

/// Counts the entries of a table.
///
/// # Errors
/// There is no such table, or the client failed.
pub(crate) fn len(client: &Client, args: &cli::Len, out: &mut Output) -> Outcome {
    Ok(out.line(open(client, &args.table)?.len()?)?)
}

/// Frees a table, after asking if that is what is meant.
///
/// # Errors
/// There is no such table, nobody said yes, or the client failed.
pub(crate) fn close(client: &Client, args: &cli::Close) -> Outcome {
    let name = &args.table;
    let info = client
        .find_table(name)?
        .ok_or_else(|| no_such_table(name))?;
    if !args.yes {
        if !io::stdin().is_terminal() {
            return Err(Failure::plain(format!(
                "closing `{name}` frees all its entries for everybody; say --yes to do it"
            )));
        }
        let mut stderr = io::stderr();
        write!(
            stderr,
            "Free the table `{name}` with about {} entries, for everybody? [y/N] ",
            count(info.entries_estimate)
        )?;
        stderr.flush()?;
        let mut answer = String::new();
        io::stdin().lock().read_line(&mut answer)?;
        if !matches!(answer.trim(), "y" | "Y" | "yes") {
            return Err(Failure::plain(format!("`{name}` was left as it is")));
        }
    }
    Ok(client.close_table(name)?)
}
