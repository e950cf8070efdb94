use std::fmt;
use std::fs::Permissions;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use tokio::net::{TcpListener, UnixListener};

use crate::config::ListenAddress;

/// A bound socket.
pub enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// Where a listener is bound, as a config would write it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bound {
    Tcp(SocketAddr),
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
    pub async fn bind(address: &ListenAddress) -> io::Result<(Self, Bound)> {
        match address {
            ListenAddress::Tcp(address) => {
                let listener = TcpListener::bind(address).await?;
                let bound = Bound::Tcp(listener.local_addr()?);
                Ok((Self::Tcp(listener), bound))
            }
            ListenAddress::Unix(path) => {
                remove_stale_socket(path)?;
                let listener = UnixListener::bind(path)?;
                // The group may connect: Envoy's container can run as another user.
                std::fs::set_permissions(path, Permissions::from_mode(0o660))?;
                Ok((Self::Unix(listener), Bound::Unix(path.clone())))
            }
        }
    }
}

/// A socket that a killed process left behind answers nobody; one that answers is in use.
fn remove_stale_socket(path: &Path) -> io::Result<()> {
    match std::fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => {
            Err(io::Error::new(io::ErrorKind::AlreadyExists, "a file that is no socket is there"))
        }
        Ok(_) if std::os::unix::net::UnixStream::connect(path).is_ok() => {
            Err(io::Error::from(io::ErrorKind::AddrInUse))
        }
        Ok(_) => std::fs::remove_file(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn replaces_a_stale_socket_but_neither_a_live_one_nor_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("check.sock");
        let address = ListenAddress::Unix(path.clone());
        let (first, _) = Listener::bind(&address).await.unwrap();
        let in_use = Listener::bind(&address).await.err().unwrap();
        assert_eq!(in_use.kind(), io::ErrorKind::AddrInUse);
        drop(first);
        Listener::bind(&address).await.unwrap();

        let file = dir.path().join("file");
        std::fs::write(&file, "x").unwrap();
        let refused = Listener::bind(&ListenAddress::Unix(file.clone())).await.err().unwrap();
        assert_eq!(refused.kind(), io::ErrorKind::AlreadyExists);
        assert!(file.exists());
    }
}
