//! The development tasks of rhash, run as `cargo xtask TASK`.
//!
//! It owns which checks there are and the order they run in. Each check is a program of its own
//! (cargo, rustfmt, clippy, Python's unittest) that writes straight to the terminal.
#![expect(clippy::print_stderr, reason = "a command talks to its terminal")]

/// Prints a line. A reader that has gone away does not stop a task: its exit status still counts.
macro_rules! say {
    ($($words:tt)*) => {{
        use std::io::Write as _;
        writeln!(std::io::stdout(), $($words)*).ok();
    }};
}

mod failure;
mod process;
mod step;
mod sizes;
mod words;
mod checklist;
mod server;
mod sampler;
mod place;
mod python;
mod checks;
mod main_job;
mod limits;
mod soak;
mod crash;
mod power;
mod faults;
mod damage;
mod cuts;
mod start;

use std::process::ExitCode;

use failure::Failure;

const HELP: &str = "\
Development tasks of rhash

Usage: cargo xtask TASK

Tasks:
  test      Run all tests: unit and integration tests, examples in the docs, the self-tests
            of the independent Python programs, and those of the Python package, from a wheel
            in a fresh virtual environment (what they need comes from the package index)
  lint      Check format (rustfmt), lints (clippy) and documentation (rustdoc); warnings fail
  ci        test, then lint
  main-job  Prove the main job: index real text under a memory limit and hold every answer
            against an independent count (see `cargo xtask main-job --help`)
  limits    Drive servers hard and see that they keep their memory limit and give space back
            (see `cargo xtask limits --help`)
  hostile   Abuse servers at full scale, and see that others wait no longer than twice as long as
            beside another server that is abused, and that all is given back (needs 15,000 file descriptors: ulimit -n)
  soak      Load a server for half an hour at four times its memory, and see that nothing grows
            (see `cargo xtask soak --help`)
  crash     Kill a server 300 times under load at each level of durability, and see that nothing is
            lost or doubled (see `cargo xtask crash --help`)
  power     Cut the power of a server's disk at 2000 moments for each level of durability, and see that
            what was promised is there (see `cargo xtask power --help`)
  faults    Let a server's disk fail in some 500 ways, and see that it says so and loses nothing
            (see `cargo xtask faults --help`)
  damage    Damage the files of data directories in 10,000 ways, and see that nothing wrong is ever read
            (see `cargo xtask damage --help`)
  cuts      Cut clients off while they write, and an index build's connection 500 times, and see that each batch
            is whole or absent (see `cargo xtask cuts --help`)
  start     Time the start after a kill with 10 GB of cold data and a full log (see `cargo xtask start --help`)

Options of test and ci:
  --long     Run 5000 sequences of each model test (sets RHASH_MODEL_SEQUENCES)
  --release  Test the release build
  -h, --help     Print this help

Exit status: 0 if all is well, 1 if a check failed, 2 if the command was not understood.";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("xtask: {failure}");
            failure.exit_code()
        }
    }
}

fn run(arguments: &[String]) -> Result<(), Failure> {
    let Some((task, rest)) = arguments.split_first() else {
        say!("{HELP}");
        return Err(Failure::Usage("no task given".to_owned()));
    };
    let asks_help = |word: &String| word == "--help" || word == "-h";
    match task.as_str() {
        "main-job" => main_job::run(rest),
        "limits" => limits::run(rest),
        "soak" => soak::run(rest),
        "crash" => crash::run(rest),
        "power" => power::run(rest),
        "faults" => faults::run(rest),
        "damage" => damage::run(rest),
        damage::WORKER_TASK => damage::work(rest),
        "cuts" => cuts::run(rest),
        cuts::CLIENT_TASK => cuts::client(rest),
        "start" => start::run(rest),
        "hostile" if rest.is_empty() => checks::hostile(),
        "hostile" => Err(Failure::Usage("hostile takes no options".to_owned())),
        "-h" | "--help" | "help" => {
            say!("{HELP}");
            Ok(())
        }
        "test" | "lint" | "ci" if rest.iter().any(asks_help) => {
            say!("{HELP}");
            Ok(())
        }
        "test" => checks::test(&checks::TestOptions::parse(rest)?),
        "ci" => {
            checks::test(&checks::TestOptions::parse(rest)?)?;
            checks::lint()
        }
        "lint" if rest.is_empty() => checks::lint(),
        "lint" => Err(Failure::Usage("lint takes no options".to_owned())),
        other => Err(Failure::Usage(format!(
            "no task `{other}`; see `cargo xtask --help`"
        ))),
    }
}
