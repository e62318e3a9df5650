//! What lets a client in, and where it is found.

use std::{
    fmt, fs,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use crate::error::{Error, ErrorKind, Result};

/// The environment variable that holds the token, for programs that are not given one.
pub const TOKEN_VARIABLE: &str = "RHASH_TOKEN";

/// The environment variable that names a file with the token.
pub const TOKEN_FILE_VARIABLE: &str = "RHASH_TOKEN_FILE";

/// The longest token.
const TOKEN_BYTES_MAX: usize = 1024;

/// Nobody but its owner may read a file with a token, or change it.
#[cfg(unix)]
const MODE_OF_OTHERS: u32 = 0o077;

/// A token; empty for none. It stays out of logs.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Token(String);

impl Token {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    pub(crate) fn is_none(&self) -> bool {
        self.0.is_empty()
    }

    /// As the server is to hear it.
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }

    /// Reads it from a file that nobody else can read.
    fn read(path: &Path) -> Result<Self> {
        let failed = |error: io::Error| {
            let text = format!("cannot read the token in {}", path.display());
            Error::with_source(ErrorKind::Usage, text, error)
        };
        let file = fs::File::open(path).map_err(failed)?;
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            let mode = file.metadata().map_err(failed)?.permissions().mode() & 0o7777;
            if mode & MODE_OF_OTHERS != 0 {
                let text = format!(
                    "others can read the token in {} (mode {mode:o}); chmod 600 it",
                    path.display()
                );
                return Err(Error::new(ErrorKind::Usage, text));
            }
        }
        let mut text = String::new();
        file.take(TOKEN_BYTES_MAX as u64 + 2)
            .read_to_string(&mut text)
            .map_err(failed)?;
        Ok(Self::new(text.trim()))
    }

    fn check(self) -> Result<Self> {
        let fault = if self.0.len() > TOKEN_BYTES_MAX {
            format!("a token of over {TOKEN_BYTES_MAX} bytes, the limit")
        } else if self.0.contains(|sign: char| sign.is_whitespace()) {
            "a token has no white space".to_owned()
        } else {
            return Ok(self);
        };
        Err(Error::new(ErrorKind::Usage, fault))
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(if self.is_none() {
            "Token(none)"
        } else {
            "Token(…)"
        })
    }
}

/// Where a program says that its token is.
#[derive(Debug, Clone, Default)]
pub(crate) struct TokenOptions {
    pub(crate) token: Token,
    pub(crate) file: Option<PathBuf>,
}

impl TokenOptions {
    /// The token of the first place that has one: the options, the address, the environment.
    pub(crate) fn find(self, in_address: Token) -> Result<Token> {
        let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        let token = match self {
            Self { token, .. } if !token.is_none() => token,
            Self {
                file: Some(file), ..
            } => Token::read(&file)?,
            _ if !in_address.is_none() => in_address,
            _ => match (variable(TOKEN_VARIABLE), variable(TOKEN_FILE_VARIABLE)) {
                (Some(token), _) => Token::new(token.trim()),
                (None, Some(file)) => Token::read(Path::new(&file))?,
                (None, None) => Token::default(),
            },
        };
        token.check()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_found_in_options_before_the_address_and_never_shown() {
        let of = |token: &str, address: &str| {
            let options = TokenOptions {
                token: Token::new(token),
                file: None,
            };
            options.find(Token::new(address))
        };
        assert_eq!(of("a", "b").unwrap(), Token::new("a"));
        assert_eq!(of("", "b").unwrap(), Token::new("b"));
        for bad in ["a b".to_owned(), "x".repeat(TOKEN_BYTES_MAX + 1)] {
            let error = of(&bad, "").unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Usage);
            assert!(!error.to_string().contains(&bad), "{error}");
        }
        assert!(!format!("{:?}", Token::new("secret")).contains("secret"));
    }

    #[cfg(unix)]
    #[test]
    fn a_file_that_others_can_read_is_refused() {
        use std::os::unix::fs::PermissionsExt as _;
        let path = std::env::temp_dir().join(format!("rhash-token-{}", std::process::id()));
        fs::write(&path, "rhash_00\n").unwrap();
        let options = TokenOptions {
            token: Token::default(),
            file: Some(path.clone()),
        };
        let find = |mode| {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            options.clone().find(Token::new("of the address"))
        };
        let refused = find(0o640);
        let found = find(0o600);
        fs::remove_file(&path).unwrap();
        let error = refused.unwrap_err().to_string();
        assert!(
            error.contains("mode 640") && error.contains("chmod 600"),
            "{error}"
        );
        assert_eq!(found.unwrap(), Token::new("rhash_00"));
        let missing = options.find(Token::default()).unwrap_err();
        assert_eq!(missing.kind(), ErrorKind::Usage);
    }
}
