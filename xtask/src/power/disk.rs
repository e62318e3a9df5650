//! A disk that may lose its power: the events of a trace in order, and what it might hold after a cut.
//!
//! The strict model of a file system with a journal: a file's bytes are safe by a sync of that file, a name by a sync of
//! its directory, and neither by the other. What happened to the names of a directory survives in order, up to some
//! moment; what was written since the last sync in any part and order. Asking the kernel to write a range
//! makes nothing safe.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use super::draws::Draws;
use super::file::{Change, FileState, Survival};
use super::trace::{Event, FileId, ROOT, What};
use crate::failure::Failure;

/// The disk as the events so far left it.
#[derive(Debug)]
pub(crate) struct Disk<'a> {
    trace: &'a [u8],
    files: HashMap<FileId, FileState>,
    dirs: HashMap<FileId, Dir>,
    /// The events at which the syncs under way began.
    syncs: HashMap<u64, usize>,
    /// The number of the next event.
    number: usize,
}

/// The names in a directory.
#[derive(Debug, Clone, Default)]
struct Dir {
    /// Those on stable storage, …
    kept: Names,
    /// … what happened since, with the numbers of the events, …
    changes: Vec<(usize, NameChange)>,
    /// … and those that a program sees.
    now: Names,
}

type Names = BTreeMap<String, Node>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Node {
    File(FileId),
    Dir(FileId),
}

#[derive(Debug, Clone)]
enum NameChange {
    Set(String, Node),
    Remove(String),
    Move { from: String, to: String },
}

/// What a power cut left: paths below the root.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Image {
    pub(crate) dirs: Vec<String>,
    pub(crate) files: BTreeMap<String, Vec<u8>>,
}

impl<'a> Disk<'a> {
    /// An empty disk, and the bytes that events point into.
    pub(crate) fn new(trace: &'a [u8]) -> Self {
        Self {
            trace,
            files: HashMap::new(),
            dirs: HashMap::from([(ROOT, Dir::default())]),
            syncs: HashMap::new(),
            number: 0,
        }
    }

    /// Takes the next event in.
    ///
    /// # Errors
    /// It does not follow from those before: the library missed something.
    pub(crate) fn apply(&mut self, event: &Event) -> Result<(), Failure> {
        let number = self.number;
        self.number += 1;
        let strange = || {
            Failure::Failed(format!(
                "event {number} of the trace does not fit: {event:?}"
            ))
        };
        self.apply_numbered(number, &event.what).ok_or_else(strange)
    }

    fn apply_numbered(&mut self, number: usize, what: &What) -> Option<()> {
        match what {
            What::Created { file, path } => {
                self.files.insert(*file, FileState::default());
                self.set(number, path, Node::File(*file))
            }
            What::DirMade { dir, path } => {
                self.dirs.insert(*dir, Dir::default());
                self.set(number, path, Node::Dir(*dir))
            }
            What::Written {
                file,
                offset,
                bytes,
            } => {
                let (offset, bytes) = (*offset, bytes.clone());
                self.change_file(number, *file, Change::Write { offset, bytes })
            }
            What::Cut { file, bytes } => {
                self.change_file(number, *file, Change::Cut { bytes: *bytes })
            }
            What::SyncBegan { sync, .. } => {
                self.syncs.insert(*sync, number);
                Some(())
            }
            What::SyncEnded { file, sync } => {
                let began = self.syncs.remove(sync)?;
                match (self.files.get_mut(file), self.dirs.get_mut(file)) {
                    (Some(file), _) => file.sync(self.trace, began),
                    (None, Some(dir)) => dir.sync(began),
                    (None, None) => return None,
                }
                Some(())
            }
            What::SyncFailed { file, sync } => {
                let began = self.syncs.remove(sync)?;
                if let Some(file) = self.files.get_mut(file) {
                    file.fail_sync(began);
                }
                Some(())
            }
            What::Renamed { from, to } => {
                let (from_dir, from) = self.parent(from)?;
                let (to_dir, to) = self.parent(to)?;
                // Across directories, no program here renames.
                if from_dir != to_dir {
                    return None;
                }
                let (from, to) = (from.to_owned(), to.to_owned());
                self.change_names(number, to_dir, NameChange::Move { from, to })
            }
            What::Unlinked { path } | What::DirRemoved { path } => {
                let (dir, name) = self.parent(path)?;
                self.change_names(number, dir, NameChange::Remove(name.to_owned()))
            }
            What::Linked { from, to } => {
                let (dir, name) = self.parent(from)?;
                let node = *self.dirs.get(&dir)?.now.get(name)?;
                self.set(number, to, node)
            }
            What::RangeSynced { .. } => Some(()),
        }
    }

