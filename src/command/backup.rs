//! `rhash backup`: a copy of all named tables, made by the server.

use std::{path::Path, time::Duration};

use indicatif::{ProgressBar, ProgressStyle};
use rhash_client::{BackupInfo, blocking::Client};
use serde::Serialize;

use crate::{
    cli,
    failure::{Failure, Outcome},
    output::{Output, count, count_of, size},
};

/// How often the line that shows that something goes on is drawn anew.
const DRAW_EVERY: Duration = Duration::from_millis(125);

/// What was made, for programs.
#[derive(Debug, Serialize)]
struct Made<'a> {
    dir: &'a str,
    #[serde(flatten)]
    info: BackupInfo,
}

/// Has the server make a backup, and says what is in it.
///
/// # Errors
/// The path is none; those of the client.
pub(crate) fn run(client: &Client, args: &cli::Backup, out: &mut Output) -> Outcome {
    let dir = absolute(&args.dir)?;
    let info = {
        let _shown = Spinner::show("the server makes a backup");
        client.backup(&dir)?
    };
    if args.json {
        return Ok(out.json(&Made { dir: &dir, info })?);
    }
    Ok(out.line(line(&dir, &info))?)
}

/// The path as the server is to have it.
fn absolute(dir: &Path) -> Outcome<String> {
    let shown = dir.display();
    let absolute = std::path::absolute(dir)
        .map_err(|error| Failure::Usage(format!("{shown:?} is no path: {error}")))?;
    match absolute.into_os_string().into_string() {
        Ok(dir) => Ok(dir),
        Err(_not_utf8) => Err(Failure::Usage(format!("{shown} is not UTF-8"))),
    }
}

fn line(dir: &str, info: &BackupInfo) -> String {
    format!(
        "backed up {} as of record {} to {dir}: {} linked ({}), {} copied ({}), {} of log",
        count_of(info.tables, "table"),
        info.record,
        count_of(info.runs_linked, "run"),
        size(info.linked_bytes),
        count(info.runs_copied),
        size(info.copied_bytes),
        size(info.log_bytes),
    )
}

/// Shows on a terminal that something goes on, until it is dropped.
struct Spinner(ProgressBar);

impl Spinner {
    fn show(message: &'static str) -> Self {
        let bar = ProgressBar::new_spinner();
        if !bar.is_hidden() {
            if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} {elapsed_precise}") {
                bar.set_style(style);
            }
            bar.set_message(message);
            bar.enable_steady_tick(DRAW_EVERY);
        }
        Self(bar)
    }
}

impl Drop for Spinner {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_what_was_made() {
        let info = BackupInfo {
            record: 12_345,
            tables: 3,
            runs_linked: 12,
            linked_bytes: 1_288_490_189,
            runs_copied: 3,
            copied_bytes: 512 << 10,
            log_bytes: 40 << 10,
        };
        assert_eq!(
            line("/b", &info),
            "backed up 3 tables as of record 12345 to /b: 12 runs linked (1.2 GiB), 3 copied (512.0 KiB), 40.0 KiB of log"
        );
    }

    #[test]
    fn a_path_begins_where_the_command_runs() {
        assert_eq!(absolute(Path::new("/a/b")).unwrap(), "/a/b");
        let here = std::env::current_dir().unwrap();
        let expected = here.join("b").to_str().unwrap().to_owned();
        assert_eq!(absolute(Path::new("b")).unwrap(), expected);
        assert!(absolute(Path::new("")).is_err());
    }
}
