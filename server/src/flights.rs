//! Reads of one cold key that several ask for at the same time, done once.
//!
//! Who comes first reads; who comes while it does waits for what it finds. Both looked the key up
//! in the same state of its table, which is part of what names a flight, so both are right.

use std::{
    collections::{HashMap, hash_map::Entry},
    hash::Hash,
    sync::Arc,
};

use parking_lot::{Condvar, Mutex};

/// The reads under way, by what names them. At most as many as there are threads that read.
#[derive(Debug)]
pub(crate) struct Flights<K, T> {
    flights: Mutex<HashMap<K, Arc<Flight<T>>>>,
}

/// One read.
#[derive(Debug)]
struct Flight<T> {
    landed: Mutex<Landed<T>>,
    done: Condvar,
}

#[derive(Debug)]
enum Landed<T> {
    /// It is being read.
    NotYet,
    /// What was found.
    With(T),
    /// The reader gave up.
    Empty,
}

/// Sees to it that those who wait do not wait for ever, whatever becomes of the reader.
struct Lead<'a, K: Hash + Eq, T> {
    flights: &'a Flights<K, T>,
    name: &'a K,
    flight: Arc<Flight<T>>,
}

impl<K, T> Default for Flights<K, T> {
    fn default() -> Self {
        Self {
            flights: Mutex::default(),
        }
    }
}

impl<K: Hash + Eq + Clone, T: Clone> Flights<K, T> {
    /// What `read` finds, or what another thread finds that reads under this name right now.
    pub(crate) fn share(&self, name: &K, read: impl FnOnce() -> T) -> T {
        let joined = match self.flights.lock().entry(name.clone()) {
            Entry::Occupied(flight) => Ok(Arc::clone(flight.get())),
            Entry::Vacant(place) => Err(Arc::clone(place.insert(Arc::default()))),
        };
        match joined {
            Ok(flight) => flight.wait().unwrap_or_else(read),
            Err(flight) => {
                let lead = Lead {
                    flights: self,
                    name,
                    flight,
                };
                let found = read();
                lead.land(&found);
                found
            }
        }
    }
}

impl<T> Default for Flight<T> {
    fn default() -> Self {
        Self {
            landed: Mutex::new(Landed::NotYet),
            done: Condvar::new(),
        }
    }
}

impl<T: Clone> Flight<T> {
    fn wait(&self) -> Option<T> {
        let mut landed = self.landed.lock();
        self.done
            .wait_while(&mut landed, |landed| matches!(landed, Landed::NotYet));
        match &*landed {
            Landed::With(found) => Some(found.clone()),
            Landed::NotYet | Landed::Empty => None,
        }
    }
}

impl<K: Hash + Eq, T: Clone> Lead<'_, K, T> {
    /// Gives what was found to those who wait, if there are any.
    fn land(&self, found: &T) {
        self.flights.flights.lock().remove(self.name);
        // Nobody can join any more; whoever did holds the flight too.
        let awaited = Arc::strong_count(&self.flight) > 1;
        *self.flight.landed.lock() = if awaited {
            Landed::With(found.clone())
        } else {
            Landed::Empty
        };
    }
}

impl<K: Hash + Eq, T> Drop for Lead<'_, K, T> {
    fn drop(&mut self) {
        let mut landed = self.flight.landed.lock();
        if matches!(*landed, Landed::NotYet) {
            self.flights.flights.lock().remove(self.name);
            *landed = Landed::Empty;
        }
        drop(landed);
        self.flight.done.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicUsize, Ordering::SeqCst},
        thread,
        time::{Duration, Instant},
    };

    use super::*;

    /// Threads that have joined the flight of this name, its reader not counted.
    fn followers(flights: &Flights<u32, String>, name: u32) -> usize {
        let flights = flights.flights.lock();
        // The map and the reader hold one each.
        flights
            .get(&name)
            .map_or(0, |flight| Arc::strong_count(flight) - 2)
    }

    fn wait_until(what: &str, condition: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !condition() {
            assert!(Instant::now() < deadline, "{what}");
            thread::yield_now();
        }
    }

    #[test]
    fn those_who_come_during_a_read_share_it_and_those_after_it_do_not() {
        let (flights, reads) = (Flights::default(), AtomicUsize::new(0));
        let read = || {
            reads.fetch_add(1, SeqCst);
            "found".to_owned()
        };
        let (go, wait) = crossbeam_channel::bounded::<()>(1);
        thread::scope(|scope| {
            let first = scope.spawn(|| {
                flights.share(&7, || {
                    wait.recv().unwrap();
                    read()
                })
            });
            wait_until("the first reads", || {
                flights.flights.lock().contains_key(&7)
            });
            let others: Vec<_> = (0..3)
                .map(|_| scope.spawn(|| flights.share(&7, read)))
                .collect();
            // A flight of another name does not wait for this one.
            assert_eq!(flights.share(&8, read), "found");
            wait_until("three wait", || followers(&flights, 7) == 3);
            go.send(()).unwrap();
            assert_eq!(first.join().unwrap(), "found");
            for other in others {
                assert_eq!(other.join().unwrap(), "found");
            }
        });
        assert_eq!(reads.load(SeqCst), 2);
        assert_eq!(flights.share(&7, read), "found");
        assert_eq!(reads.load(SeqCst), 3);
        assert!(flights.flights.lock().is_empty());
    }

    #[test]
    fn those_who_wait_for_a_reader_that_fails_read_themselves() {
        let flights = Flights::default();
        let (go, wait) = crossbeam_channel::bounded::<()>(1);
        thread::scope(|scope| {
            let first = scope.spawn(|| {
                flights.share(&7, || {
                    wait.recv().unwrap();
                    std::panic::resume_unwind(Box::new("a reader that fails"))
                })
            });
            wait_until("the first reads", || {
                flights.flights.lock().contains_key(&7)
            });
            let other = scope.spawn(|| flights.share(&7, || "mine".to_owned()));
            wait_until("one waits", || followers(&flights, 7) == 1);
            go.send(()).unwrap();
            assert!(first.join().is_err());
            assert_eq!(other.join().unwrap(), "mine");
        });
        assert!(flights.flights.lock().is_empty());
    }
}
