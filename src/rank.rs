//! Ranks documents by BM25.
//!
//! A document's score is the sum over the words of a query of
//! `idf * tf * (k1 + 1) / (tf + k1 * (1 - b + b * length / average))`, where `tf` is how often the
//! word occurs in it, and `idf` is `ln(1 + (N - df + 0.5) / (df + 0.5))` for `df` of `N` documents
//! that hold the word. One number a document is kept, whatever the words.

use std::{cmp::Ordering, collections::BinaryHeap};

/// How soon more occurrences of a word stop to matter.
const K1: f64 = 1.2;
/// How much the length of a document matters.
const B: f64 = 0.75;

/// What the scores of all documents depend on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Corpus {
    pub(crate) documents: u32,
    pub(crate) terms: u64,
}

impl Corpus {
    fn length_mean(self) -> f64 {
        (self.terms as f64 / f64::from(self.documents.max(1))).max(1.0)
    }

    /// What a word weighs that so many documents hold.
    pub(crate) fn weight(self, documents_with_word: u32) -> f64 {
        let with = f64::from(documents_with_word);
        let without = (f64::from(self.documents) - with).max(0.0);
        (1.0 + (without + 0.5) / (with + 0.5)).ln()
    }

    /// What a word of this weight adds to a document of this length that holds it so often.
    #[inline]
    pub(crate) fn score(self, weight: f64, frequency: u32, length: u32) -> f64 {
        let frequency = f64::from(frequency);
        let relative = f64::from(length) / self.length_mean();
        weight * frequency * (K1 + 1.0) / (frequency + K1 * (1.0 - B + B * relative))
    }
}

/// A document and its score.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Hit {
    pub(crate) document: u32,
    pub(crate) score: f32,
}

/// The scores of all documents, as words are added one after the other.
#[derive(Debug)]
pub(crate) struct Scores {
    scores: Vec<f32>,
}

impl Scores {
    pub(crate) fn new(documents: u32) -> Self {
        Self {
            scores: vec![0.0; documents as usize],
        }
    }

    /// Adds to the score of a document; a number beyond the corpus is left out.
    #[inline]
    pub(crate) fn add(&mut self, document: u32, score: f64) {
        if let Some(sum) = self.scores.get_mut(document as usize) {
            *sum += score as f32;
        }
    }

    /// How many documents have a score.
    pub(crate) fn count(&self) -> usize {
        self.scores.iter().filter(|score| **score > 0.0).count()
    }

    /// The best documents, the best first, of equal ones the first.
    pub(crate) fn best(&self, limit: usize) -> Vec<Hit> {
        let mut worst_first = BinaryHeap::new();
        for (document, &score) in self.scores.iter().enumerate() {
            if score > 0.0 {
                worst_first.push(Worst(Hit {
                    document: document as u32,
                    score,
                }));
                if worst_first.len() > limit {
                    worst_first.pop();
                }
            }
        }
        worst_first
            .into_sorted_vec()
            .into_iter()
            .map(|worst| worst.0)
            .collect()
    }
}

/// A hit, ordered so that the worst is the greatest.
#[derive(Debug)]
struct Worst(Hit);

impl Ord for Worst {
    fn cmp(&self, other: &Self) -> Ordering {
        let by_score = other.0.score.total_cmp(&self.0.score);
        by_score.then(self.0.document.cmp(&other.0.document))
    }
}

impl PartialOrd for Worst {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Worst {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Worst {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn close(left: f64, right: f64) -> bool {
        (left - right).abs() < 1e-9
    }

    #[test]
    fn scores_match_numbers_worked_out_by_hand() {
        let corpus = Corpus {
            documents: 10,
            terms: 1000,
        };
        // ln(1 + 8.5 / 2.5) = ln 4.4
        assert!(close(corpus.weight(2), 1.481_604_540_924_215_5));
        // A document of average length: 2 * 2.2 / 3.2 = 1.375
        assert!(close(corpus.score(1.0, 2, 100), 1.375));
        // One of twice that: 2 * 2.2 / (2 + 1.2 * 1.75) = 4.4 / 4.1
        assert!(close(corpus.score(1.0, 2, 200), 4.4 / 4.1));
    }

    #[test]
    fn weights_stay_above_zero_and_empty_corpora_give_numbers() {
        let corpus = Corpus {
            documents: 3,
            terms: 0,
        };
        assert!(corpus.weight(3) > 0.0);
        assert!(corpus.score(corpus.weight(3), 1, 0).is_finite());
        assert!(
            Corpus {
                documents: 0,
                terms: 0
            }
            .weight(0)
            .is_finite()
        );
    }

    #[test]
    fn equal_scores_come_in_the_order_of_the_documents() {
        let mut scores = Scores::new(5);
        for document in [4, 1, 3, 9] {
            scores.add(document, 1.0);
        }
        scores.add(3, 0.5);
        let best: Vec<u32> = scores.best(10).iter().map(|hit| hit.document).collect();
        assert_eq!(best, [3, 1, 4]);
        assert_eq!(scores.count(), 3);
        assert_eq!(scores.best(0), []);
    }

    proptest! {
        #[test]
        fn the_best_are_those_of_a_full_sort(
            given in prop::collection::vec(0u8..20, 0..60),
            limit in 0usize..70,
        ) {
            let mut scores = Scores::new(given.len() as u32);
            for (document, score) in given.iter().enumerate() {
                scores.add(document as u32, f64::from(*score));
            }
            let mut expected: Vec<(u8, usize)> =
                given.iter().copied().zip(0..).filter(|(score, _)| *score > 0).collect();
            expected.sort_by_key(|(score, document)| (u8::MAX - score, *document));
            expected.truncate(limit);
            let best: Vec<(u8, usize)> = scores
                .best(limit)
                .iter()
                .map(|hit| (hit.score as u8, hit.document as usize))
                .collect();
            prop_assert_eq!(best, expected);
        }
    }
}
