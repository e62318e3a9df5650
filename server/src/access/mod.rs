//! Who may come in, and what for.
//!
//! Without a tokens file everybody who reaches the server may do everything; the listener sees to
//! it that this is nobody beyond this host, unless that was asked for by name. With one, a client
//! whose token is not in it gets no session, and what a token does not allow is not done.

pub mod grant;
pub mod tokens;
mod failures;

use std::{collections::HashMap, path::PathBuf, sync::Arc};

use parking_lot::RwLock;

pub(crate) use failures::{Failures, Turn};
use grant::Grant;
use tokens::{TokenHash, TokensError, read_tokens};

/// Who may come in.
#[derive(Debug)]
pub(crate) struct Access {
    /// Where the tokens are; none lets everybody in.
    file: Option<PathBuf>,
    grants: RwLock<Grants>,
    /// Held for writing while sessions are given what was read anew. Taken before `grants`.
    turning: RwLock<()>,
    pub(crate) failures: Failures,
}

/// What the tokens grant.
#[derive(Debug, Default)]
struct Grants {
    in_order: Vec<Arc<Grant>>,
    /// No two have the same name.
    by_name: HashMap<String, Arc<Grant>>,
}

impl Access {
    /// Those whose tokens are in `file`, or everybody.
    ///
    /// # Errors
    /// [`TokensError`] if the file cannot be used.
    pub(crate) fn new(file: Option<PathBuf>) -> Result<Self, TokensError> {
        let access = Self {
            file,
            grants: RwLock::default(),
            turning: RwLock::default(),
            failures: Failures::default(),
        };
        access.reload()?;
        Ok(access)
    }

    /// Reads the file again. If it cannot be used, what was read before goes on to be valid.
    ///
    /// # Errors
    /// [`TokensError`] if the file cannot be used.
    pub(crate) fn reload(&self) -> Result<(), TokensError> {
        self.reload_and(|_| ())
    }

    /// The same, and calls `renew` before the bearer of any token is let in by what was read.
    ///
    /// # Errors
    /// [`TokensError`] if the file cannot be used.
    pub(crate) fn reload_and<T>(&self, renew: impl FnOnce(&Self) -> T) -> Result<T, TokensError> {
        let grants = match &self.file {
            Some(file) => read_tokens(file)?,
            None => vec![Grant::everything()],
        };
        let _turning = self.turning.write();
        *self.grants.write() = Grants::new(grants);
        Ok(renew(self))
    }

    /// Whether a token is asked for.
    pub(crate) fn asks_for_tokens(&self) -> bool {
        self.file.is_some()
    }

    /// How many tokens there are.
    pub(crate) fn tokens(&self) -> usize {
        if self.asks_for_tokens() {
            self.grants.read().in_order.len()
        } else {
            0
        }
    }

    /// What the bearer of a token may do; none if it is not known.
    pub(crate) fn admit(&self, token: &str) -> Option<Arc<Grant>> {
        let _turning = self.turning.read();
        if !self.asks_for_tokens() {
            return self.grants.read().in_order.first().cloned();
        }
        self.find(TokenHash::of(token))
    }

    /// What a grant is now; none if it was revoked. Takes as long however many tokens there are,
    /// since all sessions ask in a row.
    pub(crate) fn renew(&self, grant: &Grant) -> Option<Arc<Grant>> {
        let now = self.grants.read().by_name.get(&grant.name).cloned();
        now.filter(|now| now.hash == grant.hash)
    }

    /// Looks at all of them, wherever the one is.
    fn find(&self, hash: TokenHash) -> Option<Arc<Grant>> {
        let mut found = None;
        for grant in &self.grants.read().in_order {
            if grant.hash == Some(hash) {
                found = Some(Arc::clone(grant));
            }
        }
        found
    }
}

impl Grants {
    fn new(grants: Vec<Grant>) -> Self {
        let in_order: Vec<Arc<Grant>> = grants.into_iter().map(Arc::new).collect();
        let named = in_order.iter().map(|grant| (grant.name.clone(), grant));
        Self {
            by_name: named
                .map(|(name, grant)| (name, Arc::clone(grant)))
                .collect(),
            in_order,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::access::tokens::NewToken;

    #[test]
    fn without_a_file_everybody_comes_in() {
        let access = Access::new(None).unwrap();
        let grant = access.admit("").unwrap();
        assert_eq!(*grant, Grant::everything());
        access.reload().unwrap();
        assert_eq!(access.renew(&grant), Some(grant));
    }

    #[test]
    fn a_token_is_valid_from_one_reading_of_the_file_to_another() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokens");
        let [a, b] = ["a", "b"].map(|name| NewToken::draw(name, "*", "read").unwrap());
        fs::write(&path, format!("{}\n", a.line)).unwrap();
        let access = Access::new(Some(path.clone())).unwrap();
        let grant = access.admit(&a.secret).unwrap();
        assert_eq!((grant.name.as_str(), access.tokens()), ("a", 1));
        for stranger in ["", "a", &b.secret, &a.secret[1..]] {
            assert_eq!(access.admit(stranger), None);
        }

        fs::write(&path, "nonsense").unwrap();
        assert!(access.reload().is_err());
        assert!(access.admit(&a.secret).is_some(), "as it was");

        let more = a.line.replace(" read", " read,write");
        fs::write(&path, format!("{more}\n{}\n", b.line)).unwrap();
        access.reload().unwrap();
        assert!(access.renew(&grant).unwrap().rights.write);
        // Another token of the name is not this one.
        let namesake = NewToken::draw("a", "*", "read").unwrap();
        fs::write(&path, &namesake.line).unwrap();
        access.reload().unwrap();
        assert_eq!(access.renew(&grant), None);
        fs::write(&path, &b.line).unwrap();
        access.reload().unwrap();
        assert_eq!(
            (access.renew(&grant), access.admit(&a.secret)),
            (None, None)
        );
        assert!(access.admit(&b.secret).is_some());
    }
}