    fn set(&mut self, number: usize, path: &str, node: Node) -> Option<()> {
        let (dir, name) = self.parent(path)?;
        self.change_names(number, dir, NameChange::Set(name.to_owned(), node))
    }

    fn change_file(&mut self, number: usize, file: FileId, change: Change) -> Option<()> {
        self.files.get_mut(&file)?.change(number, change);
        Some(())
    }

    fn change_names(&mut self, number: usize, dir: FileId, change: NameChange) -> Option<()> {
        let dir = self.dirs.get_mut(&dir)?;
        change.apply(&mut dir.now)?;
        dir.changes.push((number, change));
        Some(())
    }

    /// The directory that a path lies in, as a program sees it, and the last name of the path.
    fn parent<'p>(&self, path: &'p str) -> Option<(FileId, &'p str)> {
        let (above, name) = path.rsplit_once('/').unwrap_or(("", path));
        let mut dir = ROOT;
        for part in above.split('/').filter(|part| !part.is_empty()) {
            match self.dirs.get(&dir)?.now.get(part)? {
                Node::Dir(below) => dir = *below,
                Node::File(_) => return None,
            }
        }
        Some((dir, name))
    }

    /// What a power cut now might leave.
    pub(crate) fn image(&self, survival: Survival, draws: &mut Draws) -> Image {
        let mut image = Image::default();
        self.add_dir(ROOT, "", survival, draws, &mut image);
        image
    }

    fn add_dir(
        &self,
        dir: FileId,
        path: &str,
        survival: Survival,
        draws: &mut Draws,
        image: &mut Image,
    ) {
        let Some(dir) = self.dirs.get(&dir) else {
            return;
        };
        for (name, node) in dir.survivor(survival, draws) {
            let path = match path {
                "" => name,
                path => format!("{path}/{name}"),
            };
            match node {
                Node::File(file) => {
                    if let Some(file) = self.files.get(&file) {
                        let content = file.survivor(self.trace, survival, draws);
                        image.files.insert(path, content);
                    }
                }
                Node::Dir(below) => {
                    image.dirs.push(path.clone());
                    self.add_dir(below, &path, survival, draws, image);
                }
            }
        }
    }
}

impl Dir {
    fn sync(&mut self, began: usize) {
        let synced = self.changes.partition_point(|(number, _)| *number < began);
        for (_, change) in self.changes.drain(..synced) {
            // It was so when it was made.
            change.apply(&mut self.kept);
        }
    }

    fn survivor(&self, survival: Survival, draws: &mut Draws) -> Names {
        let moments = self.changes.len();
        let reached = match survival {
            Survival::Nothing => 0,
            Survival::Everything => moments,
            _ => draws.moment(moments),
        };
        let mut names = self.kept.clone();
        for (_, change) in &self.changes[..reached] {
            change.apply(&mut names);
        }
        names
    }
}

impl NameChange {
    /// None if there is nothing that it could change.
    fn apply(&self, names: &mut Names) -> Option<()> {
        match self {
            Self::Set(name, node) => {
                names.insert(name.clone(), *node);
            }
            Self::Remove(name) => {
                names.remove(name)?;
            }
            Self::Move { from, to } => {
                let node = names.remove(from)?;
                names.insert(to.clone(), node);
            }
        }
        Some(())
    }
}

