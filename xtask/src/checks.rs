//! `cargo xtask test` and `cargo xtask lint`: what is checked, in which order.

use std::time::Duration;

use crate::failure::Failure;
use crate::python;
use crate::step::{cargo, python as python3, run};

/// No single step takes longer, or something hangs.
const STEP_LIMIT: Duration = Duration::from_secs(30 * 60);
/// The same for the long model tests.
const LONG_STEP_LIMIT: Duration = Duration::from_secs(6 * 60 * 60);

/// Sequences of each model test under `--long`.
const LONG_SEQUENCES: &str = "5000";
/// Rounds of opening, filling and closing a table under `--long`.
const LONG_ROUNDS: &str = "1000";
/// The table that is closed within a second under `--long`.
const LONG_CLOSE_BYTES: &str = "5368709120";

/// What `cargo xtask test` was asked for.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct TestOptions {
    long: bool,
    release: bool,
}

impl TestOptions {
    /// Reads the options of `test` and `ci`.
    pub(crate) fn parse(arguments: &[String]) -> Result<Self, Failure> {
        let mut options = Self::default();
        for argument in arguments {
            match argument.as_str() {
                "--long" => options.long = true,
                "--release" => options.release = true,
                other => return Err(Failure::Usage(format!("test has no option `{other}`"))),
            }
        }
        Ok(options)
    }
}

/// All tests.
pub(crate) fn test(options: &TestOptions) -> Result<(), Failure> {
    let limit = if options.long {
        LONG_STEP_LIMIT
    } else {
        STEP_LIMIT
    };
    let cargo_test = |kind: &[&str]| {
        let mut command = cargo();
        command
            // The benches bring other stores along; their harness is tested like the rest.
            .args(["test", "--workspace", "--exclude=rhash-benches", "--exclude=mivrhash"])
            .args(kind)
            .env("RUST_BACKTRACE", "1");
        if options.long {
            command
                .env("RHASH_MODEL_SEQUENCES", LONG_SEQUENCES)
                .env("RHASH_ROUNDS", LONG_ROUNDS)
                .env("RHASH_CLOSE_BYTES", LONG_CLOSE_BYTES);
        }
        if options.release {
            command.arg("--release");
        }
        command
    };
    run("tests", &mut cargo_test(&["--all-targets"]), limit)?;
    run("examples in the docs", &mut cargo_test(&["--doc"]), limit)?;
    run(
        "self-tests of the independent programs",
        python3().args([
            "-m",
            "unittest",
            "discover",
            "--start-directory",
            "tests/independent",
        ]),
        STEP_LIMIT,
    )?;
    python::test(options.release, limit)
}

/// The tests of abuse, at full scale and on a release build.
pub(crate) fn hostile() -> Result<(), Failure> {
    let mut command = cargo();
    command
        .args(["test", "--release", "--package", "rhash"])
        .args(["--test", "server_hostile", "--"])
        .args(["--nocapture", "--test-threads=1"])
        .env("RHASH_HOSTILE", "full");
    run("abuse at full scale", &mut command, STEP_LIMIT)
}

/// Format, lints and documentation.
pub(crate) fn lint() -> Result<(), Failure> {
    run(
        "format",
        cargo().args(["fmt", "--all", "--check"]),
        STEP_LIMIT,
    )?;
    run(
        "lints",
        cargo().args([
            "clippy",
            "--workspace",
            "--exclude=rhash-benches",
            "--all-targets",
            "--",
            "-D",
            "warnings",
        ]),
        STEP_LIMIT,
    )?;
    // The command's package is documented apart: its binary rhash-server and the library of that name
    // would write to the same directory.
    for (name, packages) in [
        (
            "documentation",
            ["--workspace", "--exclude=rhash", "--exclude=rhash-benches"].as_slice(),
        ),
        (
            "documentation of the command",
            &["--package=rhash", "--bin=rhash"],
        ),
    ] {
        let mut command = cargo();
        command
            .args(["doc", "--no-deps"])
            .args(packages)
            .env("RUSTDOCFLAGS", "-D warnings");
        run(name, &mut command, STEP_LIMIT)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Result<TestOptions, Failure> {
        TestOptions::parse(
            &words
                .iter()
                .map(|word| (*word).to_owned())
                .collect::<Vec<_>>(),
        )
    }

    #[test]
    fn options_of_test_are_read() {
        assert_eq!(parse(&[]).unwrap(), TestOptions::default());
        let both = TestOptions {
            long: true,
            release: true,
        };
        assert_eq!(parse(&["--release", "--long"]).unwrap(), both);
    }

    #[test]
    fn an_unknown_option_is_a_usage_error_that_names_it() {
        let failure = parse(&["--longer"]).unwrap_err();
        assert!(matches!(failure, Failure::Usage(_)));
        assert!(failure.to_string().contains("--longer"), "{failure}");
    }

    // The independent counter keeps its own table of word characters. Where Rust's tables are of the
    // same Unicode version they must be equal, else one must hold the other.
    #[test]
    fn the_independent_counter_knows_the_characters_of_words() {
        let text = include_str!("../../tests/independent/word_ranges.txt");
        let mut listed = vec![false; 0x11_0000];
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let (first, last) = line.split_once(' ').unwrap();
            let first = usize::from_str_radix(first, 16).unwrap();
            let last = usize::from_str_radix(last, 16).unwrap();
            listed[first..=last].fill(true);
        }
        for character in '\0'..=char::MAX {
            let of_word = character.is_alphanumeric();
            let is_listed = listed[character as usize];
            match char::UNICODE_VERSION.cmp(&(17, 0, 0)) {
                std::cmp::Ordering::Less => assert!(is_listed || !of_word, "{character:?}"),
                std::cmp::Ordering::Equal => assert_eq!(of_word, is_listed, "{character:?}"),
                std::cmp::Ordering::Greater => assert!(of_word || !is_listed, "{character:?}"),
            }
        }
    }
}
