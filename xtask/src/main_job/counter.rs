//! The independent count: run, read, and held against answers.

use std::collections::BTreeMap;
use std::time::Instant;

use serde_json::Value;

use super::options::Options;
use super::workplace::Workplace;
use crate::failure::Failure;
use crate::process::Process;
use crate::step;

/// How many searches are compared.
const QUERIES: usize = 30;
/// Words of a query are in at least so many documents.
const QUERY_DOCUMENTS_MIN: u64 = 10;

/// Documents and occurrences of one term.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Count {
    pub(super) documents: u64,
    pub(super) occurrences: u64,
}

/// What the independent program counted.
#[derive(Debug)]
pub(super) struct Counts {
    pub(super) terms: BTreeMap<String, Count>,
    /// Terms that hold characters younger than Python's tables; they are told, and not compared.
    pub(super) newer: Vec<String>,
    pub(super) documents: u64,
    pub(super) skipped: u64,
    pub(super) seconds: f64,
    /// All that the program said except the terms.
    pub(super) report: Value,
}

impl Counts {
    /// Runs the counter over the corpus.
    pub(super) fn make(options: &Options, workplace: &Workplace) -> Result<Self, Failure> {
        let output = workplace.work.join("counts.json");
        let began = Instant::now();
        let mut command = step::python();
        command
            .arg("tests/independent/count_terms.py")
            .args([
                "--sample",
                &options.sample.to_string(),
                "--seed",
                &options.seed.to_string(),
            ])
            .args(["--deadline", &options.deadline.as_secs().to_string()])
            .arg("--output")
            .arg(&output)
            .arg("--")
            .args(&workplace.corpus);
        let mut process = Process::start("the independent counter", &mut command, |_| ())?.0;
        if !process.wait(options.deadline)?.success() {
            return Err(Failure::Failed("the independent counter failed".to_owned()));
        }
        let text = std::fs::read(&output).map_err(|e| Failure::new(output.display(), e))?;
        let report = serde_json::from_slice(&text).map_err(|e| Failure::new("the counts", e))?;
        let mut counts = Self::read(report)
            .ok_or_else(|| Failure::Failed("the counts are not as expected".to_owned()))?;
        counts.seconds = began.elapsed().as_secs_f64();
        Ok(counts)
    }

    fn read(mut report: Value) -> Option<Self> {
        let mut terms = BTreeMap::new();
        for (term, counts) in report["terms"].take().as_object()? {
            let (documents, occurrences) = (counts[0].as_u64()?, counts[1].as_u64()?);
            terms.insert(
                term.clone(),
                Count {
                    documents,
                    occurrences,
                },
            );
        }
        let mut newer = Vec::new();
        for term in report["newer_in_sample"].as_array()? {
            newer.push(term.as_str()?.to_owned());
            terms.remove(term.as_str()?);
        }
        let totals = &report["totals"];
        let (documents, skipped) = (totals["documents"].as_u64()?, totals["skipped"].as_u64()?);
        Some(Self {
            terms,
            newer,
            documents,
            skipped,
            seconds: 0.0,
            report,
        })
    }

    /// The terms whose answers are not what was counted, each with both.
    pub(super) fn differing(&self, answers: &BTreeMap<String, Count>) -> Vec<String> {
        let mut differing = Vec::new();
        for (term, counted) in &self.terms {
            match answers.get(term) {
                Some(answer) if answer == counted => {}
                Some(answer) => differing.push(format!(
                    "`{term}`: {} documents, {} occurrences, counted {} and {}",
                    answer.documents, answer.occurrences, counted.documents, counted.occurrences
                )),
                None => differing.push(format!("`{term}`: no answer")),
            }
        }
        differing
    }

    /// Queries of two words each, from all over the sample.
    pub(super) fn queries(&self) -> Vec<[&str; 2]> {
        let common: Vec<&str> = self
            .terms
            .iter()
            .filter(|(_, count)| count.documents >= QUERY_DOCUMENTS_MIN)
            .map(|(term, _)| term.as_str())
            .collect();
        let stride = (common.len() / (2 * QUERIES)).max(1);
        let words: Vec<&str> = common
            .into_iter()
            .step_by(stride)
            .take(2 * QUERIES)
            .collect();
        let (first, second) = words.split_at(words.len() / 2);
        first
            .iter()
            .zip(second)
            .map(|(one, other)| [*one, *other])
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn counts() -> Counts {
        Counts::read(json!({
            "terms": {"one": [1, 2], "two": [12, 30], "new": [1, 1], "three": [10, 10]},
            "newer_in_sample": ["new"],
            "totals": {"documents": 12, "skipped": 3},
        }))
        .unwrap()
    }

    #[test]
    fn terms_beyond_the_tables_are_set_apart() {
        let counts = counts();
        assert_eq!(counts.newer, ["new"]);
        assert_eq!(
            counts.terms.keys().collect::<Vec<_>>(),
            ["one", "three", "two"]
        );
        assert_eq!((counts.documents, counts.skipped), (12, 3));
    }

    #[test]
    fn equal_answers_do_not_differ_and_every_other_does() {
        let counts = counts();
        let mut answers = counts.terms.clone();
        assert!(counts.differing(&answers).is_empty());
        answers.remove("one");
        answers.insert(
            "two".to_owned(),
            Count {
                documents: 12,
                occurrences: 31,
            },
        );
        let differing = counts.differing(&answers);
        assert_eq!(differing.len(), 2);
        assert_eq!(differing[0], "`one`: no answer");
        assert!(differing[1].starts_with("`two`: 12 documents, 31 occurrences, counted 12 and 30"));
    }

    #[test]
    fn queries_are_of_words_that_are_not_rare() {
        assert_eq!(counts().queries(), [["three", "two"]]);
    }
}
