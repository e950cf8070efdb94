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
mod tests {
    use std::sync::{Arc, Barrier};
    use std::thread;
    use std::time::Duration;

    use super::*;

    const NOW: Timestamp = Timestamp::from_secs(1_000_000_000);

    fn client(id: &str) -> RawClient {
        serde_json::from_value(serde_json::json!({ "id": id })).unwrap()
    }

    fn credential(digest: &str, expires_at: Option<&str>) -> RawCredential {
        let expires_at = expires_at.map(str::to_owned);
        RawCredential { digest: digest.to_owned(), status: RawCredentialStatus::Active, expires_at }
    }

    fn registry(credentials: Vec<RawCredential>) -> RawRegistry {
        RawRegistry { clients: vec![RawClient { credentials, ..client("a") }] }
    }

    fn digests(registry: &RawRegistry) -> Vec<&str> {
        registry.clients[0].credentials.iter().map(|c| c.digest.as_str()).collect()
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o7777
    }

    #[test]
    fn a_new_file_is_private_and_an_old_one_keeps_its_mode() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("clients.yaml");
        edit(&path, IfMissing::Create, |registry| add(registry, client("a"))).unwrap();
        assert_eq!(mode(&path), 0o600);
        fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        edit(&path, IfMissing::Fail, |registry| add(registry, client("b"))).unwrap();
        assert_eq!(mode(&path), 0o640);
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1, "nothing is left behind");
    }

    #[test]
    fn what_is_not_changed_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("clients.yaml");
        let text = "
