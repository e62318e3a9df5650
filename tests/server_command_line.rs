//! The server's command line: what it says, what it refuses, how it ends.

mod server_support;

use std::{fs, net::TcpListener};

use server_support::{ServerProcess, TestResult, run_to_end};

/// Runs the server and wants exit code 2 and these words on standard error.
fn refused(args: &[&str], words: &[&str]) -> TestResult {
    let output = run_to_end(args)?;
    let stderr = String::from_utf8(output.stderr)?;
    assert_eq!(output.status.code(), Some(2), "{args:?}: {stderr}");
    for word in words {
        assert!(
            stderr.contains(word),
            "{args:?}: no \"{word}\" in: {stderr}"
        );
    }
    assert!(output.stdout.is_empty());
    Ok(())
}

#[test]
fn the_ready_line_names_the_port_that_was_picked() -> TestResult {
    let server = ServerProcess::start_small()?;
    assert_ne!(server.address.port(), 0);
    assert_eq!(
        server.ready_line,
        format!("listening on {}", server.address)
    );
    Ok(())
}

#[test]
fn help_teaches_with_examples() -> TestResult {
    let output = run_to_end(&["--help"])?;
    let stdout = String::from_utf8(output.stdout)?;
    assert_eq!(output.status.code(), Some(0));
    for word in [
        "Examples:",
        "--mem-limit 8G",
        "powers of 1024",
        "listening on",
        "Exit codes",
    ] {
        assert!(stdout.contains(word), "no \"{word}\" in: {stdout}");
    }
    assert!(
        stdout.lines().all(|line| line.chars().count() <= 100),
        "{stdout}"
    );
    Ok(())
}

#[test]
fn an_unknown_flag_is_a_usage_error() -> TestResult {
    refused(&["--mem-limits", "8G"], &["--mem-limits", "--mem-limit"])?;
    refused(&["extra"], &["extra"])
}

#[test]
fn a_bad_size_is_named_with_the_forms_that_are_good() -> TestResult {
    refused(
        &["--mem-limit", "8 gigs"],
        &["--mem-limit", "\"8 gigs\"", "512M, 1.5G or 8GiB"],
    )?;
    refused(&["--max-value=-1"], &["--max-value", "\"-1\""])?;
    refused(
        &["--lease", "soon"],
        &["--lease", "\"soon\"", "500ms, 60s or 5m"],
    )
}

#[test]
fn a_limit_below_the_working_minimum_is_refused_by_name() -> TestResult {
    refused(&["--mem-limit", "23M"], &["23 MiB", "at least 24 MiB"])
}

#[test]
fn settings_that_contradict_each_other_are_refused() -> TestResult {
    refused(
        &["--memory-only", "--data", "x"],
        &["--memory-only", "--data"],
    )?;
    refused(
        &["--mem-limit", "64M", "--max-value", "32M"],
        &["--max-value", "16 MiB"],
    )?;
    refused(&["--listen", "localhost"], &["localhost", "ADDRESS:PORT"])?;
    refused(&["--read-threads", "0"], &["--read-threads"])
}

#[test]
fn a_port_in_use_is_a_failure_of_one_line() -> TestResult {
    let taken = TcpListener::bind("127.0.0.1:0")?;
    let address = taken.local_addr()?.to_string();
    let output = run_to_end(&["--memory-only", "--mem-limit", "24M", "--listen", &address])?;
    let stderr = String::from_utf8(output.stderr)?;
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr.starts_with(&format!("rhash-server: cannot listen on {address}: ")),
        "{stderr}"
    );
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    Ok(())
}

#[test]
fn sigterm_and_sigint_stop_the_server_with_exit_code_0() -> TestResult {
    for signal in ["TERM", "INT"] {
        let dir = tempfile::tempdir()?;
        let server = ServerProcess::start_in(dir.path())?;
        server.signal(signal)?;
        assert_eq!(server.wait()?.code(), Some(0), "SIG{signal}");
    }
    Ok(())
}

#[test]
fn a_server_without_a_disk_writes_no_file() -> TestResult {
    let dir = tempfile::tempdir()?;
    let mut child = server_support::server_command()
        .args([
            "--memory-only",
            "--mem-limit",
            "24M",
            "--listen",
            "127.0.0.1:0",
            "--log",
            "off",
        ])
        .current_dir(dir.path())
        .stdout(std::process::Stdio::piped())
        .spawn()?;
    let mut line = String::new();
    let stdout = child.stdout.take().ok_or("no standard output")?;
    std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut line)?;
    assert!(line.starts_with("listening on "));
    child.kill()?;
    server_support::wait(&mut child)?;
    assert_eq!(fs::read_dir(dir.path())?.count(), 0);
    Ok(())
}

/// What threads keep of memory that was freed counts against the limit, and the C library hears of it in no other way.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[test]
fn the_server_runs_without_caches_of_threads_under_its_own_name_and_keeps_other_tunables()
-> TestResult {
    const TOLD: &str = "GLIBC_TUNABLES=";
    let tunables_of = |server: &ServerProcess| -> TestResult<String> {
        let environment = fs::read(format!("/proc/{}/environ", server.id()))?;
        let environment = String::from_utf8_lossy(&environment).into_owned();
        let begin = environment.find(TOLD).ok_or("no tunables")? + TOLD.len();
        // The C library ends each with a zero as it reads them.
        let told = environment[begin..].split(['\0', ':']);
        let told: Vec<_> = told.take_while(|part| part.starts_with("glibc.")).collect();
        Ok(told.join(":"))
    };
    for (before, after) in [
        ("", "glibc.malloc.tcache_count=0"),
        (
            "glibc.malloc.perturb=1",
            "glibc.malloc.perturb=1:glibc.malloc.tcache_count=0",
        ),
        ("glibc.malloc.tcache_count=3", "glibc.malloc.tcache_count=3"),
    ] {
        let server = ServerProcess::start_with("GLIBC_TUNABLES", before, &["--memory-only"])?;
        assert_eq!(tunables_of(&server)?, after);
        let name = fs::read_to_string(format!("/proc/{}/comm", server.id()))?;
        assert_eq!(name.trim_end(), "rhash-server");
        let words = fs::read(format!("/proc/{}/cmdline", server.id()))?;
        assert!(words.ends_with(b"\0--memory-only\0"));
        assert_eq!(server.stop()?.code(), Some(0));
    }
    Ok(())
}
