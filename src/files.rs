//! Files that decide who gets access: who may have written them, and how they are changed.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use rustix::process::{DumpableBehavior, Resource, Rlimit};

/// How long another process may hold a lock.
const LOCK_PATIENCE: Duration = Duration::from_secs(10);
const LOCK_TRIES: u32 = 200;

/// What is wrong with who may write or read a file, and the cure.
#[derive(Debug, PartialEq, Eq)]
pub struct Unguarded {
    pub wrong: String,
    pub cure: String,
}

/// Who may have to do with a file besides its owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Others {
    /// Its group and others may read it.
    Read,
    /// Its group may read it: a Kubernetes secret with `fsGroup` is root:GROUP 0440.
    GroupReads,
}

impl Others {
    const fn forbidden(self) -> u32 {
        match self {
            Self::Read => 0o022,
            Self::GroupReads => 0o027,
        }
    }
}

/// Refuses a file that somebody other than root and this user can have written, or read where it is
/// private. The folder is not looked at: Kubernetes mounts secrets below one of mode 1777. An error
/// of the file system is left to the reader of the file.
pub fn check_guarded(path: &Path, others: Others) -> Result<(), Unguarded> {
    let Ok(found) = fs::metadata(path) else { return Ok(()) };
    let us = rustix::process::geteuid().as_raw();
    if found.uid() != 0 && found.uid() != us {
        return Err(Unguarded {
            wrong: format!("belongs to user {}, who can change it", found.uid()),
            cure: format!("run: chown {us} {}", path.display()),
        });
    }
    let mode = found.mode() & 0o7777;
    if mode & others.forbidden() == 0 {
        return Ok(());
    }
    let (rule, cure) = match others {
        Others::Read => ("must be writable only by its owner", "go-w"),
        Others::GroupReads => {
            ("must not be writable by its group, nor accessible to others", "600")
        }
    };
    let cure = format!("run: chmod {cure} {}", path.display());
    Err(Unguarded { wrong: format!("has mode {mode:04o}; it {rule}"), cure })
}

/// The file that a write goes to: behind a symbolic link the target is replaced, not the link.
pub fn behind_links(path: &Path) -> io::Result<PathBuf> {
    match fs::canonicalize(path) {
        Ok(target) => Ok(target),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if path.is_symlink() {
                let text =
                    "a symbolic link to a file that is not there; make the file or remove the link";
                return Err(io::Error::new(io::ErrorKind::NotFound, text));
            }
            Ok(path.to_owned())
        }
        Err(error) => Err(error),
    }
}

/// Keeps others that do the same out, until the file is dropped.
pub fn lock(folder: &Path) -> io::Result<File> {
    let file = File::open(folder)?;
    for _ in 0..LOCK_TRIES {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) => thread::sleep(LOCK_PATIENCE / LOCK_TRIES),
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
    let text = format!(
        "another process has had {} locked for {} s; end it",
        folder.display(),
        LOCK_PATIENCE.as_secs()
    );
    Err(io::Error::new(io::ErrorKind::TimedOut, text))
}

/// No core dump of this process: it would hold keys and secrets.
pub fn forbid_core_dumps() -> io::Result<()> {
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    rustix::process::setrlimit(Resource::Core, none)?;
    // Where dumps go to a program, the limit does not count.
    Ok(rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, chown, symlink};

    use super::*;

    #[test]
    fn who_may_have_written_a_file_counts() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("clients.yaml");
        fs::write(&path, "x").unwrap();
        let with = |mode, others| {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            check_guarded(&path, others)
        };
        for mode in [0o600, 0o640, 0o644, 0o444] {
            assert_eq!(with(mode, Others::Read), Ok(()), "{mode:o}");
        }
        for mode in [0o620, 0o602, 0o666, 0o664] {
            let refused = with(mode, Others::Read).unwrap_err();
            assert!(refused.wrong.contains(&format!("has mode {mode:04o}")), "{refused:?}");
            assert!(refused.cure.starts_with("run: chmod go-w "), "{refused:?}");
        }
        assert_eq!(with(0o440, Others::GroupReads), Ok(()));
        assert!(
            with(0o644, Others::GroupReads).is_err() && with(0o620, Others::GroupReads).is_err()
        );

        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        // Only root can give a file away.
        if chown(&path, Some(12_345), None).is_ok() {
            let refused = check_guarded(&path, Others::Read).unwrap_err();
            assert!(refused.wrong.contains("belongs to user 12345"), "{refused:?}");
        }
        assert_eq!(check_guarded(&home.path().join("gone"), Others::Read), Ok(()));
    }

    #[test]
    fn a_dangling_link_is_refused_and_a_good_one_followed() {
        let home = tempfile::tempdir().unwrap();
        let (target, link) = (home.path().join("target"), home.path().join("link"));
        symlink(&target, &link).unwrap();
        assert!(behind_links(&link).unwrap_err().to_string().contains("remove the link"));
        fs::write(&target, "x").unwrap();
        assert_eq!(behind_links(&link).unwrap(), fs::canonicalize(&target).unwrap());
        let new = home.path().join("new");
        assert_eq!(behind_links(&new).unwrap(), new);
    }

    #[test]
    fn nothing_is_dumped_any_more() {
        forbid_core_dumps().unwrap();
        let limit = rustix::process::getrlimit(Resource::Core);
        assert_eq!((limit.current, limit.maximum), (Some(0), Some(0)));
        assert_eq!(rustix::process::dumpable_behavior().unwrap(), DumpableBehavior::NotDumpable);
    }
}
