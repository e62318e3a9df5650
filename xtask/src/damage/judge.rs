//! Holds what is read against what must be there: each key is right, or an error.

use std::collections::BTreeSet;

use super::content::{Content, Moment, TABLES};
use super::reader::{Fault, Found, Reader};

/// Keys that are asked for at a time.
const BATCH_KEYS: usize = 48;
/// Violations and errors that are kept of one directory; the others are counted.
const KEPT_MAX: usize = 6;

/// What came out.
#[derive(Debug, Default)]
pub(super) struct Judgement {
    /// Keys that are as they must be.
    pub(super) right: u64,
    /// Keys, counts and scans that ended with an error.
    pub(super) errors: u64,
    /// Batches that are missing at the end of the history.
    pub(super) given_up: usize,
    /// What must not be, in words.
    pub(super) violations: Vec<String>,
    /// How many there were of them.
    pub(super) violations_count: u64,
    /// The first errors.
    pub(super) texts: Vec<String>,
}

/// Reads all through `reader`; the last batches up to `given_up_max` may be missing.
pub(super) fn judge(reader: &mut dyn Reader, content: &Content, given_up_max: usize) -> Judgement {
    let earliest = content.end().saturating_sub(given_up_max);
    let mut judge = Judge {
        reader,
        content,
        earliest,
        possible: vec![true; content.end() - earliest + 1],
        judgement: Judgement::default(),
    };
    judge.names();
    for table in content.tables() {
        judge.keys(table);
    }
    // Only now is it known how many batches there are.
    for table in content.tables() {
        judge.count(table);
        judge.scan(table);
    }
    let latest = judge.moments().next_back();
    if let Some(latest) = latest {
        judge.judgement.given_up = content.end() - latest;
    }
    judge.judgement
}

struct Judge<'a> {
    reader: &'a mut dyn Reader,
    content: &'a Content,
    earliest: Moment,
    /// Which moments from the earliest on fit all that was read so far.
    possible: Vec<bool>,
    judgement: Judgement,
}

impl Judge<'_> {
    /// The moments that fit all that was read so far.
    fn moments(&self) -> impl DoubleEndedIterator<Item = Moment> {
        let possible = self.possible.iter().enumerate();
        let earliest = self.earliest;
        possible
            .filter(|(_, is_possible)| **is_possible)
            .map(move |(at, _)| earliest + at)
    }

    fn violation(&mut self, text: String) {
        self.judgement.violations_count += 1;
        if self.judgement.violations.len() < KEPT_MAX {
            self.judgement.violations.push(text);
        }
    }

    fn error(&mut self, what: &str, fault: Fault) {
        self.judgement.errors += 1;
        if !fault.is_told {
            self.violation(format!("{what}: not an error of the disk: {}", fault.text));
            return;
        }
        let texts = &mut self.judgement.texts;
        if texts.len() < KEPT_MAX && !texts.contains(&fault.text) {
            texts.push(fault.text);
        }
    }

    fn names(&mut self) {
        match self.reader.names() {
            Ok(names) => {
                let found: BTreeSet<&str> = names.iter().map(String::as_str).collect();
                let must = self.content.tables().map(|table| TABLES[table].0);
                let must: BTreeSet<&str> = must.collect();
                if found != must {
                    self.violation(format!("the tables are {found:?}, not {must:?}"));
                }
            }
            Err(fault) => self.violation(format!("the tables cannot be listed: {}", fault.text)),
        }
    }

    fn keys(&mut self, table: usize) {
        let content = self.content;
        let keys: Vec<&[u8]> = content.keys(table).collect();
        for keys in keys.chunks(BATCH_KEYS) {
            match self.reader.get(table, keys) {
                Ok(found) => self.found(table, keys, found),
                // One of them has the error.
                Err(_) => keys.iter().for_each(|key| {
                    match self.reader.get(table, std::slice::from_ref(key)) {
                        Ok(found) => self.found(table, std::slice::from_ref(key), found),
                        Err(fault) => self.error("a get", fault),
                    }
                }),
            }
        }
    }

    fn found(&mut self, table: usize, keys: &[&[u8]], found: Found) {
        if found.len() != keys.len() {
            self.violation(format!("{} values for {} keys", found.len(), keys.len()));
            return;
        }
        for (key, value) in keys.iter().zip(found) {
            self.is_right("a get", table, key, value.as_deref());
        }
    }

    /// Takes note of what a key is; says so if it cannot be.
    fn is_right(&mut self, what: &str, table: usize, key: &[u8], value: Option<&[u8]>) {
        let content = self.content;
        let fits = |moment: Moment| content.at(table, key, moment) == value;
        if !(self.earliest..=content.end()).any(fits) {
            let text = describe(what, content, table, key, value);
            return self.violation(text);
        }
        self.judgement.right += 1;
        if self.possible.len() == 1 {
            return;
        }
        let was_possible = self.moments().next().is_some();
        for (at, is_possible) in self.possible.iter_mut().enumerate() {
            *is_possible &= fits(self.earliest + at);
        }
        if was_possible && self.moments().next().is_none() {
            let key = String::from_utf8_lossy(key);
            self.violation(format!(
                "{what} of \"{key}\": there was no moment at which all were as they are"
            ));
        }
    }

    fn count(&mut self, table: usize) {
        let name = TABLES[table].0;
        match self.reader.count(table) {
            Ok(count) => {
                let must: Vec<u64> = self
                    .moments()
                    .map(|moment| self.content.len(table, moment))
                    .collect();
                if !must.is_empty() && !must.contains(&count) {
                    self.violation(format!("\"{name}\" counts {count} entries, not {must:?}"));
                }
            }
            Err(fault) => self.error("a count", fault),
        }
    }

    fn scan(&mut self, table: usize) {
        let name = TABLES[table].0;
        let scanned = self.reader.scan(table);
        let mut keys = BTreeSet::new();
        for (key, value) in &scanned.entries {
            if !keys.insert(key.as_slice()) {
                let key = String::from_utf8_lossy(key);
                self.violation(format!("a scan of \"{name}\" yields \"{key}\" twice"));
            }
            self.is_right("a scan", table, key, Some(value));
        }
        if let Some(fault) = scanned.fault {
            return self.error("a scan", fault);
        }
        let count = keys.len() as u64;
        let fits = |moment| self.content.len(table, moment) == count;
        let (any, fit) = (self.moments().next().is_some(), self.moments().any(fits));
        if any && !fit {
            self.violation(format!("a scan of \"{name}\" ends after {count} entries"));
        }
    }
}

