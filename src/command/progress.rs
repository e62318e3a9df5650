//! Shows on a terminal how an index run goes on: what was read, how fast, and what it costs the
//! server. Where the standard error is no terminal, nothing is shown.

use std::{
    sync::mpsc::{Receiver, RecvTimeoutError},
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};
use rhash_client::blocking::Client;

use crate::{
    index::figures::Figures,
    output::{count, megabytes, per_second, size},
};

/// How often the line is drawn anew, and the server asked.
const EVERY: Duration = Duration::from_millis(500);

/// Shows progress until the other end of `done` is dropped.
pub(crate) fn show(client: &Client, figures: &Figures, done: &Receiver<()>) {
    let bar = ProgressBar::new_spinner();
    if bar.is_hidden() {
        return;
    }
    if let Ok(style) =
        ProgressStyle::with_template("{spinner} {wide_msg} {elapsed_precise}\n  {prefix}")
    {
        bar.set_style(style);
    }
    let mut last = Instant::now();
    let mut last_bytes = 0;
    let mut last_postings = 0;
    while done.recv_timeout(EVERY) == Err(RecvTimeoutError::Timeout) {
        let bytes = Figures::get(&figures.bytes);
        let postings = Figures::get(&figures.postings_sent);
        let passed = last.elapsed();
        let megabytes_each = per_second(megabytes(bytes.saturating_sub(last_bytes)), passed);
        let postings_each = per_second(postings.saturating_sub(last_postings) as f64, passed);
        (last, last_bytes, last_postings) = (Instant::now(), bytes, postings);
        bar.set_message(format!(
            "{} documents  {:.1} MB  {megabytes_each:.1} MB/s  {} postings/s",
            count(Figures::get(&figures.documents)),
            megabytes(bytes),
            count(postings_each as u64),
        ));
        // On a line of its own: both do not fit a terminal of 80 columns.
        bar.set_prefix(server_figures(client));
        bar.tick();
    }
    bar.finish_and_clear();
}

/// The server's memory and disk in use; nothing while it does not answer.
fn server_figures(client: &Client) -> String {
    client.stats().map_or_else(
        |_silent| String::new(),
        |stats| {
            format!(
                "memory {} of {}  disk {}",
                size(stats.resident_bytes),
                size(stats.mem_limit_bytes),
                size(stats.disk_bytes)
            )
        },
    )
}
