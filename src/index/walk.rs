//! Finds the files of a corpus.
//!
//! Hidden files and links are treated as ripgrep treats them by default: what is hidden is left
//! out, and links are not followed. A path that was given by name is always taken, be it hidden or
//! a link. Files that say what a version control system should ignore are not obeyed.

use std::{
    error::Error,
    io,
    path::{Path, PathBuf},
};

use ignore::WalkBuilder;

/// Something that the walk came upon.
#[derive(Debug)]
pub(crate) enum Found {
    /// A file to read.
    File(PathBuf),
    /// A path that could not be looked at, and why.
    Unreadable { path: PathBuf, reason: String },
}

/// Walks through each path in turn, in the order of the names, so that two runs over the same
/// files give their documents the same numbers. The directory `left_out`, where a server writes
/// while files are read, is not entered unless it was given by name.
pub(crate) fn walk(paths: &[PathBuf], left_out: Option<&Path>) -> impl Iterator<Item = Found> {
    let left_out = left_out.and_then(|directory| directory.canonicalize().ok());
    paths.iter().flat_map(move |path| {
        let left_out = left_out.clone();
        let walk = WalkBuilder::new(path)
            .standard_filters(false)
            .hidden(true)
            .follow_links(false)
            .sort_by_file_name(Ord::cmp)
            .filter_entry(move |entry| !is_left_out(entry, left_out.as_deref()))
            .build();
        walk.filter_map(move |entry| found(entry, path))
    })
}

fn is_left_out(entry: &ignore::DirEntry, left_out: Option<&Path>) -> bool {
    // Names are compared first, since only they cost nothing.
    let same_name = left_out.is_some_and(|path| path.file_name() == Some(entry.file_name()));
    same_name
        && entry.depth() > 0
        && entry.file_type().is_some_and(|kind| kind.is_dir())
        && entry.path().canonicalize().ok().as_deref() == left_out
}

fn found(entry: Result<ignore::DirEntry, ignore::Error>, root: &Path) -> Option<Found> {
    let entry = match entry {
        Ok(entry) => entry,
        Err(error) => return Some(unreadable(&error, root)),
    };
    let kind = entry.file_type()?;
    let given_by_name = entry.depth() == 0;
    // Links, sockets and devices are no documents, unless one was asked for; opening it then says
    // what is wrong with it. A link to a directory is walked through by the entries after it.
    let is_document = kind.is_file()
        || given_by_name && !kind.is_dir() && !(kind.is_symlink() && entry.path().is_dir());
    if !is_document {
        return None;
    }
    Some(Found::File(entry.into_path()))
}

fn unreadable(error: &ignore::Error, root: &Path) -> Found {
    Found::Unreadable {
        path: path_of(error).unwrap_or(root).to_path_buf(),
        reason: error
            .io_error()
            .map_or_else(|| error.to_string(), plain_reason),
    }
}

fn path_of(error: &ignore::Error) -> Option<&Path> {
    match error {
        ignore::Error::WithPath { path, .. } => Some(path),
        ignore::Error::Loop { child, .. } => Some(child),
        ignore::Error::WithDepth { err, .. } | ignore::Error::WithLineNumber { err, .. } => {
            path_of(err)
        }
        _ => None,
    }
}

/// The reason of an I/O error without the path, which some errors repeat.
pub(crate) fn plain_reason(error: &io::Error) -> String {
    let mut cause: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(code) = error.downcast_ref().and_then(io::Error::raw_os_error) {
            return io::Error::from_raw_os_error(code).to_string();
        }
        cause = error.source();
    }
    error.to_string()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn names(found: impl Iterator<Item = Found>, root: &Path) -> Vec<String> {
        let name = |found| match found {
            Found::File(path) => path.strip_prefix(root).unwrap().display().to_string(),
            Found::Unreadable { path, .. } => format!("unreadable {}", path.display()),
        };
        found.map(name).collect()
    }

    #[test]
    fn hidden_files_and_links_are_left_out_and_ignore_files_are_not_obeyed() -> io::Result<()> {
        let root = tempfile::tempdir()?;
        let at = |name: &str| root.path().join(name);
        fs::create_dir_all(at("deep/.git"))?;
        for name in [
            "b.txt",
            "a.txt",
            ".hidden",
            "deep/c.txt",
            "deep/.git/config",
        ] {
            fs::write(at(name), "text")?;
        }
        fs::write(at("deep/.gitignore"), "c.txt")?;
        fs::write(at(".ignore"), "a.txt")?;
        std::os::unix::fs::symlink(at("a.txt"), at("link"))?;
        assert_eq!(
            names(walk(&[root.path().to_path_buf()], None), root.path()),
            ["a.txt", "b.txt", "deep/c.txt"]
        );
        Ok(())
    }

    #[test]
    fn paths_given_by_name_are_always_taken() -> io::Result<()> {
        let root = tempfile::tempdir()?;
        let at = |name: &str| root.path().join(name);
        fs::create_dir_all(at(".hidden_dir"))?;
        fs::create_dir_all(at("target"))?;
        for name in [".hidden_dir/a", ".hidden", "target/b"] {
            fs::write(at(name), "text")?;
        }
        std::os::unix::fs::symlink(at(".hidden"), at("file_link"))?;
        std::os::unix::fs::symlink(at("target"), at("dir_link"))?;
        let given = [".hidden_dir", ".hidden", "file_link", "dir_link"].map(at);
        assert_eq!(
            names(walk(&given, None), root.path()),
            [".hidden_dir/a", ".hidden", "file_link", "dir_link/b"]
        );
        Ok(())
    }

    #[test]
    fn a_missing_path_is_unreadable() -> io::Result<()> {
        let root = tempfile::tempdir()?;
        let missing = root.path().join("missing");
        let found: Vec<_> = walk(std::slice::from_ref(&missing), None).collect();
        assert!(
            matches!(&found[..], [Found::Unreadable { path, reason }]
                if *path == missing && reason.starts_with("No such file")),
            "{found:?}"
        );
        Ok(())
    }

    #[test]
    fn the_directory_of_the_data_is_left_out_unless_given_by_name() -> io::Result<()> {
        let root = tempfile::tempdir()?;
        let at = |name: &str| root.path().join(name);
        for name in ["data", "deep/data"] {
            fs::create_dir_all(at(name))?;
            fs::write(at(name).join("file"), "text")?;
        }
        let data = at("deep/../data");
        let found = |path| names(walk(&[path], Some(&data)), root.path());
        assert_eq!(found(root.path().to_path_buf()), ["deep/data/file"]);
        assert_eq!(found(at("data")), ["data/file"]);
        Ok(())
    }
}
