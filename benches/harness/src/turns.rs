//! Runs that take turns.

use crate::{Result, say};

/// Runs every side once, then every side again, and so on: what changes on the machine meanwhile
/// then changes for all. Each round begins with another side.
///
/// # Errors
/// The first of any run.
pub fn take_turns<S>(
    runs: u32,
    sides: &[S],
    mut run: impl FnMut(u32, &S) -> Result<()>,
) -> Result<()> {
    for round in 0..runs {
        say(format_args!("run {} of {runs}", round + 1));
        for turn in 0..sides.len() {
            if let Some(side) = sides.get((turn + round as usize) % sides.len()) {
                run(round, side)?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_side_runs_once_a_round_and_another_one_begins() {
        let mut order = Vec::new();
        take_turns(2, &['a', 'b', 'c'], |round, &side| {
            order.push((round, side));
            Ok(())
        })
        .unwrap();
        let expected = [(0, 'a'), (0, 'b'), (0, 'c'), (1, 'b'), (1, 'c'), (1, 'a')];
        assert_eq!(order, expected);
    }
}