clients:
  - id: acme-analytics
    status: revoked
    developer: { id: acme, status: inactive }
    credentials:
      - { digest: \"sha256:ab\", status: revoked, expires_at: 2027-01-01T00:00:00Z }
      - { digest: '$argon2id$v=19$m=8,t=1,p=1$c2FsdA$aGFzaA' }
    scopes: ['null', \"1e3\"]
    tenants: ['007', 'no', '0x10', '~']
    token_ttl: 30m
    apis: []
    attributes: { plan: 'yes', seats: 5, share: 1.5, trial: false, regions: [eu, '1'] }
";
        fs::write(&path, text).unwrap();
        let before = serde_json::to_value(read(&path).ok().unwrap()).unwrap();
        edit(&path, IfMissing::Fail, |registry| add(registry, client("b"))).unwrap();
        let after = serde_json::to_value(read(&path).ok().unwrap()).unwrap();
        assert_eq!(after["clients"][0], before["clients"][0]);
        assert_eq!(after["clients"][1]["id"], "b");
        assert!(fs::read_to_string(&path).unwrap().starts_with(HEAD));
    }

    #[test]
    fn a_symbolic_link_stays_one() {
        let folder = tempfile::tempdir().unwrap();
        let (target, link) = (folder.path().join("real.yaml"), folder.path().join("clients.yaml"));
        fs::write(&target, "clients: []").unwrap();
        std::os::unix::fs::symlink(&target, &link).unwrap();
        edit(&link, IfMissing::Create, |registry| add(registry, client("a"))).unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(read(&target).ok().unwrap().clients.len(), 1);
    }

    #[test]
    fn a_dangling_link_is_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let (target, link) = (folder.path().join("gone.yaml"), folder.path().join("clients.yaml"));
        std::os::unix::fs::symlink(&target, &link).unwrap();
        let outcome = edit(&link, IfMissing::Create, |registry| add(registry, client("a")));
        assert!(outcome.unwrap_err().to_string().contains("symbolic link"));
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink() && !target.exists());
    }

    #[test]
    fn a_failed_change_and_a_broken_file_leave_the_file_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("clients.yaml");
        for text in ["clients: [{ id: a }]", "clients: [{ id: a, idd: b }]", "clients: ["] {
            fs::write(&path, text).unwrap();
            let outcome = edit(&path, IfMissing::Create, |registry| add(registry, client("a")));
            assert!(outcome.is_err());
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
        fs::remove_file(&path).unwrap();
        let outcome = edit(&path, IfMissing::Fail, |registry| revoke(registry, "a", None));
        assert!(matches!(outcome, Err(EditError::Problems(_))));
        assert!(!path.exists());
    }

    #[test]
    fn concurrent_editors_lose_nothing() {
        const EDITORS: usize = 8;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("clients.yaml");
        let start = Arc::new(Barrier::new(EDITORS));
        let editors: Vec<_> = (0..EDITORS)
            .map(|editor| {
                let (path, start) = (path.clone(), start.clone());
                thread::spawn(move || {
                    start.wait();
                    for round in 0..5 {
                        let new = client(&format!("c{editor}-{round}"));
                        edit(&path, IfMissing::Create, |registry| add(registry, new)).unwrap();
                    }
                })
            })
            .collect();
        editors.into_iter().for_each(|editor| editor.join().unwrap());
        assert_eq!(read(&path).ok().unwrap().clients.len(), EDITORS * 5);
    }

    #[test]
    fn an_id_is_added_once() {
        let mut registry = registry(vec![]);
        let error = add(&mut registry, client("a")).unwrap_err();
        assert!(error.to_string().starts_with("client a is registered already; "));
    }

    #[test]
    fn rotating_adds_a_second_credential_and_leaves_the_first_alone() {
        let mut registry = registry(vec![credential("old", None)]);
        rotate(&mut registry, "a", "new".into(), None, NOW).unwrap();
        assert_eq!(digests(&registry), ["old", "new"]);
        let both = &registry.clients[0].credentials;
        let untouched =
            |c: &RawCredential| c.status == RawCredentialStatus::Active && c.expires_at.is_none();
        assert!(both.iter().all(untouched));

        let error = rotate(&mut registry, "a", "third".into(), None, NOW).unwrap_err().to_string();
        assert!(
            error.ends_with("`clients revoke --id a --credential N`, where N is 1 or 2"),
            "{error}"
        );
        revoke(&mut registry, "a", Some(1)).unwrap();
        rotate(&mut registry, "a", "third".into(), None, NOW).unwrap();
        assert_eq!(digests(&registry), ["old", "new", "third"]);
    }

    #[test]
    fn rotating_lets_the_old_one_end_and_clears_the_expired() {
        let past = Some("2001-09-09T01:46:40Z");
        let mut registry = registry(vec![
            credential("dead", past),
            credential("ends sooner", Some("2001-09-09T01:50:00Z")),
        ]);
        let end = NOW.plus(std::time::Duration::from_secs(3600));
        rotate(&mut registry, "a", "new".into(), Some(end), NOW).unwrap();
        assert_eq!(digests(&registry), ["ends sooner", "new"]);
        let ends = |registry: &RawRegistry| {
            let credentials = registry.clients[0].credentials.iter();
            credentials.map(|c| c.expires_at.clone()).collect::<Vec<_>>()
        };
        assert_eq!(ends(&registry), [Some("2001-09-09T01:50:00Z".to_owned()), None]);

        revoke(&mut registry, "a", Some(1)).unwrap();
        rotate(&mut registry, "a", "newer".into(), Some(end), NOW).unwrap();
        let end = Some("2001-09-09T02:46:40Z".to_owned());
        assert_eq!(ends(&registry)[1..], [end, None]);
    }

    #[test]
    fn tokens_are_revoked_up_to_the_latest_time_that_was_set() {
        let mut registry = registry(vec![]);
        let later = NOW.plus(Duration::from_secs(60));
        for (until, floor) in [
            (NOW, "2001-09-09T01:46:40Z"),
            (later, "2001-09-09T01:47:40Z"),
            (NOW, "2001-09-09T01:47:40Z"),
        ] {
            revoke_tokens(&mut registry, "a", until).unwrap();
            assert_eq!(registry.clients[0].tokens_not_before.as_deref(), Some(floor));
        }
        assert!(matches!(revoke_tokens(&mut registry, "b", NOW), Err(EditError::Unknown(_))));
    }

    #[test]
    fn revoking_is_for_one_credential_or_the_whole_app() {
        let mut registry = registry(vec![credential("one", None), credential("two", None)]);
        revoke(&mut registry, "a", Some(2)).unwrap();
        let a = &registry.clients[0];
        assert!(a.status == RawClientStatus::Approved);
        let revoked = |c: &RawCredential| c.status == RawCredentialStatus::Revoked;
        assert_eq!(a.credentials.iter().map(revoked).collect::<Vec<_>>(), [false, true]);
        for number in [0, 3] {
            let error = revoke(&mut registry, "a", Some(number)).unwrap_err().to_string();
            assert!(error.contains(&format!("no credential {number}; ")), "{error}");
        }
        revoke(&mut registry, "a", None).unwrap();
        assert!(registry.clients[0].status == RawClientStatus::Revoked);
        assert!(matches!(revoke(&mut registry, "b", None), Err(EditError::Unknown(_))));
    }
}
