//! The words of a task's command line, option by option.

use std::{slice, str::FromStr};

use crate::failure::Failure;
use crate::sizes::{number, size};

/// Goes over options; what an option was given is asked for once it was read.
#[derive(Debug)]
pub(crate) struct Words<'a> {
    rest: slice::Iter<'a, String>,
    option: &'a str,
}

impl<'a> Words<'a> {
    /// Begins with the first word.
    pub(crate) fn of(arguments: &'a [String]) -> Self {
        Self {
            rest: arguments.iter(),
            option: "",
        }
    }

    /// The next option, or a word that belongs to none.
    pub(crate) fn next_option(&mut self) -> Option<&'a str> {
        self.option = self.rest.next()?;
        Some(self.option)
    }

    /// What the option was given.
    pub(crate) fn value(&mut self) -> Result<&'a str, Failure> {
        let missing = || Failure::Usage(format!("`{}` needs a value", self.option));
        self.rest.next().map(String::as_str).ok_or_else(missing)
    }

    /// The same as a number.
    pub(crate) fn number<T: FromStr>(&mut self) -> Result<T, Failure> {
        let text = self.value()?;
        number(self.option, text)
    }

    /// The same as a size such as `512M`.
    pub(crate) fn size(&mut self) -> Result<u64, Failure> {
        let text = self.value()?;
        size(self.option, text)
    }
}
