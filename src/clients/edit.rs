//! Changes to the file: one at a time, all or nothing.

use std::fs::{self, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::file::{
    Misshapen, RawClient, RawClientStatus, RawCredential, RawCredentialStatus, RawRegistry, read,
};
use super::load::parse_time;
use crate::domain::{MAX_ACTIVE_CREDENTIALS, Problem, Timestamp};
use crate::files;
use crate::yaml::locate;

const HEAD: &str = "\
# The client registry of tenantgate. The commands `tenantgate clients add`, `rotate`, `revoke` and \
`revoke-tokens`
# rewrite this file in one form: comments of your own are not kept.
";

#[derive(Debug, Error)]
pub enum EditError {
    #[error("{}", lines(.0))]
    Problems(Vec<Problem>),
    #[error(
        "client {0} is registered already; choose another id, or `clients rotate` for a new secret"
    )]
    Exists(String),
    #[error("no client {0} in this file; `clients list` shows all")]
    Unknown(String),
    #[error(
        "client {id} has {MAX_ACTIVE_CREDENTIALS} active credentials already; revoke the one that \
         is \
         no longer in use first: `clients revoke --id {id} --credential N`, where N is {numbers}"
    )]
    TwoActive { id: String, numbers: String },
    #[error("client {id} has no credential {number}; `clients list` shows the {count} it has")]
    NoSuchCredential { id: String, number: usize, count: usize },
    #[error("{path}: cannot be written ({error}); check the folder, its permissions and space")]
    Write { path: PathBuf, error: io::Error },
    #[error("the registry cannot be put into YAML: {0}")]
    Yaml(#[from] serde_saphyr::SerializeError),
}

impl EditError {
    /// With the places in the file.
    pub fn misshapen(misshapen: Misshapen, file: &Path) -> Self {
        Self::Problems(locate::place(misshapen.problems, file))
    }
}

