//! Cuts text into terms.
//!
//! A term is a maximal run of alphanumeric characters and underscores (Unicode), lower-cased as
//! `str::to_lowercase` does, and kept if it is 2 to 64 characters long after that. ASCII goes
//! through a table of 256 entries; other characters take the slow way of the standard library.
//! Nothing is allocated per term, and a run of any length takes a bounded amount of memory, so
//! that a text can be fed piece by piece, cut anywhere between two characters.

/// The fewest characters of a term.
pub(crate) const TERM_CHARS_MIN: usize = 2;
/// The most characters of a term.
pub(crate) const TERM_CHARS_MAX: usize = 64;
/// A run of more bytes than this has too many characters, whatever they are: lower-casing never
/// makes fewer of them.
const RUN_BYTES_MAX: usize = TERM_CHARS_MAX * 4;

/// What `CLASS` says of bytes that end a run.
const SEPARATOR: u8 = 0;
/// What `CLASS` says of bytes that are part of a longer character.
const WIDE: u8 = 0xff;

/// For every byte: the lower-case byte if it belongs to a run, or one of the two marks above.
const CLASS: [u8; 256] = {
    let mut class = [SEPARATOR; 256];
    let mut byte = 0;
    while byte < 256 {
        let ascii = byte as u8;
        if ascii >= 0x80 {
            class[byte] = WIDE;
        } else if ascii.is_ascii_alphanumeric() || ascii == b'_' {
            class[byte] = ascii.to_ascii_lowercase();
        }
        byte += 1;
    }
    class
};

/// The run that is being read, and what is known of it.
#[derive(Debug)]
pub(crate) struct Tokens {
    /// The bytes of the run so far, ASCII already lower-cased.
    run: [u8; RUN_BYTES_MAX],
    run_bytes: usize,
    /// The run holds characters beyond ASCII.
    wide: bool,
    /// The run is longer than `run` and will be dropped.
    overlong: bool,
    /// Where runs beyond ASCII are lower-cased.
    lowered: String,
}

impl Tokens {
    pub(crate) fn new() -> Self {
        Self {
            run: [0; RUN_BYTES_MAX],
            run_bytes: 0,
            wide: false,
            overlong: false,
            lowered: String::with_capacity(RUN_BYTES_MAX),
        }
    }

    /// Takes a piece of text and passes on the terms that end in it.
    pub(crate) fn feed(&mut self, text: &str, mut term: impl FnMut(&[u8])) {
        let bytes = text.as_bytes();
        let mut at = 0;
        while at < bytes.len() {
            at += self.feed_ascii(&bytes[at..], &mut term);
            // What stopped the fast way is a character beyond ASCII, or the end.
            while let Some(wide) = text[at..].chars().next().filter(|char| !char.is_ascii()) {
                if wide.is_alphanumeric() {
                    self.push_wide(&bytes[at..at + wide.len_utf8()]);
                } else {
                    self.end_run(&mut term);
                }
                at += wide.len_utf8();
            }
        }
    }

    /// Says that the text is over, so that its last run is too.
    pub(crate) fn end(&mut self, mut term: impl FnMut(&[u8])) {
        self.end_run(&mut term);
    }

    /// Takes ASCII bytes up to the first that is not, and says how many there were.
    #[inline]
    fn feed_ascii(&mut self, bytes: &[u8], term: &mut impl FnMut(&[u8])) -> usize {
        for (at, &byte) in bytes.iter().enumerate() {
            match CLASS[usize::from(byte)] {
                SEPARATOR => {
                    if self.run_bytes > 0 {
                        self.end_run(term);
                    }
                }
                WIDE => return at,
                lower => {
                    if let Some(place) = self.run.get_mut(self.run_bytes) {
                        *place = lower;
                        self.run_bytes += 1;
                    } else {
                        self.overlong = true;
                    }
                }
            }
        }
        bytes.len()
    }

    fn push_wide(&mut self, char: &[u8]) {
        let end = self.run_bytes + char.len();
        if let Some(place) = self.run.get_mut(self.run_bytes..end) {
            place.copy_from_slice(char);
            self.run_bytes = end;
            self.wide = true;
        } else {
            // A shorter character after this one might fit, and make a run of what is none.
            self.run_bytes = RUN_BYTES_MAX;
            self.overlong = true;
        }
    }

    #[inline]
    fn end_run(&mut self, term: &mut impl FnMut(&[u8])) {
        if self.wide || self.overlong {
            self.end_unusual_run(term);
        } else if (TERM_CHARS_MIN..=TERM_CHARS_MAX).contains(&self.run_bytes) {
            term(&self.run[..self.run_bytes]);
        }
        self.run_bytes = 0;
    }