impl Image {
    /// Writes it to a directory that is there and empty.
    pub(crate) fn write(&self, root: &Path) -> Result<(), Failure> {
        let fail = |path: &Path, error| Failure::new(path.display(), error);
        for dir in &self.dirs {
            let path = root.join(dir);
            std::fs::create_dir(&path).map_err(|error| fail(&path, error))?;
        }
        for (name, content) in &self.files {
            let path = root.join(name);
            std::fs::write(&path, content).map_err(|error| fail(&path, error))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A disk, and a trace whose every write is of the same byte.
    struct Bench {
        trace: Vec<u8>,
        events: Vec<What>,
    }

    impl Bench {
        fn new() -> Self {
            let mut bench = Self {
                trace: vec![b'x'; 64],
                events: Vec::new(),
            };
            bench.make_dir(2, "data");
            bench
        }

        fn make_dir(&mut self, dir: FileId, path: &str) {
            let path = path.to_owned();
            self.events.push(What::DirMade { dir, path });
        }

        fn create(&mut self, file: FileId, path: &str) {
            let path = path.to_owned();
            self.events.push(What::Created { file, path });
        }

        fn write(&mut self, file: FileId, length: usize) {
            self.events.push(What::Written {
                file,
                offset: 0,
                bytes: 0..length,
            });
        }

        fn sync(&mut self, file: FileId) {
            let sync = self.events.len() as u64;
            self.events.push(What::SyncBegan { file, sync });
            self.events.push(What::SyncEnded { file, sync });
        }

        fn rename(&mut self, from: &str, to: &str) {
            let (from, to) = (from.to_owned(), to.to_owned());
            self.events.push(What::Renamed { from, to });
        }

        fn images(&self, survival: Survival) -> Vec<Vec<(String, usize)>> {
            let mut disk = Disk::new(&self.trace);
            for what in &self.events {
                let what = what.clone();
                disk.apply(&Event { at_ns: 0, what }).unwrap();
            }
            let mut seen: Vec<Vec<(String, usize)>> = (0..200)
                .map(|seed| {
                    let image = disk.image(survival, &mut Draws::new(seed, 0));
                    let files = image.files.into_iter();
                    files.map(|(path, bytes)| (path, bytes.len())).collect()
                })
                .collect();
            seen.sort();
            seen.dedup();
            seen
        }
    }

    #[test]
    fn a_name_is_safe_by_a_sync_of_its_directory_and_not_of_its_file() {
        let mut bench = Bench::new();
        bench.sync(ROOT);
        bench.create(3, "data/a");
        bench.write(3, 5);
        bench.sync(3);
        assert_eq!(bench.images(Survival::Nothing), [vec![]]);
        bench.sync(2);
        let there = vec![("data/a".to_owned(), 5)];
        assert_eq!(bench.images(Survival::Nothing), [there]);
    }

    #[test]
    fn a_directory_whose_name_is_lost_takes_all_with_it() {
        let mut bench = Bench::new();
        bench.create(3, "data/a");
        bench.sync(3);
        bench.sync(2);
        assert_eq!(bench.images(Survival::Nothing), [vec![]]);
        assert_eq!(bench.images(Survival::Everything).len(), 1);
        assert_eq!(bench.images(Survival::Sectors).len(), 2, "there or not");
    }

    #[test]
    fn a_rename_shows_the_old_or_the_new_file_and_never_none() {
        let mut bench = Bench::new();
        bench.sync(ROOT);
        bench.create(3, "data/MANIFEST");
        bench.write(3, 5);
        bench.sync(3);
        bench.sync(2);
        bench.create(4, "data/MANIFEST.new");
        bench.write(4, 9);
        bench.sync(4);
        bench.rename("data/MANIFEST.new", "data/MANIFEST");
        let file = |name: &str, bytes| (format!("data/{name}"), bytes);
        let seen = bench.images(Survival::Sectors);
        assert_eq!(
            seen,
            [
                vec![file("MANIFEST", 5)],
                vec![file("MANIFEST", 5), file("MANIFEST.new", 9)],
                vec![file("MANIFEST", 9)],
            ]
        );
        bench.sync(2);
        assert_eq!(bench.images(Survival::Sectors), [vec![file("MANIFEST", 9)]]);
    }

    #[test]
    fn what_happens_to_names_survives_in_order() {
        let mut bench = Bench::new();
        bench.sync(ROOT);
        bench.create(3, "data/a");
        bench.create(4, "data/b");
        let path = "data/a".to_owned();
        bench.events.push(What::Unlinked { path });
        let names = |seen: &[(String, usize)]| seen.iter().map(|file| file.0.clone()).collect();
        let seen: Vec<Vec<String>> = bench
            .images(Survival::Pages)
            .iter()
            .map(|files| names(files))
            .collect();
        let (a, b) = ("data/a".to_owned(), "data/b".to_owned());
        assert_eq!(seen, [vec![], vec![a.clone()], vec![a, b.clone()], vec![b]]);
    }

    #[test]
    fn what_does_not_follow_is_an_error() {
        let trace = [0; 8];
        let mut disk = Disk::new(&trace);
        let what = What::Written {
            file: 9,
            offset: 0,
            bytes: 0..1,
        };
        let failure = disk.apply(&Event { at_ns: 0, what }).unwrap_err();
        assert!(failure.to_string().contains("event 0"), "{failure}");
    }
}
