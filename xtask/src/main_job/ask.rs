//! The `rhash` command, run against a server under test.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::QUICK;
use super::counter::Count;
use super::workplace::Workplace;
use crate::failure::Failure;
use crate::process::Process;

/// Terms asked for by one process. Always more than one, so that the answer is a line for each.
const TERMS_PER_PROCESS: usize = 500;
/// Hits asked for in a search.
const SEARCH_LIMIT: usize = 10;
/// Scores that differ by less, relatively, are equal: sums may be taken in any order.
const SCORE_TOLERANCE: f64 = 1e-9;
/// Of a failed program's messages, this many characters are shown.
const MESSAGE_CHARS_MAX: usize = 2000;

/// Asks one server.
#[derive(Debug)]
pub(super) struct Asker<'a> {
    workplace: &'a Workplace,
    phase: &'a str,
    address: &'a str,
    deadline: Duration,
}

impl<'a> Asker<'a> {
    pub(super) fn new(
        workplace: &'a Workplace,
        phase: &'a str,
        address: &'a str,
        deadline: Duration,
    ) -> Self {
        Self {
            workplace,
            phase,
            address,
            deadline,
        }
    }

    /// Indexes the corpus and returns the seconds it took.
    pub(super) fn index(&self) -> Result<f64, Failure> {
        let began = Instant::now();
        let paths: Vec<&str> = self
            .workplace
            .corpus
            .iter()
            .filter_map(|p| p.to_str())
            .collect();
        self.run("index", &[], &paths, self.deadline)?;
        Ok(began.elapsed().as_secs_f64())
    }

    /// The server's statistics.
    pub(super) fn stats(&self) -> Result<Value, Failure> {
        let output = self.run("stats", &["--json"], &[], QUICK)?;
        serde_json::from_slice(&output).map_err(|error| Failure::new("stats --json", error))
    }

    /// Documents and occurrences of each term.
    pub(super) fn terms<'t>(
        &self,
        terms: impl Iterator<Item = &'t String>,
    ) -> Result<BTreeMap<String, Count>, Failure> {
        let terms: Vec<&str> = terms.map(String::as_str).collect();
        let mut answers = BTreeMap::new();
        for batch in terms.chunks(TERMS_PER_PROCESS) {
            let mut batch = batch.to_vec();
            if let [only] = batch[..] {
                batch.push(only);
            }
            let output = self.run("term", &["--json"], &batch, self.deadline)?;
            for answer in serde_json::Deserializer::from_slice(&output).into_iter::<Value>() {
                let answer = answer.map_err(|error| Failure::new("term --json", error))?;
                let read = || {
                    let documents = answer["documents"].as_u64()?;
                    let occurrences = answer["occurrences"].as_u64()?;
                    Some((
                        answer["term"].as_str()?.to_owned(),
                        Count {
                            documents,
                            occurrences,
                        },
                    ))
                };
                let (term, count) = read()
                    .ok_or_else(|| Failure::new("term --json printed no such answer", &answer))?;
                answers.insert(term, count);
            }
        }
        Ok(answers)
    }

    /// The best hits of each query.
    pub(super) fn searches(&self, queries: &[[&str; 2]]) -> Result<Hits, Failure> {
        let mut hits = Hits::default();
        let limit = SEARCH_LIMIT.to_string();
        for query in queries {
            let output = self.run("search", &["--json", "--limit", &limit], query, QUICK)?;
            let found: Vec<Value> = serde_json::from_slice(&output)
                .map_err(|error| Failure::new("search --json", error))?;
            let read =
                |hit: &Value| Some((hit["score"].as_f64()?, hit["path"].as_str()?.to_owned()));
            let found: Option<Vec<_>> = found.iter().map(read).collect();
            let found = found.ok_or_else(|| {
                Failure::Failed("search --json printed a hit without path or score".to_owned())
            })?;
            hits.0.push((query.join(" "), found));
        }
        Ok(hits)
    }

    /// Runs one command of `rhash` and returns what it printed.
    fn run(
        &self,
        name: &str,
        options: &[&str],
        words: &[&str],
        limit: Duration,
    ) -> Result<Vec<u8>, Failure> {
        let log = |suffix| format!("{}-{name}.{suffix}", self.phase);
        let mut command = self.workplace.binary("rhash");
        command
            .arg(name)
            .args(options)
            .args(["--server", self.address]);
        if !words.is_empty() {
            command.arg("--").args(words);
        }
        command
            .stdin(Stdio::null())
            .stdout(self.workplace.log(&log("out"))?)
            .stderr(self.workplace.log(&log("err"))?);
        let described = format!("rhash {name}");
        let status = Process::start(&described, &mut command, |_| ())?
            .0
            .wait(limit)?;
        if !status.success() {
            let message = tail(&self.workplace.log_path(&log("err")));
            return Err(Failure::Failed(format!(
                "{described} failed ({status}): {message}"
            )));
        }
        let path = self.workplace.log_path(&log("out"));
        std::fs::read(&path).map_err(|error| Failure::new(path.display(), error))
    }
}

