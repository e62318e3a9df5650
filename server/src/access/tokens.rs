//! Tokens, and the file that says what each lets its bearer do.
//!
//! The file holds hashes alone, so that whoever reads it can use none of the tokens. A token is 256
//! random bits, so that a hash needs to be neither slow nor salted.

use std::{
    fmt,
    fs::{self, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use ring::digest;

use super::grant::{Grant, Pattern, Rights};

/// The longest tokens file.
pub const FILE_BYTES_MAX: u64 = 1 << 20;

/// The most tokens in one.
pub const TOKENS_MAX: usize = 4096;

/// The longest name of a token, in bytes.
pub const TOKEN_NAME_BYTES_MAX: usize = 64;

/// The most patterns of one token.
pub const PATTERNS_MAX: usize = 64;

/// What a token begins with, so that people and programs see what it is.
pub const TOKEN_PREFIX: &str = "rhash_";

const SECRET_BYTES: usize = 32;
const HASH_PREFIX: &str = "sha256:";

/// A new tokens file is its owner's alone.
const MODE_NEW: u32 = 0o600;

/// Others may not write what decides who comes in.
const MODE_WRITABLE_BY_OTHERS: u32 = 0o022;

/// The hash of a token.
#[derive(Clone, Copy)]
pub struct TokenHash([u8; 32]);

impl TokenHash {
    /// The hash of a token as a client gives it.
    pub fn of(token: &str) -> Self {
        let mut hash = [0; 32];
        let digest = digest::digest(&digest::SHA256, token.as_bytes());
        for (byte, of_digest) in hash.iter_mut().zip(digest.as_ref()) {
            *byte = *of_digest;
        }
        Self(hash)
    }

    /// The hash itself.
    pub(crate) fn bytes(self) -> [u8; 32] {
        self.0
    }

    /// A hash that was kept.
    pub(crate) fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_prefix(HASH_PREFIX)?.as_bytes();
        let mut hash = [0; 32];
        if digits.len() != 2 * hash.len() {
            return None;
        }
        for (byte, pair) in hash.iter_mut().zip(digits.chunks_exact(2)) {
            let pair = std::str::from_utf8(pair).ok()?;
            // A sign would be taken for a digit.
            if !pair.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                return None;
            }
            *byte = u8::from_str_radix(pair, 16).ok()?;
        }
        Some(Self(hash))
    }
}

impl PartialEq for TokenHash {
    /// In a time that does not depend on the bytes: all of them are looked at.
    fn eq(&self, other: &Self) -> bool {
        let pairs = self.0.iter().zip(&other.0);
        let differences = pairs.fold(0, |sum, (a, b)| sum | (a ^ b));
        std::hint::black_box(differences) == 0
    }
}

impl Eq for TokenHash {}

impl fmt::Display for TokenHash {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{HASH_PREFIX}")?;
        self.0.iter().try_for_each(|byte| write!(out, "{byte:02x}"))
    }
}

impl fmt::Debug for TokenHash {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The beginning is enough to tell two apart.
        let [a, b, ..] = self.0;
        write!(out, "TokenHash({a:02x}{b:02x}…)")
    }
}

/// A tokens file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TokensError {
    /// It cannot be read.
    #[error("cannot read the tokens file {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It cannot be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Others could let themselves in.
    #[error(
        "the tokens file {} can be written by others (mode {mode:o}); chmod go-w it",
        path.display()
    )]
    WritableByOthers {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// It is longer than any that makes sense.
    #[error("the tokens file {} is over {FILE_BYTES_MAX} bytes, the limit", path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
    },
    /// A line makes no sense.
    #[error("the tokens file {}, line {line}: {fault}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What is wrong with it.
        fault: LineFault,
    },
}

/// What is wrong with a line of a tokens file. The line itself stays out of it: people who mistake
/// the file put tokens there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LineFault {
    /// Not four words.
    #[error("{words} words, not NAME sha256:HASH TABLES RIGHTS")]
    Words {
        /// How many there are.
        words: usize,
    },
    /// No name that one could write into a log.
    #[error(
        "a name has 1 to {TOKEN_NAME_BYTES_MAX} letters, digits, dots, hyphens and underscores"
    )]
    Name,
    /// Two tokens of one name, so that revoking it would be ambiguous.
    #[error("the name {name} is taken by a line before it")]
    NameTwice {
        /// The name.
        name: String,
    },
    /// Two tokens of one hash.
    #[error("the hash is that of a line before it")]
    HashTwice,
    /// No hash.
    #[error("the hash is not sha256: and 64 hexadecimal digits, as `rhash token new` writes it")]
    Hash,
    /// No patterns, or too many.
    #[error("the tables are 1 to {PATTERNS_MAX} patterns with commas in between")]
    Tables,
    /// No rights.
    #[error("the rights are read, write or admin, with commas in between")]
    Rights,
    /// Too many tokens.
    #[error("more than {TOKENS_MAX} tokens, the limit")]
    TooMany,
}

