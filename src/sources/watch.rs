use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};

/// Tells of changes in the folders of some files, until it is dropped. Folders rather than files:
/// editors, `clients add` and Kubernetes replace files by renaming. Not every file system tells, so
/// that users of this also look by themselves, now and then.
pub struct FolderWatch(Option<RecommendedWatcher>);

impl FolderWatch {
    pub fn start(files: &[PathBuf], changed: impl Fn() + Send + 'static) -> Self {
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // Reading the files is an event too.
            if event.is_ok_and(|event| !event.kind.is_access()) {
                changed();
            }
        });
        let watcher = watcher.inspect_err(|error| {
            tracing::warn!(%error, "files are looked at every few seconds only");
        });
        let mut watch = Self(watcher.ok());
        if let Some(watcher) = &mut watch.0 {
            for folder in folders(files) {
                if let Err(error) = watcher.watch(&folder, RecursiveMode::NonRecursive) {
                    tracing::debug!(%error, folder = %folder.display(), "not watched");
                }
            }
        }
        watch
    }
}

fn folders(files: &[PathBuf]) -> BTreeSet<PathBuf> {
    let parents = files.iter().filter_map(|file| file.parent());
    let folders = files.iter().map(PathBuf::as_path).filter(|file| file.is_dir());
    // A bare file name has an empty parent.
    let here =
        |folder: &Path| if folder.as_os_str().is_empty() { ".".into() } else { folder.into() };
    parents.chain(folders).map(here).collect()
}
