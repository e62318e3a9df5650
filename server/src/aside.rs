//! Where damaged files go: they are not removed, for whoever can do more with them.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// Where damaged files go, inside the data directory.
const ASIDE: &str = "damaged";

/// Where the damaged files of a data directory are put.
#[derive(Debug)]
pub(crate) struct Aside(PathBuf);

impl Aside {
    /// Those of a data directory.
    pub(crate) fn of(data_dir: &Path) -> Self {
        Self(data_dir.join(ASIDE))
    }

    /// The directory, if anything was ever put there.
    pub(crate) fn existing(self) -> Option<PathBuf> {
        self.0.is_dir().then_some(self.0)
    }

    /// Where it is, or would be.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// The directory, made if need be.
    pub(crate) fn make(&self) -> io::Result<&Path> {
        fs::create_dir_all(&self.0)?;
        Ok(&self.0)
    }

    /// Where a file or directory goes; one of its name that is there already stays.
    pub(crate) fn place_for(&self, path: &Path) -> io::Result<PathBuf> {
        let dir = self.make()?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let free = (0..u32::MAX)
            .map(|number| match number {
                0 => dir.join(&*name),
                number => dir.join(format!("{name}.{number}")),
            })
            .find(|path| !path.exists());
        Ok(free.unwrap_or_else(|| dir.join(&*name)))
    }

    /// Puts a file or directory there.
    pub(crate) fn move_here(&self, path: &Path) -> io::Result<()> {
        fs::rename(path, self.place_for(path)?)
    }

    /// Puts a copy of a file or directory there.
    pub(crate) fn copy_here(&self, path: &Path) -> io::Result<()> {
        copy_all(path, &self.place_for(path)?)
    }
}

fn copy_all(from: &Path, to: &Path) -> io::Result<()> {
    if !from.is_dir() {
        return fs::copy(from, to).map(drop);
    }
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let path = entry?.path();
        copy_all(&path, &to.join(path.file_name().unwrap_or_default()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_already_stays() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("file");
        let aside = Aside::of(dir.path());
        for text in ["one", "two", "three"] {
            fs::write(&file, text).expect("a file");
            aside.copy_here(&file).expect("a copy");
        }
        aside.move_here(&file).expect("a move");
        assert!(!file.exists());
        let texts = ["file", "file.1", "file.2", "file.3"]
            .map(|name| fs::read_to_string(dir.path().join(ASIDE).join(name)).expect("a file"));
        assert_eq!(texts, ["one", "two", "three", "three"]);
    }

    #[test]
    fn a_directory_is_copied_with_all_that_is_in_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let from = dir.path().join("from");
        fs::create_dir_all(from.join("inner")).expect("a directory");
        fs::write(from.join("inner/file"), "text").expect("a file");
        Aside::of(dir.path()).copy_here(&from).expect("a copy");
        let copy = dir.path().join(ASIDE).join("from/inner/file");
        assert_eq!(fs::read_to_string(copy).expect("a file"), "text");
        assert!(from.exists());
    }
}