/// Reads a tokens file.
///
/// # Errors
/// [`TokensError`] if it cannot be read, can be written by others, or makes no sense.
pub fn read_tokens(path: &Path) -> Result<Vec<Grant>, TokensError> {
    let failed = |source| TokensError::Read {
        path: path.to_owned(),
        source,
    };
    let file = fs::File::open(path).map_err(failed)?;
    let mode = file.metadata().map_err(failed)?.permissions().mode() & 0o7777;
    if mode & MODE_WRITABLE_BY_OTHERS != 0 {
        return Err(TokensError::WritableByOthers {
            path: path.to_owned(),
            mode,
        });
    }
    let mut text = String::new();
    let read = file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text);
    if read.map_err(failed)? as u64 > FILE_BYTES_MAX {
        return Err(TokensError::TooLong {
            path: path.to_owned(),
        });
    }
    parse_tokens(&text).map_err(|(line, fault)| TokensError::Line {
        path: path.to_owned(),
        line,
        fault,
    })
}

/// Reads the text of a tokens file: a token a line, `NAME sha256:HASH TABLES RIGHTS`. Empty lines
/// and those that begin with `#` say nothing.
///
/// # Errors
/// The number of the first line that makes no sense, and why.
pub fn parse_tokens(text: &str) -> Result<Vec<Grant>, (usize, LineFault)> {
    let mut grants: Vec<Grant> = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let grant = parse_line(line).map_err(|fault| (number, fault))?;
        let name = &grant.name;
        let fault = if grants.iter().any(|before| before.name == *name) {
            LineFault::NameTwice { name: name.clone() }
        } else if grants.iter().any(|before| before.hash == grant.hash) {
            LineFault::HashTwice
        } else if grants.len() >= TOKENS_MAX {
            LineFault::TooMany
        } else {
            grants.push(grant);
            continue;
        };
        return Err((number, fault));
    }
    Ok(grants)
}

fn parse_line(line: &str) -> Result<Grant, LineFault> {
    let mut words = line.split_whitespace();
    let four = (words.next(), words.next(), words.next(), words.next());
    let (Some(name), Some(hash), Some(tables), Some(rights), None) =
        (four.0, four.1, four.2, four.3, words.next())
    else {
        return Err(LineFault::Words {
            words: line.split_whitespace().count(),
        });
    };
    check_token_name(name)?;
    let patterns: Vec<&str> = tables.split(',').collect();
    if patterns.len() > PATTERNS_MAX || patterns.contains(&"") {
        return Err(LineFault::Tables);
    }
    Ok(Grant {
        name: name.to_owned(),
        hash: Some(TokenHash::parse(hash).ok_or(LineFault::Hash)?),
        tables: patterns.into_iter().map(Pattern::new).collect(),
        rights: Rights::parse(rights).ok_or(LineFault::Rights)?,
    })
}

fn check_token_name(name: &str) -> Result<(), LineFault> {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let fits = (1..=TOKEN_NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(good);
    if fits { Ok(()) } else { Err(LineFault::Name) }
}

/// A token that was made just now.
pub struct NewToken {
    /// What its bearer says; kept by nobody else.
    pub secret: String,
    /// The line for the tokens file, without an end of line.
    pub line: String,
}

impl fmt::Debug for NewToken {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("NewToken").finish_non_exhaustive()
    }
}

impl NewToken {
    /// Draws a token, and writes its line for the file.
    ///
    /// # Errors
    /// A [`LineFault`] if the line would make no sense, or the system's if it has no random bytes.
    pub fn draw(
        name: &str,
        tables: &str,
        rights: &str,
    ) -> Result<Self, Box<dyn std::error::Error>> {
        let mut bytes = [0; SECRET_BYTES];
        getrandom::fill(&mut bytes)?;
        let mut secret = TOKEN_PREFIX.to_owned();
        for byte in bytes {
            secret.push_str(&format!("{byte:02x}"));
        }
        let line = format!("{name} {} {tables} {rights}", TokenHash::of(&secret));
        parse_line(&line)?;
        Ok(Self { secret, line })
    }

