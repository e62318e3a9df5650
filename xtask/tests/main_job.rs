//! The driver of the main job against stand-ins for the server and the command: it must pass when
//! all is well, and say so when any one thing is not.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Faults of the server that spills need no other.
const LESS: [&str; 1] = ["--skip-memory-only"];

/// A small corpus, and a place for everything else.
struct Scene {
    root: tempfile::TempDir,
}

impl Scene {
    fn new() -> std::io::Result<Self> {
        let root = tempfile::tempdir()?;
        std::fs::create_dir(root.path().join("corpus"))?;
        std::fs::create_dir(root.path().join("stand_in"))?;
        for number in 0..20 {
            let (pair, half) = (number / 2, number % 2);
            let text = format!("Common plain half{half} word{number} pair{pair} x, one_{number}");
            std::fs::write(root.path().join(format!("corpus/{number}.txt")), text)?;
        }
        Ok(Self { root })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// Runs the driver on it. `more` are further options.
    fn run(&self, fault: &str, more: &[&str]) -> std::io::Result<Output> {
        let stand_in = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/stand_in");
        Command::new(env!("CARGO_BIN_EXE_xtask"))
            .args([
                "main-job",
                "--mem-limit",
                "48M",
                "--sample",
                "80",
                "--deadline",
                "60",
            ])
            .arg("--bin-dir")
            .arg(stand_in)
            .arg("--work")
            .arg(self.path("work"))
            .arg("--results")
            .arg(self.path("results"))
            .arg(self.path("corpus"))
            .args(more)
            .env("STAND_IN_DIR", self.path("stand_in"))
            .env("STAND_IN_FAULT", fault)
            .output()
    }
}

/// The driver under a fault must fail and name it.
fn fails_with(fault: &str, more: &[&str], expected: &str) -> std::io::Result<()> {
    let output = Scene::new()?.run(fault, more)?;
    let messages = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{messages}");
    assert!(messages.contains(expected), "{messages}");
    Ok(())
}

#[test]
fn a_good_server_passes_and_leaves_figures_and_charts() -> std::io::Result<()> {
    let scene = Scene::new()?;
    let output = scene.run("", &[])?;
    let said = String::from_utf8_lossy(&output.stdout);
    let messages = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{messages}");
    assert!(said.contains("checks passed"), "{said}");
    let summary = std::fs::read_to_string(scene.path("results/summary.json"))?;
    let summary: serde_json::Value = serde_json::from_str(&summary)?;
    let phases = summary["phases"].as_array().unwrap();
    assert_eq!(phases.len(), 3);
    for phase in phases {
        assert_eq!(phase["terms_asked"], 54);
        assert_eq!(phase["terms_differing"], 0);
        assert_eq!(phase["searches"], 2);
        assert!(phase["memory"]["samples"].as_u64() > Some(0));
        let chart = format!("results/memory-{}.svg", phase["name"].as_str().unwrap());
        assert!(std::fs::read_to_string(scene.path(&chart))?.starts_with("<svg"));
    }
    assert!(!scene.path("work/data").exists());
    Ok(())
}

#[test]
fn one_wrong_count_is_found_and_shown() -> std::io::Result<()> {
    let output = Scene::new()?.run("count", &LESS)?;
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("1 of 54 differ"), "{said}");
    assert!(
        said.contains("`common`: 20 documents, 21 occurrences, counted 20 and 20"),
        "{said}"
    );
    Ok(())
}

#[test]
fn a_term_without_an_answer_is_a_difference() -> std::io::Result<()> {
    fails_with(
        "silent",
        &LESS,
        "limited: every sampled term equals the independent count",
    )
}

#[test]
fn data_lost_by_a_restart_are_missed() -> std::io::Result<()> {
    fails_with(
        "forgetful",
        &LESS,
        "restarted: every sampled term equals the independent count",
    )
}

#[test]
fn too_much_memory_is_seen() -> std::io::Result<()> {
    fails_with(
        "memory",
        &LESS,
        "limited: RssAnon + RssShmem stay under the limit",
    )
}

#[test]
fn an_index_that_never_went_cold_proves_nothing() -> std::io::Result<()> {
    fails_with("warm", &LESS, "limited: live cold bytes are over the limit")
}

#[test]
fn searches_that_rank_otherwise_are_told() -> std::io::Result<()> {
    fails_with(
        "scores",
        &[],
        "memory-only: searches equal the first server's",
    )
}

#[test]
fn a_server_that_does_not_stop_cleanly_is_told() -> std::io::Result<()> {
    fails_with("unclean", &LESS, "limited: SIGTERM stops it cleanly")
}

#[test]
fn an_index_run_that_fails_ends_the_proof_with_its_message() -> std::io::Result<()> {
    fails_with("index", &LESS, "the server is gone")
}