/// The end of a program's messages.
fn tail(path: &Path) -> String {
    let text = std::fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let skipped = text.chars().count().saturating_sub(MESSAGE_CHARS_MAX);
    text.chars()
        .skip(skipped)
        .collect::<String>()
        .trim()
        .to_owned()
}

/// The cold bytes of all tables, if the statistics tell them.
pub(super) fn cold_bytes(stats: &Value) -> Option<u64> {
    stats["tables"]
        .as_array()?
        .iter()
        .map(|table| table["cold_bytes"].as_u64())
        .sum()
}

/// What searches found: for each query, scores and paths, best first.
#[derive(Debug, Default)]
pub(super) struct Hits(Vec<(String, Vec<(f64, String)>)>);

impl Hits {
    /// How many queries were asked.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// The queries whose hits are not the same as in `other`.
    pub(super) fn differing(&self, other: &Self) -> Vec<String> {
        let mut differing = Vec::new();
        for ((query, ours), (_, theirs)) in self.0.iter().zip(&other.0) {
            if !same_hits(ours, theirs) {
                differing.push(format!("`{query}`: {ours:?}, first {theirs:?}"));
            }
        }
        differing
    }
}

/// Whether two result lists are the same, but for the order of hits of equal score and for which of
/// several documents with the last score were cut off.
fn same_hits(ours: &[(f64, String)], theirs: &[(f64, String)]) -> bool {
    let close = |a: f64, b: f64| (a - b).abs() <= SCORE_TOLERANCE * a.abs().max(b.abs());
    if ours.len() != theirs.len() {
        return false;
    }
    if !ours
        .iter()
        .zip(theirs)
        .all(|(one, other)| close(one.0, other.0))
    {
        return false;
    }
    let last = ours.last().map_or(0.0, |hit| hit.0);
    let above = |hits: &[(f64, String)]| {
        let all_shown = hits.len() < SEARCH_LIMIT;
        let mut paths: Vec<String> = hits
            .iter()
            .filter(|hit| all_shown || !close(hit.0, last))
            .map(|hit| hit.1.clone())
            .collect();
        paths.sort();
        paths
    };
    above(ours) == above(theirs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn hits(list: &[(f64, &str)]) -> Vec<(f64, String)> {
        list.iter()
            .map(|(score, path)| (*score, (*path).to_owned()))
            .collect()
    }

    #[test]
    fn hits_of_equal_score_may_change_places() {
        let one = hits(&[(3.0, "a"), (2.0, "b"), (2.0, "c")]);
        let other = hits(&[(3.0, "a"), (2.0, "c"), (2.0, "b")]);
        assert!(same_hits(&one, &other));
    }

    #[test]
    fn another_path_score_or_number_of_hits_is_a_difference() {
        let one = hits(&[(3.0, "a"), (2.0, "b")]);
        assert!(!same_hits(&one, &hits(&[(3.0, "x"), (2.0, "b")])));
        assert!(!same_hits(&one, &hits(&[(3.0, "a"), (2.0, "x")])));
        assert!(!same_hits(&one, &hits(&[(3.0, "a"), (2.1, "b")])));
        assert!(!same_hits(&one, &hits(&[(3.0, "a")])));
    }

    #[test]
    fn of_a_full_list_only_the_last_score_may_name_other_paths() {
        let paths = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"];
        let list: Vec<_> = paths
            .iter()
            .enumerate()
            .map(|(at, path)| ((20 - at.min(8)) as f64, *path))
            .collect();
        let mut other = list.clone();
        other[9].1 = "k";
        assert!(same_hits(&hits(&list), &hits(&other)));
        other[7].1 = "l";
        assert!(!same_hits(&hits(&list), &hits(&other)));
    }

    #[test]
    fn cold_bytes_are_those_of_all_tables() {
        let stats = json!({"tables": [{"cold_bytes": 5}, {"cold_bytes": 7}]});
        assert_eq!(cold_bytes(&stats), Some(12));
        assert_eq!(cold_bytes(&json!({"tables": [{}]})), None);
        assert_eq!(cold_bytes(&json!({})), None);
    }
}