fn lines(problems: &[Problem]) -> String {
    problems.iter().map(Problem::to_string).collect::<Vec<_>>().join("\n")
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum IfMissing {
    Create,
    Fail,
}

/// Reads, changes and replaces the file while no other editor can. Readers see the old or the new
/// file, never a part.
pub fn edit<T>(
    path: &Path,
    if_missing: IfMissing,
    change: impl FnOnce(&mut RawRegistry) -> Result<T, EditError>,
) -> Result<T, EditError> {
    let unwritable = |error| EditError::Write { path: path.to_owned(), error };
    let target = files::behind_links(path).map_err(unwritable)?;
    let folder = match target.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    // The folder is locked, because the file itself is replaced, and so that no lock file stays
    // behind.
    let lock = files::lock(folder).map_err(unwritable)?;

    let exists = target.try_exists().map_err(unwritable)?;
    let mut registry = match if_missing {
        IfMissing::Create if !exists => RawRegistry::default(),
        _ => read(&target).map_err(|misshapen| EditError::misshapen(misshapen, &target))?,
    };
    let outcome = change(&mut registry)?;
    // Otherwise a long digest would be folded onto a line of its own.
    let options = serde_saphyr::ser_options! { prefer_block_scalars: false };
    let text = serde_saphyr::to_string_with_options(&registry, options)?;
    let text = format!("{HEAD}{text}");
    replace(&target, folder, text.as_bytes()).map_err(unwritable)?;
    lock.sync_all().map_err(unwritable)?;
    Ok(outcome)
}

fn replace(target: &Path, folder: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut new = tempfile::Builder::new().prefix(".clients-").tempfile_in(folder)?;
    match fs::metadata(target) {
        Ok(old) => {
            // Only root may give a file away; for others it is theirs already, or becomes theirs.
            let _ = fchown(new.as_file(), Some(old.uid()), Some(old.gid()));
            new.as_file().set_permissions(Permissions::from_mode(old.mode() & 0o7777))?;
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            new.as_file().set_permissions(Permissions::from_mode(0o600))?;
        }
        Err(error) => return Err(error),
    }
    new.write_all(bytes)?;
    new.as_file().sync_all()?;
    new.persist(target)?;
    Ok(())
}

pub fn add(registry: &mut RawRegistry, client: RawClient) -> Result<(), EditError> {
    if registry.clients.iter().any(|other| other.id == client.id) {
        return Err(EditError::Exists(client.id));
    }
    registry.clients.push(client);
    Ok(())
}

/// Adds a credential with this digest and takes away those that have expired. The one that is
/// active goes on, until `old_ends` at the latest.
pub fn rotate(
    registry: &mut RawRegistry,
    id: &str,
    digest: String,
    old_ends: Option<Timestamp>,
    now: Timestamp,
) -> Result<(), EditError> {
    let client = find(registry, id)?;
    client.credentials.retain(|credential| !ends_by(credential, now));
    let active: Vec<usize> = (0..client.credentials.len())
        .filter(|position| client.credentials[*position].status == RawCredentialStatus::Active)
        .collect();
    if active.len() >= MAX_ACTIVE_CREDENTIALS {
        let numbers: Vec<_> = active.iter().map(|position| (position + 1).to_string()).collect();
        return Err(EditError::TwoActive { id: id.to_owned(), numbers: numbers.join(" or ") });
    }
    if let Some(end) = old_ends {
        for position in active {
            let credential = &mut client.credentials[position];
            if !ends_by(credential, end) {
                credential.expires_at = Some(to_text(end));
            }
        }
    }
    client.credentials.push(RawCredential {
        digest,
        status: RawCredentialStatus::Active,
        expires_at: None,
    });
    Ok(())
}

/// Revokes the credential with this number, counted from 1; without one, the whole app.
pub fn revoke(
    registry: &mut RawRegistry,
    id: &str,
    credential: Option<usize>,
) -> Result<(), EditError> {
    let client = find(registry, id)?;
    let Some(number) = credential else {
        client.status = RawClientStatus::Revoked;
        return Ok(());
    };
    let count = client.credentials.len();
    match number.checked_sub(1).and_then(|position| client.credentials.get_mut(position)) {
        Some(credential) => {
            credential.status = RawCredentialStatus::Revoked;
            Ok(())
        }
        None => Err(EditError::NoSuchCredential { id: id.to_owned(), number, count }),
    }
}

/// Has tokens refused that were issued to the client up to `until`. An earlier time than the one
/// that is set changes nothing: what was taken away stays so.
pub fn revoke_tokens(
    registry: &mut RawRegistry,
    id: &str,
    until: Timestamp,
) -> Result<(), EditError> {
    let client = find(registry, id)?;
    let before = client.tokens_not_before.as_deref().and_then(|text| parse_time(text).ok());
    if before.is_none_or(|before| before < until) {
        client.tokens_not_before = Some(to_text(until));
    }
    Ok(())
}

fn find<'a>(registry: &'a mut RawRegistry, id: &str) -> Result<&'a mut RawClient, EditError> {
    let mut clients = registry.clients.iter_mut();
    clients.find(|client| client.id == id).ok_or_else(|| EditError::Unknown(id.to_owned()))
}

/// A time that cannot be read ends nothing; loading the file tells of it.
fn ends_by(credential: &RawCredential, time: Timestamp) -> bool {
    let end = credential.expires_at.as_deref().and_then(|text| parse_time(text).ok());
    end.is_some_and(|end| end <= time)
}

/// What a credential is worth now, in a word.
pub fn state(credential: &RawCredential, now: Timestamp) -> &'static str {
    match credential.status {
        RawCredentialStatus::Revoked => "revoked",
        RawCredentialStatus::Active if ends_by(credential, now) => "expired",
        RawCredentialStatus::Active => "active",
    }
}

fn to_text(time: Timestamp) -> String {
    let seconds =
        i64::try_from(time.secs()).ok().and_then(|s| jiff::Timestamp::from_second(s).ok());
    seconds.unwrap_or(jiff::Timestamp::MAX).to_string()
}

#[cfg(test)]
mod tests;
