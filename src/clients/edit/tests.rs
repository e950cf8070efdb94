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
