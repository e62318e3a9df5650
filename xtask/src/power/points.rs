//! Where the power is cut: anywhere in a trace, and more often where it might hurt.

use std::collections::HashSet;

use super::draws::Draws;
use super::trace::{Trace, What};

/// A cut comes no more than so many events behind one that it is drawn for.
const BEHIND_MAX: u64 = 3;

/// What a trace is made of; what is 0 was not tested.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Deeds {
    pub(crate) log_writes: usize,
    pub(crate) log_syncs: usize,
    pub(crate) segments_begun: usize,
    pub(crate) segments_removed: usize,
    pub(crate) runs_finished: usize,
    pub(crate) runs_removed: usize,
    pub(crate) sled_writes: usize,
    pub(crate) manifest_syncs: usize,
    pub(crate) manifests_replaced: usize,
}

/// The files of the log, and those that were a manifest.
#[derive(Debug, Default)]
pub(crate) struct Kinds {
    pub(crate) logs: HashSet<u64>,
    sleds: HashSet<u64>,
    manifests: HashSet<u64>,
}

impl Kinds {
    /// By the names under which files were made.
    pub(crate) fn of(trace: &Trace) -> Self {
        let mut kinds = Self::default();
        for event in &trace.events {
            if let What::Created { file, path } = &event.what {
                if path.contains("/log/") {
                    kinds.logs.insert(*file);
                } else if path.contains("/sled") {
                    kinds.sleds.insert(*file);
                } else if path.contains("/MANIFEST") {
                    kinds.manifests.insert(*file);
                }
            }
        }
        kinds
    }
}

/// Counts what a trace is made of.
pub(crate) fn deeds(trace: &Trace) -> Deeds {
    let kinds = Kinds::of(trace);
    let mut deeds = Deeds::default();
    for event in &trace.events {
        let deed = match &event.what {
            What::Created { path, .. } if path.contains("/log/") => &mut deeds.segments_begun,
            What::Written { file, .. } if kinds.logs.contains(file) => &mut deeds.log_writes,
            What::Written { file, .. } if kinds.sleds.contains(file) => &mut deeds.sled_writes,
            What::SyncEnded { file, .. } if kinds.logs.contains(file) => &mut deeds.log_syncs,
            What::SyncEnded { file, .. } if kinds.manifests.contains(file) => {
                &mut deeds.manifest_syncs
            }
            What::Renamed { to, .. } if to.ends_with("/MANIFEST") => &mut deeds.manifests_replaced,
            What::Renamed { to, .. } if to.ends_with(".run") => &mut deeds.runs_finished,
            What::Unlinked { path } if path.contains("/log/") => &mut deeds.segments_removed,
            What::Unlinked { path } if path.ends_with(".run") => &mut deeds.runs_removed,
            _ => continue,
        };
        *deed += 1;
    }
    deeds
}

impl Deeds {
    /// Whether the disk did everything that it can be asked for.
    pub(crate) fn are_all(&self) -> bool {
        [
            self.log_writes,
            self.log_syncs,
            self.segments_begun,
            self.segments_removed,
            self.runs_finished,
            self.runs_removed,
            self.sled_writes,
            self.manifest_syncs,
            self.manifests_replaced,
        ]
        .iter()
        .all(|deeds| *deeds > 0)
    }
}

/// Draws points, in order; at a point the events before it have happened, and none from it on.
pub(crate) fn draw(trace: &Trace, count: usize, draws: &mut Draws) -> Vec<usize> {
    let kinds = Kinds::of(trace);
    let matters = |what: &What| match what {
        What::RangeSynced { .. } => false,
        What::Written { file, .. } => kinds.manifests.contains(file),
        What::SyncBegan { file, .. } | What::SyncEnded { file, .. } => !kinds.logs.contains(file),
        _ => true,
    };
    let places = trace.events.iter().enumerate();
    let places = places.filter(|(_, event)| matters(&event.what));
    let places: Vec<usize> = places.map(|(index, _)| index).collect();
    let end = trace.events.len();
    let mut points: Vec<usize> = (0..count)
        .map(|number| {
            if number % 2 == 0 || places.is_empty() {
                return draws.below(end as u64 + 1) as usize;
            }
            let place = places[draws.below(places.len() as u64) as usize];
            end.min(place + draws.below(BEHIND_MAX + 1) as usize)
        })
        .collect();
    points.sort_unstable();
    points
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::power::trace::Event;

    #[test]
    fn half_of_the_points_are_where_something_happens() {
        let write = What::Written {
            file: 2,
            offset: 0,
            bytes: 0..0,
        };
        let mut whats = vec![write; 10_000];
        let path = "data/log/1.log".to_owned();
        whats[0] = What::Created { file: 2, path };
        whats[5000] = What::Renamed {
            from: "data/MANIFEST.new".to_owned(),
            to: "data/MANIFEST".to_owned(),
        };
        let events = whats.into_iter().map(|what| Event { at_ns: 0, what });
        let trace = Trace {
            bytes: Vec::new(),
            events: events.collect(),
        };
        let points = draw(&trace, 400, &mut Draws::new(1, 1));
        assert!(points.is_sorted() && points.len() == 400);
        let near = points.iter().filter(|point| (5000..=5003).contains(*point));
        assert!(near.count() > 60);
        let deeds = deeds(&trace);
        assert_eq!((deeds.log_writes, deeds.manifests_replaced), (9998, 1));
        assert!(!deeds.are_all());
    }
}