/// What is wrong with a value, in words.
fn describe(
    what: &str,
    content: &Content,
    table: usize,
    key: &[u8],
    value: Option<&[u8]>,
) -> String {
    let must = content.at(table, key, content.end());
    let state = match value {
        None => "is absent".to_owned(),
        Some(value) if content.was(table, key, value) => "is what it was earlier".to_owned(),
        Some(_) if must.is_none() => "is there, and must not be".to_owned(),
        Some(value) => format!("has {} bytes that it never had", value.len()),
    };
    let must = must.map_or("nothing".to_owned(), |must| format!("{} bytes", must.len()));
    format!(
        "{what}: \"{}\" {state}, not {must}",
        String::from_utf8_lossy(key)
    )
}

#[cfg(test)]
mod tests {
    use super::super::content::{Batch, Change};
    use super::super::reader::Scanned;
    use super::*;

    /// Answers as the content was at a moment, but for some keys.
    struct Fake<'a> {
        content: &'a Content,
        moment: Moment,
        /// A key that is an error.
        broken: Option<&'a [u8]>,
        /// A key that is not there.
        missing: Option<&'a [u8]>,
    }

    impl Reader for Fake<'_> {
        fn names(&mut self) -> Result<Vec<String>, Fault> {
            let tables = self.content.tables();
            Ok(tables.map(|table| TABLES[table].0.to_owned()).collect())
        }

        fn get(&mut self, table: usize, keys: &[&[u8]]) -> Result<Found, Fault> {
            let value = |key: &&[u8]| {
                if self.broken == Some(*key) {
                    let text = "run 1 is damaged at byte 2".to_owned();
                    return Err(Fault {
                        is_told: true,
                        text,
                    });
                }
                let value = self.content.at(table, key, self.moment);
                let value = value.filter(|_| self.missing != Some(*key));
                Ok(value.map(<[u8]>::to_vec))
            };
            keys.iter().map(value).collect()
        }

        fn count(&mut self, table: usize) -> Result<u64, Fault> {
            Ok(self.content.len(table, self.moment))
        }

        fn scan(&mut self, table: usize) -> Scanned {
            let entry = |key: &[u8]| {
                let value = self.content.at(table, key, self.moment)?;
                Some((key.to_vec(), value.to_vec()))
            };
            Scanned {
                entries: self.content.keys(table).filter_map(entry).collect(),
                fault: None,
            }
        }
    }

    fn content() -> Content {
        let batch = |number: u8| Batch {
            table: 0,
            changes: vec![
                (vec![b'a'], Change::Put(vec![number])),
                (vec![b'b', number], Change::Put(vec![number])),
            ],
        };
        Content::of(&[batch(1), batch(2), batch(3)])
    }

    fn judged(given_up_max: usize, change: impl FnOnce(&mut Fake<'_>)) -> Judgement {
        let content = content();
        let mut fake = Fake {
            content: &content,
            moment: content.end(),
            broken: None,
            missing: None,
        };
        change(&mut fake);
        judge(&mut fake, &content, given_up_max)
    }

    #[test]
    fn all_right_is_all_right() {
        for given_up_max in [0, 2] {
            let judgement = judged(given_up_max, |_| ());
            assert_eq!(judgement.violations, [""; 0]);
            assert_eq!((judgement.errors, judgement.given_up), (0, 0));
        }
    }

    #[test]
    fn an_error_is_allowed_and_absence_is_not() {
        let judgement = judged(0, |fake| fake.broken = Some(b"a"));
        assert_eq!((judgement.errors, judgement.violations_count), (1, 0));
        assert_eq!(judgement.texts.len(), 1);
        let judgement = judged(0, |fake| fake.missing = Some(b"a"));
        assert_eq!(judgement.violations_count, 1);
        assert!(judgement.violations[0].contains("absent"));
    }

    #[test]
    fn what_is_missing_must_be_a_suffix_and_no_more_than_allowed() {
        let judgement = judged(1, |fake| fake.moment = 2);
        assert_eq!((judgement.violations_count, judgement.given_up), (0, 1));
        assert!(judged(1, |fake| fake.moment = 1).violations_count > 0);
        assert!(judged(0, |fake| fake.moment = 2).violations_count > 0);
        // The newest is there, and one from before it is not.
        let judgement = judged(2, |fake| fake.missing = Some(&[b'b', 2]));
        assert!(judgement.violations_count > 0);
    }
}
