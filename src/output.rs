//! What is said to people: numbers in groups, sizes with units, tables with columns, and styles
//! only where a terminal shows them.

use std::{
    fmt,
    io::{self, IsTerminal, Write},
    time::Duration,
};

use anstyle::{AnsiColor, Style};

/// The width of lines where no terminal tells one.
const COLUMNS_DEFAULT: usize = 120;
/// Narrower than this, nothing can be shown well.
const COLUMNS_MIN: usize = 40;

/// The standard output, and what it can show.
#[derive(Debug)]
pub(crate) struct Output {
    stdout: io::BufWriter<io::StdoutLock<'static>>,
    styled: bool,
}

impl Output {
    pub(crate) fn new() -> Self {
        let stdout = io::stdout();
        let styled =
            stdout.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|no| no.is_empty());
        Self {
            stdout: io::BufWriter::new(stdout.lock()),
            styled,
        }
    }

    /// Writes one line.
    ///
    /// # Errors
    /// Those of writing to the standard output.
    pub(crate) fn line(&mut self, line: impl fmt::Display) -> io::Result<()> {
        writeln!(self.stdout, "{line}")
    }

    /// Writes something as one line of JSON.
    ///
    /// # Errors
    /// Those of writing to the standard output.
    pub(crate) fn json(&mut self, value: &impl serde::Serialize) -> io::Result<()> {
        serde_json::to_writer(&mut self.stdout, value)?;
        self.stdout.write_all(b"\n")
    }

    /// Hands on what was written so far.
    ///
    /// # Errors
    /// Those of writing to the standard output.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.stdout.flush()
    }

    /// Text in a style, where it shows.
    pub(crate) fn style(&self, style: Style, text: impl fmt::Display) -> String {
        if self.styled {
            format!("{style}{text}{style:#}")
        } else {
            text.to_string()
        }
    }

    /// Writes rows under their headings, numbers to the right.
    ///
    /// # Errors
    /// Those of writing to the standard output.
    pub(crate) fn table<const N: usize>(
        &mut self,
        headings: [(&str, Align); N],
        rows: &[[String; N]],
    ) -> io::Result<()> {
        let widths: [usize; N] = std::array::from_fn(|column| {
            let cells = rows.iter().map(|row| row[column].chars().count());
            cells
                .max()
                .unwrap_or(0)
                .max(headings[column].0.chars().count())
        });
        let row_line = |cells: [&str; N]| {
            let cell = |column: usize| match headings[column].1 {
                Align::Left => format!("{:<width$}", cells[column], width = widths[column]),
                Align::Right => format!("{:>width$}", cells[column], width = widths[column]),
            };
            (0..N)
                .map(cell)
                .collect::<Vec<_>>()
                .join("  ")
                .trim_end()
                .to_owned()
        };
        let line = row_line(headings.map(|(heading, _)| heading));
        let line = self.style(HEADING, line);
        self.line(line)?;
        for row in rows {
            self.line(row_line(row.each_ref().map(String::as_str)))?;
        }
        Ok(())
    }
}

/// On which side of its column a text stands.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Align {
    Left,
    Right,
}

/// How headings look.
pub(crate) const HEADING: Style = Style::new().bold();
/// How paths look.
pub(crate) const PATH: Style = AnsiColor::Magenta.on_default();
/// How words that were looked for look.
pub(crate) const WORD: Style = AnsiColor::Red.on_default().bold();
/// How what matters less looks.
pub(crate) const FAINT: Style = Style::new().dimmed();

/// Says something to the person beside the output; if that fails there is nobody to tell.
pub(crate) fn note(text: impl fmt::Display) {
    let _unheard = writeln!(io::stderr(), "rhash: {text}");
}

/// The characters that fit a line.
pub(crate) fn columns() -> usize {
    let width = terminal_size::terminal_size_of(io::stdout())
        .map_or(COLUMNS_DEFAULT, |(width, _)| usize::from(width.0));
    width.max(COLUMNS_MIN)
}

/// A whole number with its digits in groups of three.
pub(crate) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::with_capacity(digits.len() * 4 / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// A number of things, by their name for one.
pub(crate) fn count_of(number: u64, thing: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{} {thing}{plural}", count(number))
}

/// A number of bytes in the unit, of powers of 1024, that suits it.
pub(crate) fn size(bytes: u64) -> String {
    let mut amount = bytes as f64;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if amount < 1000.0 {
            return if unit == "B" {
                format!("{bytes} B")
            } else {
                format!("{amount:.1} {unit}")
            };
        }
        amount /= 1024.0;
    }
    format!("{amount:.1} TiB")
}

/// A number with three digits that matter: 950, 12.3 k, 4.56 M.
pub(crate) fn number_short(number: f64) -> String {
    let (mut number, mut unit) = (number, "");
    for larger in [" k", " M", " G"] {
        if number < 999.5 {
            break;
        }
        (number, unit) = (number / 1e3, larger);
    }
    format!("{number:.*}{unit}", decimals(number))
}

/// A span of time with three digits that matter, given in milliseconds: 12.3 µs, 4.56 ms, 7.89 s.
pub(crate) fn time_short(milliseconds: f64) -> String {
    let (number, unit) = match milliseconds {
        time if time <= 0.0 => return "0 s".to_owned(),
        time if time < 0.9995 => (time * 1e3, "µs"),
        time if time < 999.5 => (time, "ms"),
        time => (time / 1e3, "s"),
    };
    format!("{number:.*} {unit}", decimals(number))
}

/// The digits after the point of a number below a thousand that has three in all.
fn decimals(number: f64) -> usize {
    match number {
        number if number < 9.995 => 2,
        number if number < 99.95 => 1,
        _ => 0,
    }
}

/// Millions of bytes, as text and its speed are counted.
pub(crate) fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

/// How much a second.
pub(crate) fn per_second(amount: f64, time: Duration) -> f64 {
    amount / time.as_secs_f64().max(1e-6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped() {
        for (number, text) in [
            (0, "0"),
            (999, "999"),
            (1000, "1,000"),
            (1_234_567, "1,234,567"),
        ] {
            assert_eq!(count(number), text);
        }
    }

    #[test]
    fn short_numbers_have_three_digits() {
        for (number, text) in [
            (0.0, "0.00"),
            (9.994, "9.99"),
            (9.996, "10.0"),
            (99.96, "100"),
            (999.4, "999"),
            (999.6, "1.00 k"),
            (1_234_567.0, "1.23 M"),
            (5e12, "5000 G"),
        ] {
            assert_eq!(number_short(number), text);
        }
        for (milliseconds, text) in [
            (0.0, "0 s"),
            (0.0742, "74.2 µs"),
            (0.9996, "1.00 ms"),
            (12.34, "12.3 ms"),
            (61_000.0, "61.0 s"),
        ] {
            assert_eq!(time_short(milliseconds), text);
        }
    }

    #[test]
    fn sizes_have_units() {
        for (bytes, text) in [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.0 KiB"),
            (32 << 20, "32.0 MiB"),
            (1 << 40, "1.0 TiB"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }
}
