//! Words that look like words.

/// What words are put together from. None is the beginning of another, so that a word can be taken
/// apart in one way only.
const SYLLABLES: [&[u8]; 32] = [
    b"ra", b"ne", b"ti", b"so", b"lu", b"ka", b"me", b"ri", b"do", b"vu", b"pa", b"le", b"shi",
    b"co", b"nu", b"sta", b"be", b"mi", b"fo", b"gru", b"tha", b"we", b"li", b"po", b"su", b"ma",
    b"ge", b"tri", b"ho", b"ju", b"za", b"xe",
];

/// Writes the word of this number: those of low numbers are short, and no two are the same.
pub(super) fn push_word(mut number: u32, words: &mut Vec<u8>) {
    // Bijective counting: every number has one sequence of digits from 1 up, and none is left out.
    number += 1;
    while number > 0 {
        number -= 1;
        words.extend_from_slice(SYLLABLES[number as usize % SYLLABLES.len()]);
        number /= SYLLABLES.len() as u32;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn words_differ() {
        let mut seen = HashSet::new();
        for number in 0..200_000 {
            let mut word = Vec::new();
            push_word(number, &mut word);
            assert!(seen.insert(word), "{number}");
        }
    }
}