    #[cold]
    fn end_unusual_run(&mut self, term: &mut impl FnMut(&[u8])) {
        if !self.overlong {
            // The run is whole characters of a `str`, so this does not fail.
            let run = str::from_utf8(&self.run[..self.run_bytes]).unwrap_or_default();
            lower_into(run, &mut self.lowered);
            let chars = self.lowered.chars().count();
            if (TERM_CHARS_MIN..=TERM_CHARS_MAX).contains(&chars) {
                term(self.lowered.as_bytes());
            }
        }
        self.wide = false;
        self.overlong = false;
    }
}

/// The terms of a short text, such as the words of a query.
pub(crate) fn terms_of(text: &str) -> Vec<String> {
    let mut terms = Vec::new();
    let mut tokens = Tokens::new();
    let mut keep = |term: &[u8]| terms.push(String::from_utf8_lossy(term).into_owned());
    tokens.feed(text, &mut keep);
    tokens.end(&mut keep);
    terms
}

/// `str::to_lowercase` without the allocation, but for the one letter whose lower case depends on
/// its place in the word.
fn lower_into(run: &str, lowered: &mut String) {
    lowered.clear();
    for char in run.chars() {
        if char == 'Σ' {
            *lowered = run.to_lowercase();
            return;
        }
        lowered.extend(char.to_lowercase());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The definition, said as plainly as the standard library allows.
    fn slow_terms(text: &str) -> Vec<String> {
        text.split(|char: char| !(char.is_alphanumeric() || char == '_'))
            .map(str::to_lowercase)
            .filter(|term| (2..=64).contains(&term.chars().count()))
            .collect()
    }

    fn in_pieces(text: &str, cuts: &[usize]) -> Vec<String> {
        let mut terms = Vec::new();
        let mut tokens = Tokens::new();
        let mut keep = |term: &[u8]| terms.push(String::from_utf8(term.to_vec()).unwrap());
        let mut rest = text;
        for cut in cuts {
            let mut cut = cut % (rest.len() + 1);
            while !rest.is_char_boundary(cut) {
                cut -= 1;
            }
            tokens.feed(&rest[..cut], &mut keep);
            rest = &rest[cut..];
        }
        tokens.feed(rest, &mut keep);
        tokens.end(&mut keep);
        terms
    }

    #[test]
    fn words_numbers_and_underscores_are_terms() {
        assert_eq!(
            terms_of("fn Foo_bar(x: u32) -> a B2 __ _ 2024!"),
            ["fn", "foo_bar", "u32", "b2", "__", "2024"]
        );
    }

    #[test]
    fn lengths_count_characters_after_lower_casing() {
        assert_eq!(terms_of("é éa a"), ["éa"]);
        // The capital I with a dot becomes two characters.
        assert_eq!(terms_of("İ"), ["i\u{307}"]);
        for letter in ["x", "ж", "中", "𐐷"] {
            assert_eq!(terms_of(&letter.repeat(64)), [letter.repeat(64)]);
            assert_eq!(terms_of(&letter.repeat(65)), [""; 0]);
            assert_eq!(terms_of(&letter.repeat(300)), [""; 0]);
            assert_eq!(terms_of(&format!("{} ok", letter.repeat(300))), ["ok"]);
        }
        assert_eq!(terms_of(&"İ".repeat(32)).len(), 1);
        assert_eq!(terms_of(&"İ".repeat(33)).len(), 0);
    }

    #[test]
    fn a_capital_sigma_is_lowered_by_its_place() {
        assert_eq!(terms_of("ΟΔΟΣ ΣΟΦΟΣ"), ["οδος", "σοφος"]);
    }

    #[test]
    fn a_run_that_overflows_between_characters_is_dropped_whole() {
        // 85 characters of 3 bytes leave one byte free, where the "a" must not go.
        assert_eq!(terms_of(&format!("{}中a bc", "中".repeat(85))), ["bc"]);
    }

    proptest! {
        #[test]
        fn any_text_gives_the_terms_of_the_definition(text in any::<String>()) {
            prop_assert_eq!(terms_of(&text), slow_terms(&text));
        }

        #[test]
        fn text_of_words_gives_the_terms_of_the_definition(
            text in "([a-zA-Z_]{1,3}|[ΣσςÀ-ÿİß中-丯𐐀-𐐷]{1,3}|[ -/]|\u{301}|x{60,70}|Ж{60,130}){0,40}",
            cuts in prop::collection::vec(any::<usize>(), 0..4),
        ) {
            prop_assert_eq!(terms_of(&text), slow_terms(&text));
            prop_assert_eq!(in_pieces(&text, &cuts), slow_terms(&text));
        }
    }
}
