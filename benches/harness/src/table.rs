//! Figures as a table on the terminal: a line a side, a column a metric.

use std::io::{self, Write as _};

use crate::{Figure, Result};

/// Prints the figures of one workload.
pub(crate) fn print<'a>(
    title: &str,
    figures: impl Iterator<Item = &'a Figure>,
    notes: &[&str],
) -> Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "\n{title}\n")?;
    for line in lines(figures) {
        writeln!(out, "  {line}")?;
    }
    for note in notes {
        writeln!(out, "  * {note}")?;
    }
    writeln!(out)?;
    out.flush()?;
    Ok(())
}

fn lines<'a>(figures: impl Iterator<Item = &'a Figure>) -> Vec<String> {
    let figures: Vec<_> = figures.collect();
    let sides = names(figures.iter().map(|figure| figure.side.as_str()));
    let metrics = names(figures.iter().map(|figure| figure.metric.as_str()));
    let mut rows = vec![vec![String::new()]];
    if let Some(head) = rows.first_mut() {
        head.extend(metrics.iter().map(|&metric| metric.to_owned()));
    }
    for &side in &sides {
        let mut row = vec![side.to_owned()];
        row.extend(metrics.iter().map(|&metric| {
            let figure = figures
                .iter()
                .find(|figure| figure.side == side && figure.metric == metric);
            figure.map_or_else(|| "-".to_owned(), |figure| figure.to_string())
        }));
        rows.push(row);
    }
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..=metrics.len()).map(width).collect();
    rows.iter()
        .map(|row| {
            let cells = row.iter().zip(&widths).enumerate();
            let cells = cells.map(|(column, (cell, &width))| {
                if column == 0 {
                    format!("{cell:<width$}")
                } else {
                    format!("{cell:>width$}")
                }
            });
            cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
        })
        .collect()
}

/// Each name once, in the order in which they first come.
fn names<'a>(all: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut names = Vec::new();
    for name in all {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Figures, Unit};

    #[test]
    fn a_side_that_lacks_a_figure_has_a_dash() {
        let mut figures = Figures::default();
        figures.add("w", "one", "time", Unit::Seconds, 1.5);
        figures.add("w", "one", "rate", Unit::PerSecond, 2_500_000.0);
        figures.add("w", "another", "time", Unit::Seconds, 30.0);
        let lines = lines(figures.of("w"));
        assert_eq!(
            lines,
            [
                "           time      rate",
                "one      1.50 s  2.50 M/s",
                "another  30.0 s         -",
            ]
        );
    }
}
