use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// Tells one state of some files and folders from another without reading them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fingerprint(BTreeMap<PathBuf, Option<FileState>>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct FileState {
    written: (i64, i64),
    /// Also tells of changed permissions.
    changed: (i64, i64),
    size: u64,
    inode: u64,
}

impl Fingerprint {
    pub fn of<'a>(files: impl IntoIterator<Item = &'a Path>) -> Self {
        let mut all = BTreeMap::new();
        for file in files {
            all.insert(file.to_owned(), state(file));
            if let Ok(entries) = std::fs::read_dir(file) {
                let entries = entries.flatten().map(|entry| entry.path());
                all.extend(entries.map(|path| (path.clone(), state(&path))));
            }
        }
        Self(all)
    }
}

/// `None`: the file is not there.
fn state(file: &Path) -> Option<FileState> {
    let found = std::fs::metadata(file).ok()?;
    Some(FileState {
        written: (found.mtime(), found.mtime_nsec()),
        changed: (found.ctime(), found.ctime_nsec()),
        size: found.size(),
        inode: found.ino(),
    })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn whatever_happens_to_a_file_shows() {
        let home = tempfile::tempdir().unwrap();
        let (folder, file) = (home.path().join("keys"), home.path().join("clients.yaml"));
        let now = || Fingerprint::of([folder.as_path(), &file]);
        let mut seen = vec![now()];
        let mut look = |what: &str| {
            let next = now();
            assert!(!seen.contains(&next), "{what}");
            assert_eq!(next, now());
            seen.push(next);
        };
        fs::write(&file, "one").unwrap();
        look("it appears");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        look("its permissions");
        fs::write(home.path().join("new"), "two").unwrap();
        fs::rename(home.path().join("new"), &file).unwrap();
        look("another one in its place");
        fs::create_dir(&folder).unwrap();
        look("a folder appears");
        fs::write(folder.join("key.json"), "{}").unwrap();
        look("a file in a folder");
        fs::remove_file(folder.join("key.json")).unwrap();
        look("it goes");
    }
}
