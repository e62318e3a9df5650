//! All that one run tells: where it ran, with which settings, and what it gave.

use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;

use super::{
    data::{KEY_BYTES, POSTING_BYTES},
    figures::SetupFigures,
    machine::Machine,
    plan::Plan,
};

/// Settings of a run.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Settings {
    pub(crate) rounds: u32,
    pub(crate) key_bytes: usize,
    pub(crate) value_bytes: usize,
    pub(crate) posting_bytes: usize,
    pub(crate) batch_keys: usize,
    pub(crate) zipf_exponent: f64,
    pub(crate) get_seconds: f64,
    pub(crate) seed: u64,
}

/// A whole run.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Report {
    pub(crate) version: &'static str,
    /// When it ended.
    pub(crate) date: String,
    pub(crate) command: String,
    pub(crate) machine: Machine,
    pub(crate) settings: Settings,
    pub(crate) setups: Vec<SetupFigures>,
}

impl Report {
    /// The report of a run that ends now.
    pub(crate) fn new(plan: &Plan, setups: Vec<SetupFigures>) -> Self {
        let work = &plan.work;
        Self {
            version: env!("CARGO_PKG_VERSION"),
            date: date(SystemTime::now()),
            command: command(std::env::args()),
            machine: Machine::this(),
            settings: Settings {
                rounds: plan.rounds,
                key_bytes: KEY_BYTES,
                value_bytes: work.value_bytes,
                posting_bytes: POSTING_BYTES,
                batch_keys: work.batch_keys,
                zipf_exponent: work.zipf_exponent,
                get_seconds: work.get_time.as_secs_f64(),
                seed: work.seed,
            },
            setups,
        }
    }
}

/// A command line as a shell would take it again, without the way to the program.
fn command(args: impl Iterator<Item = String>) -> String {
    let quoted = |arg: String| {
        let is_plain = |letter: char| letter.is_alphanumeric() || "-_./:=,@%+".contains(letter);
        if !arg.is_empty() && arg.chars().all(is_plain) {
            arg
        } else {
            format!("'{}'", arg.replace('\'', "'\\''"))
        }
    };
    let rest: Vec<String> = args.skip(1).map(quoted).collect();
    format!("rhash {}", rest.join(" "))
}

/// The day and the minute, in UTC.
fn date(time: SystemTime) -> String {
    let seconds = time
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    let minutes = seconds / 60;
    // Counted in years that begin in March, so that a leap day is a year's last day.
    let days = minutes / (24 * 60) + 719_468;
    let era_day = days % 146_097;
    let era_year = (era_day - era_day / 1460 + era_day / 36_524 - era_day / 146_096) / 365;
    let year_day = era_day - (365 * era_year + era_year / 4 - era_year / 100);
    let month = (5 * year_day + 2) / 153;
    let day = year_day - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 {
        (month + 3, 0)
    } else {
        (month - 9, 1)
    };
    let year = days / 146_097 * 400 + era_year + next;
    let (hour, minute) = (minutes / 60 % 24, minutes % 60);
    format!("{year}-{month:02}-{day:02} {hour:02}:{minute:02} UTC")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (seconds, text) in [
            (0, "1970-01-01 00:00 UTC"),
            (951_782_400, "2000-02-29 00:00 UTC"),
            (1_709_251_199, "2024-02-29 23:59 UTC"),
            (1_798_761_600, "2027-01-01 00:00 UTC"),
        ] {
            assert_eq!(date(UNIX_EPOCH + Duration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn a_command_can_be_given_again() {
        let args = ["/some/where/rhash", "bench", "--html", "a page's.html"];
        assert_eq!(
            command(args.into_iter().map(str::to_owned)),
            "rhash bench --html 'a page'\\''s.html'"
        );
    }
}
