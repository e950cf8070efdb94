use std::fs;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::*;
use crate::keys::SigningAlgorithm;
use crate::keys::jwks::{WantedKeys, parse_jwks};
use crate::keys::store::{generate, retire};

const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

fn make(dir: &Path, algorithm: SigningAlgorithm, after: u64) -> String {
    let after = Some(Duration::from_secs(after));
    generate(dir, algorithm, after, NOW).unwrap().kid().to_owned()
}

fn later(seconds: u64) -> Timestamp {
    NOW.plus(Duration::from_secs(seconds))
}

#[test]
fn every_algorithm_signs_what_the_published_set_verifies() {
    for algorithm in SigningAlgorithm::ALL {
        let home = tempfile::tempdir().unwrap();
        let kid = make(home.path(), algorithm, 0);
        let keys = SigningKeys::load(home.path(), Need::Sign).unwrap();
        let signer = keys.signer(NOW).unwrap();
        assert_eq!((signer.kid(), signer.algorithm()), (kid.as_str(), algorithm.into()));
        assert_eq!(signer.created_at(), NOW);
        let signature = URL_SAFE_NO_PAD.encode(signer.sign(b"header.payload").unwrap());
        let wanted = WantedKeys::named(&Algorithm::ALL);
        let (published, skipped) = parse_jwks(keys.jwks_json().as_bytes(), &wanted).unwrap();
        assert_eq!(skipped, [], "our own set has a bad key");
        assert!(published[0].verify(b"header.payload", &signature));
        assert!(keys.key_set().get(&kid).unwrap().verify(b"header.payload", &signature));
    }
}

#[test]
fn the_newest_active_key_signs_and_pending_ones_are_published() {
    let home = tempfile::tempdir().unwrap();
    let old = make(home.path(), SigningAlgorithm::Es256, 0);
    let new = make(home.path(), SigningAlgorithm::EdDsa, 10);
    let keys = SigningKeys::load(home.path(), Need::Sign).unwrap();
    assert!(keys.signer(Timestamp::from_nanos(NOW.nanos() - 1)).is_none());
    assert_eq!(keys.signer(later(9)).unwrap().kid(), old);
    assert_eq!(keys.signer(later(10)).unwrap().kid(), new);
    assert_eq!(keys.key_set().len(), 2);
    for kid in [&old, &new] {
        assert!(keys.jwks_json().contains(kid.as_str()));
    }
}