    /// Adds the line to a tokens file, which is made where there is none.
    ///
    /// # Errors
    /// [`TokensError`] if the file cannot be written, or would make no sense with this line; then nothing
    /// is added.
    pub fn append_to(&self, path: &Path) -> Result<(), TokensError> {
        let failed = |source| TokensError::Write {
            path: path.to_owned(),
            source,
        };
        let mut file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .mode(MODE_NEW)
            .open(path)
            .map_err(failed)?;
        let mut text = String::new();
        file.read_to_string(&mut text).map_err(failed)?;
        let begin = if text.is_empty() || text.ends_with('\n') {
            ""
        } else {
            "\n"
        };
        let added = format!("{begin}{}\n", self.line);
        parse_tokens(&format!("{text}{added}")).map_err(|(line, fault)| TokensError::Line {
            path: path.to_owned(),
            line,
            fault,
        })?;
        // One write, so that a server that reads meanwhile sees all of the line or nothing.
        file.write_all(added.as_bytes())
            .and_then(|()| file.sync_all())
            .map_err(failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

    #[test]
    fn a_hash_is_that_of_sha_256() {
        assert_eq!(TokenHash::of("test").to_string(), HASH);
        assert_eq!(TokenHash::parse(HASH), Some(TokenHash::of("test")));
        assert_ne!(TokenHash::of("test"), TokenHash::of("tesu"));
        assert!(format!("{:?}", TokenHash::of("test")).len() < 20);
    }

    #[test]
    fn a_file_has_a_token_a_line() {
        let text = format!("# who may come in\n\n  ci\t{HASH} a*,b  read,write \n");
        let grants = parse_tokens(&text).unwrap();
        let [grant] = &grants[..] else {
            panic!("{grants:?}")
        };
        assert_eq!(grant.name, "ci");
        assert_eq!(grant.hash, Some(TokenHash::of("test")));
        assert!(grant.rights_on(Some("abc")).write && !grant.rights_on(Some("abc")).admin);
        assert_eq!(parse_tokens(""), Ok(Vec::new()), "nobody comes in");
    }

    #[test]
    fn a_line_that_makes_no_sense_is_named_with_its_fault_and_without_its_words() {
        let fault = |line: &str| parse_tokens(&format!("#\n{line}")).unwrap_err();
        assert_eq!(fault("a b"), (2, LineFault::Words { words: 2 }));
        assert_eq!(fault(&format!("a {HASH} * read x")).0, 2);
        assert_eq!(fault(&format!("a/b {HASH} * read")).1, LineFault::Name);
        assert_eq!(fault("a rhash_00 * read").1, LineFault::Hash);
        assert_eq!(fault(&format!("a {HASH}0 * read")).1, LineFault::Hash);
        let signed = HASH.replace("9f", "+f");
        assert_eq!(fault(&format!("a {signed} * read")).1, LineFault::Hash);
        assert_eq!(fault(&format!("a {HASH} a,,b read")).1, LineFault::Tables);
        assert_eq!(fault(&format!("a {HASH} * all")).1, LineFault::Rights);
        let other = TokenHash::of("other");
        let twice = fault(&format!("a {HASH} * read\na {other} * read"));
        assert_eq!(twice.1, LineFault::NameTwice { name: "a".into() });
        let twice = fault(&format!("a {HASH} * read\nb {HASH} * read"));
        assert_eq!(twice, (3, LineFault::HashTwice));
    }

    #[test]
    fn a_new_token_is_found_by_its_line() {
        let token = NewToken::draw("ci", "*", "read").unwrap();
        let grants = parse_tokens(&token.line).unwrap();
        assert_eq!(grants[0].hash, Some(TokenHash::of(&token.secret)));
        assert_eq!(token.secret.len(), TOKEN_PREFIX.len() + 64);
        assert_ne!(
            token.secret,
            NewToken::draw("ci", "*", "read").unwrap().secret
        );
        assert!(!format!("{token:?}").contains(&token.secret));
        assert!(NewToken::draw("two words", "*", "read").is_err());
    }

    #[test]
    fn a_file_that_others_can_write_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokens");
        fs::write(&path, format!("a {HASH} * read\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert_eq!(read_tokens(&path).unwrap().len(), 1);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o660)).unwrap();
        let error = read_tokens(&path).unwrap_err().to_string();
        assert!(
            error.contains("mode 660") && error.contains("chmod go-w"),
            "{error}"
        );
        let missing = read_tokens(&dir.path().join("none")).unwrap_err();
        assert!(matches!(missing, TokensError::Read { .. }));
    }
}
