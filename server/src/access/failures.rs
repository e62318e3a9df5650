//! How often a peer may try tokens that are none.
//!
//! A token cannot be guessed, so this is about load and logs: failures are answered at a slow pace
//! for each address. A good token is never held up by what others of its address do.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::time::Instant;

/// The failures of one address that are answered at once.
const AT_ONCE: u32 = 5;

/// After those, one each so long.
const INTERVAL: Duration = Duration::from_secs(1);

/// One that would have to wait for longer is not answered at all.
const WAIT_MAX: Duration = Duration::from_secs(5);

/// The most addresses that are remembered; those beyond share one turn.
const ADDRESSES_MAX: usize = 4096;

/// When a failure is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    /// After so long.
    After(Duration),
    /// Not at all.
    Never,
}

/// The failures of all addresses.
#[derive(Debug, Default)]
pub(crate) struct Failures {
    /// When the last failure that was let in has its turn, were there no head start.
    due: Mutex<HashMap<IpAddr, Instant>>,
}

impl Failures {
    /// Notes a failure, and says when it is answered.
    pub(crate) fn turn(&self, address: IpAddr, now: Instant) -> Turn {
        let head_start = INTERVAL * AT_ONCE;
        let mut due = self.due.lock();
        let mut address = network(address);
        if due.len() >= ADDRESSES_MAX && !due.contains_key(&address) {
            due.retain(|_, due| *due > now);
            if due.len() >= ADDRESSES_MAX {
                address = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
            }
        }
        let before = due.get(&address).copied().unwrap_or(now).max(now);
        let next = before + INTERVAL;
        let wait = next.saturating_duration_since(now + head_start);
        if wait > WAIT_MAX {
            return Turn::Never;
        }
        due.insert(address, next);
        Turn::After(wait)
    }
}

/// Who has one address of IPv6 has all of its network.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let bits = address.to_bits() >> 64 << 64;
            IpAddr::V6(Ipv6Addr::from_bits(bits))
        }
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn the_first_failures_are_answered_at_once_and_then_one_a_second() {
        let failures = Failures::default();
        let now = Instant::now();
        let turns: Vec<Turn> = (0..12)
            .map(|_| failures.turn(address("10.0.0.1"), now))
            .collect();
        assert!(
            turns[..5]
                .iter()
                .all(|turn| *turn == Turn::After(Duration::ZERO))
        );
        assert_eq!(turns[5], Turn::After(Duration::from_secs(1)));
        assert_eq!(turns[9], Turn::After(WAIT_MAX));
        assert_eq!(turns[10..], [Turn::Never; 2]);
        let other = failures.turn(address("10.0.0.2"), now);
        assert_eq!(other, Turn::After(Duration::ZERO));
        let later = now + Duration::from_secs(60);
        let again = failures.turn(address("10.0.0.1"), later);
        assert_eq!(again, Turn::After(Duration::ZERO));
    }

    #[test]
    fn a_network_of_ipv6_is_one_address_and_a_mapped_one_is_that_of_ipv4() {
        let failures = Failures::default();
        let now = Instant::now();
        for host in 0..10 {
            failures.turn(address(&format!("2001:db8::{host}")), now);
        }
        assert_eq!(failures.turn(address("2001:db8::ff"), now), Turn::Never);
        assert_eq!(network(address("::ffff:10.0.0.1")), address("10.0.0.1"));
    }

    #[test]
    fn addresses_are_forgotten_and_never_more_than_the_limit() {
        let failures = Failures::default();
        let now = Instant::now();
        for number in 0..ADDRESSES_MAX as u32 + 100 {
            failures.turn(IpAddr::V4(number.into()), now);
        }
        assert!(failures.due.lock().len() <= ADDRESSES_MAX + 1);
        failures.turn(address("10.9.9.9"), now + Duration::from_secs(60));
        assert_eq!(failures.due.lock().len(), 1);
    }
}