#[test]
fn a_retired_key_neither_signs_nor_verifies_nor_is_published() {
    let home = tempfile::tempdir().unwrap();
    let old = make(home.path(), SigningAlgorithm::Es256, 0);
    let new = make(home.path(), SigningAlgorithm::Es256, 10);
    // Retired by a machine whose clock is ahead.
    retire(home.path(), &new, false, later(9000)).unwrap();
    let keys = SigningKeys::load(home.path(), Need::Sign).unwrap();
    assert_eq!(keys.signer(later(60)).unwrap().kid(), old);
    assert!(keys.key_set().get(&new).is_none());
    assert!(!keys.jwks_json().contains(&new));
    retire(home.path(), &old, true, later(9)).unwrap();
    let keys = SigningKeys::load(home.path(), Need::Sign).unwrap();
    assert!(keys.is_empty() && keys.signer(later(60)).is_none());
    assert_eq!(&*keys.jwks_json(), r#"{"keys":[]}"#);
}

#[test]
fn a_key_is_withdrawn_whatever_is_wrong_with_another() {
    let home = tempfile::tempdir().unwrap();
    let [broken, retired, removed, without_pem] =
        [0, 10, 20, 30].map(|after| make(home.path(), SigningAlgorithm::Es256, after));
    let before = SigningKeys::load(home.path(), Need::Sign).unwrap();
    retire(home.path(), &retired, false, later(60)).unwrap();
    fs::write(home.path().join(format!("{broken}.json")), "{").unwrap();
    fs::remove_file(home.path().join(format!("{removed}.json"))).unwrap();
    fs::write(home.path().join(format!("{without_pem}.pem")), "gone").unwrap();
    fs::write(home.path().join("never-good.json"), "{").unwrap();
    let LoadedKeys { keys, problems } = before.reload(home.path(), Need::Sign).unwrap();
    assert_eq!(problems.len(), 3, "{problems:?}");
    let trusted = |kid: &str| keys.key_set().get(kid).is_some();
    assert!(!trusted(&retired) && !trusted(&removed));
    assert!(trusted(&broken) && trusted(&without_pem));
    let signing: Vec<&str> = keys.signers.iter().map(|signer| signer.kid()).collect();
    assert_eq!(signing, [&broken, &without_pem]);

    fs::remove_file(home.path().join(format!("{without_pem}.json"))).unwrap();
    let LoadedKeys { keys, .. } = keys.reload(home.path(), Need::Sign).unwrap();
    assert_eq!(keys.signer(later(60)).unwrap().kid(), broken);
    fs::remove_dir_all(home.path()).unwrap();
    assert!(keys.reload(home.path(), Need::Sign).is_err(), "what is gone takes nothing away");
}

#[test]
fn verifying_alone_needs_no_private_key() {
    let home = tempfile::tempdir().unwrap();
    let kid = make(home.path(), SigningAlgorithm::Es256, 0);
    fs::remove_file(home.path().join(format!("{kid}.pem"))).unwrap();
    let keys = SigningKeys::load(home.path(), Need::VerifyOnly).unwrap();
    assert!(keys.key_set().get(&kid).is_some());
    assert!(keys.signer(NOW).is_none());
    assert!(SigningKeys::load(home.path(), Need::Sign).is_err());
}

#[test]
fn a_missing_or_empty_directory_is_a_problem_with_the_command_that_cures_it() {
    let home = tempfile::tempdir().unwrap();
    for dir in [home.path(), &home.path().join("missing")] {
        for need in [Need::Sign, Need::VerifyOnly] {
            let problems = SigningKeys::load(dir, need).unwrap_err();
            let dir = dir.display();
            let line = format!(
                "issuer.signing_keys: {dir}: holds no key; run: tenantgate keys generate --dir \
                 {dir}"
            );
            assert_eq!(problems.iter().map(ToString::to_string).collect::<Vec<_>>(), [line]);
        }
    }
}

#[test]
fn every_problem_is_reported_at_once() {
    let home = tempfile::tempdir().unwrap();
    for _ in 0..2 {
        let kid = make(home.path(), SigningAlgorithm::Es256, 0);
        fs::write(home.path().join(format!("{kid}.pem")), "gone").unwrap();
    }
    assert_eq!(SigningKeys::load(home.path(), Need::Sign).unwrap_err().len(), 2);
    let kid = make(home.path(), SigningAlgorithm::Es256, 0);
    let path = home.path().join(format!("{kid}.json"));
    let text = fs::read_to_string(&path).unwrap();
    let x = text.find("\"x\":\"").unwrap() + 10;
    fs::write(&path, format!("{}{}", &text[..x], &text[x + 4..])).unwrap();
    let line = SigningKeys::load(home.path(), Need::VerifyOnly).unwrap_err()[0].to_string();
    assert!(line.contains("has the wrong length; restore the file"), "{line}");
}

#[test]
fn debug_shows_no_private_key() {
    let home = tempfile::tempdir().unwrap();
    let kid = make(home.path(), SigningAlgorithm::Es256, 0);
    let pem = fs::read_to_string(home.path().join(format!("{kid}.pem"))).unwrap();
    let keys = SigningKeys::load(home.path(), Need::Sign).unwrap();
    let printed = format!("{keys:?}");
    assert!(printed.contains(&format!("Signer(ES256 {kid})")), "{printed}");
    assert!(!printed.contains(pem.lines().nth(1).unwrap()));
}
