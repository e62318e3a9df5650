//! How fast a peer sends or takes what it began, so that one that has come to a stand gives way.
//!
//! Only the time that is spent waiting for the peer counts, and only the bytes that move: where
//! nobody else waits, a long message over a slow line takes as long as it takes.

use std::{pin::pin, time::Duration};

use tokio::time::{Instant, sleep};

use super::socket::Meter;

/// A peer is waited for so long before it is asked whether it moves.
const SPELL: Duration = Duration::from_secs(3);

/// A peer that moves fewer bytes than this in a spell is as good as standing: it gives way if others
/// wait for the room that it takes. Of one that takes much, more is asked.
pub(crate) const SPELL_BYTES_MIN: u64 = 4 * 1024;

/// At least this share of what it takes must move in a spell: so it takes nothing for much longer than
/// a minute.
pub(crate) const SPELL_SHARE: u64 = 20;

/// A peer is standing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stalled {
    /// For so long.
    pub(crate) time: Duration,
    /// It has moved so much in that time.
    pub(crate) moved_bytes: u64,
}

/// The pace of one direction of a connection.
#[derive(Debug)]
pub(crate) struct Pace {
    meter: Meter,
    /// What the meter showed when this spell began.
    from_bytes: u64,
    /// How much of this spell has gone by, waiting.
    waited: Duration,
    /// The spells before it in which it stood.
    stalled: Stalled,
}

const NOT_AT_ALL: Stalled = Stalled {
    time: Duration::ZERO,
    moved_bytes: 0,
};

impl Pace {
    /// The pace of what `meter` counts.
    pub(crate) fn new(meter: Meter) -> Self {
        Self {
            from_bytes: meter.bytes(),
            meter,
            waited: Duration::ZERO,
            stalled: NOT_AT_ALL,
        }
    }

    /// Begins anew: what was under way is done.
    pub(crate) fn restart(&mut self) {
        self.from_bytes = self.meter.bytes();
        self.waited = Duration::ZERO;
        self.stalled = NOT_AT_ALL;
    }

    /// Waits for something that the peer has a part in, for as long as `spell_bytes_min` move in each
    /// spell. Where fewer do, `must_end` decides, spell by spell.
    pub(crate) async fn keep<T>(
        &mut self,
        spell_bytes_min: u64,
        coming: impl Future<Output = T>,
        must_end: impl Fn(Stalled) -> bool,
    ) -> Result<T, Stalled> {
        let mut coming = pin!(coming);
        loop {
            let began = Instant::now();
            tokio::select! {
                biased;
                came = &mut coming => {
                    self.waited += began.elapsed();
                    return Ok(came);
                }
                () = sleep(SPELL.saturating_sub(self.waited)) => {
                    let stalled = self.end_spell(spell_bytes_min);
                    if stalled != NOT_AT_ALL && must_end(stalled) {
                        return Err(stalled);
                    }
                }
            }
        }
    }

    fn end_spell(&mut self, spell_bytes_min: u64) -> Stalled {
        let bytes = self.meter.bytes();
        let moved_bytes = bytes.saturating_sub(self.from_bytes);
        self.from_bytes = bytes;
        self.waited = Duration::ZERO;
        self.stalled = if moved_bytes < spell_bytes_min {
            Stalled {
                time: self.stalled.time + SPELL,
                moved_bytes: self.stalled.moved_bytes.saturating_add(moved_bytes),
            }
        } else {
            NOT_AT_ALL
        };
        self.stalled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAST: u64 = SPELL_BYTES_MIN;

    /// Moves so many bytes a second, for two minutes.
    async fn moving(meter: &Meter, bytes: usize) {
        for _ in 0..120 {
            sleep(Duration::from_secs(1)).await;
            meter.count(bytes);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_moves_is_waited_for_as_long_as_it_takes() {
        let meter = Meter::default();
        let mut pace = Pace::new(meter.clone());
        let moving_on = moving(&meter, 3000);
        assert_eq!(pace.keep(LEAST, moving_on, |_| true).await, Ok(()));
        // It is too slow for one that holds more.
        let too_slow = pace.keep(10_000, moving(&meter, 3000), |_| true).await;
        assert!(too_slow.is_err_and(|stalled| stalled.moved_bytes > 5_000));
    }

    #[tokio::test(start_paused = true)]
    async fn who_hardly_moves_gives_way_where_others_wait() {
        let meter = Meter::default();
        let mut pace = Pace::new(meter.clone());
        let hardly = pace.keep(LEAST, moving(&meter, 10), |_| false);
        assert_eq!(hardly.await, Ok(()));
        pace.restart();
        let stalled = pace.keep(LEAST, moving(&meter, 10), |_| true).await;
        assert!(stalled.is_err_and(|stalled| stalled.time == SPELL && stalled.moved_bytes <= 30));
        pace.restart();
        let half_a_minute = Duration::from_secs(30);
        let stopped = pace.keep(LEAST, std::future::pending::<()>(), |stalled| {
            stalled.time >= half_a_minute
        });
        let expected = Stalled {
            time: half_a_minute,
            moved_bytes: 0,
        };
        assert_eq!(stopped.await, Err(expected));
    }

    // A peer that sends a small part every now and then never lets one wait last long.
    #[tokio::test(start_paused = true)]
    async fn short_waits_add_up() {
        let meter = Meter::default();
        let mut pace = Pace::new(meter.clone());
        let mut waits = 0;
        while pace
            .keep(LEAST, sleep(Duration::from_millis(900)), |_| true)
            .await
            .is_ok()
        {
            meter.count(1);
            waits += 1;
        }
        assert_eq!(waits, 3);
        pace.restart();
        sleep(3 * SPELL).await;
        assert_eq!(
            pace.keep(LEAST, async {}, |_| true).await,
            Ok(()),
            "time that was not spent waiting does not count"
        );
    }
}
