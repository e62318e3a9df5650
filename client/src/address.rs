//! Where a server listens.

use std::{fmt, str::FromStr};

use rhash_protocol::limits::DEFAULT_PORT;

use crate::{
    error::{Error, ErrorKind},
    token::Token,
};

/// The environment variable that says where the server is, for programs that are not told.
pub const SERVER_VARIABLE: &str = "RHASH_SERVER";

const SCHEME: &str = "rhash://";
const TLS_SCHEME: &str = "rhash+tls://";

/// A host and a port, and perhaps a token. Written `host`, `host:port`, `[v6]:port`,
/// `rhash://host:port`, `rhash://token@host:port`, or with `rhash+tls://` for TLS; the port is 10080
/// where it is missing. It is shown without the token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    host: String,
    port: u16,
    token: Token,
    tls: bool,
}

impl Address {
    /// What [`SERVER_VARIABLE`] says, or else this host's default port.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`] if the variable holds no address.
    pub fn from_env() -> Result<Self, Error> {
        match std::env::var(SERVER_VARIABLE) {
            Ok(text) if !text.is_empty() => text.parse(),
            _ => Ok(Self {
                host: "127.0.0.1".to_owned(),
                port: DEFAULT_PORT,
                token: Token::default(),
                tls: false,
            }),
        }
    }

    pub(crate) fn is_tls(&self) -> bool {
        self.tls
    }

    pub(crate) fn token(&self) -> &Token {
        &self.token
    }

    pub(crate) fn host_and_port(&self) -> (&str, u16) {
        (&self.host, self.port)
    }
}

impl FromStr for Address {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let rest = text.trim();
        let (tls, rest) = match rest.strip_prefix(TLS_SCHEME) {
            Some(rest) => (true, rest),
            None => (false, rest.strip_prefix(SCHEME).unwrap_or(rest)),
        };
        // IMPORTANT: what is before an `@` is a secret. With a scheme that was misspelt it would be sent
        // in the clear, so it is not even shown.
        if let Some((scheme, _)) = rest.split_once("://") {
            let is_word = scheme
                .chars()
                .all(|sign| sign.is_ascii_alphabetic() || sign == '+');
            let shown = if is_word { scheme } else { "this" };
            let text =
                format!("{shown}:// is no scheme of an address; {SCHEME} and {TLS_SCHEME} are");
            return Err(Error::new(ErrorKind::Usage, text));
        }
        let (token, shown) = rest.rsplit_once('@').unwrap_or(("", rest));
        let bad = || Error::new(ErrorKind::Usage, format!("{shown:?} is not HOST:PORT"));
        let rest = shown.strip_suffix('/').unwrap_or(shown);
        let (host, port) = match rest.strip_prefix('[') {
            Some(v6) => {
                let (host, after) = v6.split_once(']').ok_or_else(bad)?;
                match after {
                    "" => (host, None),
                    after => (host, Some(after.strip_prefix(':').ok_or_else(bad)?)),
                }
            }
            None => match rest.split_once(':') {
                None => (rest, None),
                // More than one colon is a bare IPv6 address.
                Some((_, port)) if port.contains(':') => (rest, None),
                Some((host, port)) => (host, Some(port)),
            },
        };
        let port = match port {
            None => DEFAULT_PORT,
            Some(port) => port.parse().map_err(|_not_a_number| bad())?,
        };
        let strange =
            |sign: char| "/@[]".contains(sign) || sign.is_control() || sign.is_whitespace();
        if host.is_empty() || host.contains(strange) {
            return Err(bad());
        }
        Ok(Self {
            host: host.to_owned(),
            port,
            token: Token::new(token),
            tls,
        })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(out, "[{}]:{}", self.host, self.port),
            false => write!(out, "{}:{}", self.host, self.port),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_written_in_several_ways() {
        for (text, shown) in [
            ("localhost", "localhost:10080"),
            ("10.0.0.7:99", "10.0.0.7:99"),
            ("rhash://example.org:5/", "example.org:5"),
            ("[::1]:7", "[::1]:7"),
            ("::1", "[::1]:10080"),
            ("[::1]", "[::1]:10080"),
            ("rhash://rhash_0f@db:7", "db:7"),
            ("rhash_0f@db", "db:10080"),
            ("rhash+tls://rhash_0f@db", "db:10080"),
        ] {
            let address: Address = text.parse().unwrap();
            assert_eq!(address.to_string(), shown);
            assert_eq!(address.token().is_none(), !text.contains('@'));
            assert_eq!(address.is_tls(), text.contains("+tls"));
            assert!(!format!("{address:?}").contains("rhash_0f"));
        }
        for text in [
            "",
            ":5",
            "host:",
            "host:x",
            "host:70000",
            "[::1",
            "http://host:5",
            "a b",
            "rhash_0f@",
            "rhashs://rhash_0f@db",
            "https://rhash_0f@db",
            "rhash_0f://db",
            "rhash_0f@db:x",
        ] {
            let error = text.parse::<Address>().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Usage, "{text:?}");
            assert!(!error.to_string().contains("rhash_0f"), "{error}");
        }
    }
}
