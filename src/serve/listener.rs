use std::fmt;
use std::fs::Permissions;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};

use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio_util::either::Either;

use crate::config::{ListenAddress, SocketAccess};

/// A bound socket.
pub enum Listener {
    /// Over TCP.
    Tcp(TcpListener),
    /// Over a Unix socket.
    Unix(UnixListener),
}

/// An accepted one.
pub type Socket = Either<TcpStream, UnixStream>;

/// Where a listener is bound, as a config would write it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bound {
    /// With the port that was given.
    Tcp(SocketAddr),
    /// The socket's path.
    Unix(PathBuf),
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl Listener {
    /// Fails where the address is in use.
    pub async fn bind(address: &ListenAddress) -> io::Result<(Self, Bound)> {
        match address {
            ListenAddress::Tcp(address) => {
                let listener = TcpListener::bind(address).await?;
                let bound = Bound::Tcp(listener.local_addr()?);
                Ok((Self::Tcp(listener), bound))
            }
            ListenAddress::Unix(path, access) => {
                let listener = bind_unix(path, access)?;
                Ok((Self::Unix(listener), Bound::Unix(path.clone())))
            }
        }
    }
}

/// Binds in a folder that only we can enter, so that nobody connects before mode and group are as
/// they should be, then puts the socket where it belongs.
fn bind_unix(path: &Path, access: &SocketAccess) -> io::Result<UnixListener> {
    refuse_what_is_there(path)?;
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let private = tempfile::Builder::new()
        .prefix(".tg")
        .permissions(Permissions::from_mode(0o700))
        .tempdir_in(parent.unwrap_or(Path::new(".")))?;
    let socket = private.path().join("s");
    let listener = UnixListener::bind(&socket)?;
    if let Some(group) = &access.group {
        chown(&socket, None, Some(group_id(group)?))?;
    }
    std::fs::set_permissions(&socket, Permissions::from_mode(access.mode))?;
    std::fs::rename(&socket, path)?;
    Ok(listener)
}

/// A socket that a killed process left behind answers nobody and is replaced; one that answers is
/// in use.
fn refuse_what_is_there(path: &Path) -> io::Result<()> {
    match std::fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            "a file that is not a socket is there",
        )),
        Ok(_) if std::os::unix::net::UnixStream::connect(path).is_ok() => {
            Err(io::Error::from(io::ErrorKind::AddrInUse))
        }
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// A number, or a name in /etc/group.
fn group_id(group: &str) -> io::Result<u32> {
    if let Ok(id) = group.parse() {
        return Ok(id);
    }
    let groups = std::fs::read_to_string("/etc/group")?;
    let id = groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(group)).then(|| fields.nth(1)?.parse().ok()).flatten()
    });
    let missing = || format!("no group `{group}` in /etc/group; write its number");
    id.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, missing()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    fn address(path: &Path, access: SocketAccess) -> ListenAddress {
        ListenAddress::Unix(path.to_owned(), access)
    }

    #[tokio::test]
    async fn replaces_a_stale_socket_but_neither_a_live_one_nor_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("check.sock");
        let at = address(&path, SocketAccess::default());
        let (first, _) = Listener::bind(&at).await.unwrap();
        let in_use = Listener::bind(&at).await.err().unwrap();
        assert_eq!(in_use.kind(), io::ErrorKind::AddrInUse);
        drop(first);
        let (_second, _) = Listener::bind(&at).await.unwrap();
        assert!(std::os::unix::net::UnixStream::connect(&path).is_ok());

        let file = dir.path().join("file");
        std::fs::write(&file, "x").unwrap();
        let refused = Listener::bind(&address(&file, SocketAccess::default())).await.err().unwrap();
        assert_eq!(refused.kind(), io::ErrorKind::AlreadyExists);
        assert!(file.exists());
    }

    #[tokio::test]
    async fn a_socket_has_the_mode_and_group_that_it_is_given_and_nothing_is_left_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("check.sock");
        let own_group = std::fs::metadata(dir.path()).unwrap().gid();
        for (mode, group) in [(0o660, None), (0o600, Some(own_group.to_string()))] {
            let at = address(&path, SocketAccess { mode, group });
            let (_listener, _) = Listener::bind(&at).await.unwrap();
            let found = std::fs::metadata(&path).unwrap();
            assert_eq!((found.mode() & 0o777, found.gid()), (mode, own_group));
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
        let at = address(&path, SocketAccess { mode: 0o600, group: Some("no-such-group".into()) });
        let unknown = Listener::bind(&at).await.err().unwrap();
        assert!(unknown.to_string().contains("no-such-group"), "{unknown}");
    }
}
