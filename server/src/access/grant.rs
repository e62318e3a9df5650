//! What a client may do: rights, on the tables whose names match a pattern.

use super::tokens::TokenHash;

/// What may be done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rights {
    /// To look at entries.
    pub read: bool,
    /// To change entries, and to make, clear and free tables.
    pub write: bool,
    /// To see the server's figures, which name all tables.
    pub admin: bool,
}

impl Rights {
    /// All of them.
    pub const ALL: Self = Self {
        read: true,
        write: true,
        admin: true,
    };

    /// Whether there is a right on a table among them.
    pub fn any_on_tables(self) -> bool {
        self.read || self.write
    }

    /// Reads `read`, `write` and `admin`, with commas in between; none if it is something else.
    pub fn parse(text: &str) -> Option<Self> {
        let mut rights = Self::default();
        for word in text.split(',') {
            match word {
                "read" => rights.read = true,
                "write" => rights.write = true,
                "admin" => rights.admin = true,
                _ => return None,
            }
        }
        Some(rights)
    }
}

/// Table names, with `*` for any characters and `?` for any one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern(Vec<char>);

impl Pattern {
    /// The pattern that a text is.
    pub fn new(text: &str) -> Self {
        Self(text.chars().collect())
    }

    /// Whether every name is one of those.
    pub fn matches_all(&self) -> bool {
        self.0 == ['*']
    }

    /// Whether a name is one of those.
    pub fn matches(&self, name: &str) -> bool {
        let pattern = &self.0;
        let name: Vec<char> = name.chars().collect();
        let (mut at, mut name_at) = (0, 0);
        // Where to go on after the last star, if what was tried for it does not fit.
        let mut star: Option<(usize, usize)> = None;
        while name_at < name.len() {
            match pattern.get(at) {
                Some('*') => {
                    star = Some((at + 1, name_at));
                    at += 1;
                }
                Some(&sign) if sign == '?' || name.get(name_at) == Some(&sign) => {
                    at += 1;
                    name_at += 1;
                }
                _ => {
                    let Some((after_star, tried)) = star else {
                        return false;
                    };
                    star = Some((after_star, tried + 1));
                    (at, name_at) = (after_star, tried + 1);
                }
            }
        }
        pattern.iter().skip(at).all(|&sign| sign == '*')
    }
}

/// What one token lets its bearer do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// The token's name.
    pub name: String,
    /// What its bearer has a token of; none for everybody.
    pub hash: Option<TokenHash>,
    /// The tables.
    pub tables: Vec<Pattern>,
    /// What may be done with them.
    pub rights: Rights,
}

impl Grant {
    /// What everybody may do where no tokens are asked for.
    pub fn everything() -> Self {
        Self {
            name: "anybody".to_owned(),
            hash: None,
            tables: vec![Pattern::new("*")],
            rights: Rights::ALL,
        }
    }

    /// Whether its rights are the same on all tables.
    pub fn covers_all(&self) -> bool {
        self.tables.iter().any(Pattern::matches_all)
    }

    /// The rights on a table of this name, or on temporary tables, whose names nobody chose.
    pub fn rights_on(&self, table: Option<&str>) -> Rights {
        match table {
            Some(name)
                if !self.covers_all() && !self.tables.iter().any(|tables| tables.matches(name)) =>
            {
                Rights::default()
            }
            _ => self.rights,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_match_patterns_with_stars_and_question_marks() {
        for (pattern, fits, others) in [
            ("*", &["", "a", "a b"][..], &[][..]),
            ("posts", &["posts"], &["", "post", "posts2", "Posts"]),
            ("post*", &["post", "posts"], &["pos", "a post"]),
            ("*.lengths", &["a.lengths", ".lengths"], &["a.lengths.b"]),
            ("a*b*c", &["abc", "aXbYc", "abbcbc"], &["ab", "acb", "abcd"]),
            ("t?", &["tä", "t1"], &["t", "t12"]),
            ("*a?", &["aab", "bab"], &["ba", "a"]),
            ("", &[""], &["a"]),
        ] {
            let pattern = Pattern::new(pattern);
            assert!(fits.iter().all(|name| pattern.matches(name)), "{pattern:?}");
            assert!(
                !others.iter().any(|name| pattern.matches(name)),
                "{pattern:?}"
            );
        }
        let slow = Pattern::new(&"a*".repeat(127));
        assert!(!slow.matches(&"a".repeat(126)), "and is no slower for it");
    }

    #[test]
    fn rights_are_those_of_the_token_on_tables_that_match_and_none_on_others() {
        let grant = Grant {
            tables: vec![Pattern::new("a"), Pattern::new("b*")],
            rights: Rights::parse("read,admin").unwrap(),
            ..Grant::everything()
        };
        assert!(grant.rights_on(Some("a")).read && grant.rights_on(Some("bb")).read);
        assert_eq!(grant.rights_on(Some("c")), Rights::default());
        assert_eq!(grant.rights_on(None), grant.rights);
        assert!(!grant.rights.write);
        for text in ["", "read,", "all", "read write"] {
            assert_eq!(Rights::parse(text), None, "{text:?}");
        }
    }
}
