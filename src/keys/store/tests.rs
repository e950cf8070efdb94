use super::*;

const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

fn make(dir: &Path, after: Option<u64>) -> KeyRecord {
    let after = after.map(Duration::from_secs);
    generate(dir, SigningAlgorithm::Es256, after, NOW).unwrap()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

fn seconds(seconds: u64) -> Timestamp {
    NOW.plus(Duration::from_secs(seconds))
}

#[test]
fn a_key_is_two_private_files_in_a_private_directory() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("a/keys");
    let made = make(&dir, None);
    assert_eq!(mode(&dir), 0o700);
    let mut names = Vec::new();
    for entry in fs::read_dir(&dir).unwrap() {
        let path = entry.unwrap().path();
        assert_eq!(mode(&path), 0o600, "{path:?}");
        names.push(path.file_name().unwrap().to_str().unwrap().to_owned());
    }
    names.sort();
    let kid = thumbprint(&made.public.key);
    assert_eq!(names, [format!("{kid}.json"), format!("{kid}.pem")]);
    assert_eq!(read_records(&dir).unwrap(), std::slice::from_ref(&made));
    assert_eq!(read_key_pair(&dir, &made).unwrap().public_key(), made.public.key);
    let json = fs::read_to_string(json_path(&dir, &kid)).unwrap();
    assert!(json.contains("\"created_at\": \"2027-01-15T08:00:00Z\""), "{json}");
    assert!(!json.contains("\"d\"") && !json.contains("retired_at"), "{json}");
}

#[test]
fn the_first_key_signs_at_once_and_later_ones_overlap() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path();
    assert_eq!(make(dir, Some(60)).activate_at, seconds(60));
    // The pending key signs nothing yet, so this one must.
    let active = make(dir, None);
    assert_eq!(active.activate_at, NOW);
    assert_eq!(make(dir, None).activate_at, NOW.plus(DEFAULT_OVERLAP));
    assert_eq!(make(dir, Some(0)).activate_at, NOW);
}

#[test]
fn states_follow_the_time() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path();
    let (old, new) = (make(dir, None), make(dir, Some(10)));
    let states = |now| {
        let records = read_records(dir).unwrap();
        [&old, &new].map(|key| {
            let key = records.iter().find(|record| record.kid() == key.kid()).unwrap();
            state(key, &records, now)
        })
    };
    assert_eq!(states(seconds(9)), [KeyState::Signing, KeyState::Pending]);
    assert_eq!(states(seconds(10)), [KeyState::Published, KeyState::Signing]);
    retire(dir, new.kid(), false, seconds(11)).unwrap();
    assert_eq!(states(seconds(12)), [KeyState::Signing, KeyState::Retired]);
}

#[test]
fn the_only_key_that_can_sign_is_retired_only_by_force() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path();
    let (old, new) = (make(dir, None), make(dir, Some(10)));
    let refused = retire(dir, old.kid(), false, seconds(9)).unwrap_err();
    assert!(matches!(refused, KeyStoreError::OnlySigner(_)), "{refused}");
    assert!(read_records(dir).unwrap().iter().all(|key| key.retired_at.is_none()));
    // One that does not sign may go.
    retire(dir, new.kid(), false, seconds(9)).unwrap();
    retire(dir, old.kid(), true, seconds(9)).unwrap();
    let again = retire(dir, old.kid(), false, seconds(99)).unwrap();
    assert_eq!(again.retired_at, Some(seconds(9)));
    assert_eq!(mode(&json_path(dir, old.kid())), 0o600);
    let unknown = retire(dir, "nobody", true, NOW).unwrap_err();
    assert!(matches!(unknown, KeyStoreError::NoSuchKey { .. }), "{unknown}");
}

#[test]
fn a_broken_record_is_named_with_its_cure() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path();
    let path = json_path(dir, make(dir, None).kid());
    let good = fs::read_to_string(&path).unwrap();
    let es384 = r#"{"kty":"EC","crv":"P-384","kid":"a","x":"AA","y":"AA"}"#;
    let other = format!(r#"{{"jwk":{es384},"created_at":"x","activate_at":"x"}}"#);
    for (text, expected) in [
        (String::new(), "EOF while parsing"),
        (good.replace("2027-01-15T08:00:00Z", "yesterday"), "created_at is not a time"),
        (good.replacen("created_at", "made_at", 1), "unknown field `made_at`"),
        (good.replace("\"sig\"", "\"enc\""), "jwk: not meant for verifying"),
        (good.replace("\"use\"", "\"d\""), "jwk: private or symmetric"),
        (good.replace("\"kid\":\"", "\"kid\":\"x"), "is not named after the kid"),
        (other, "nothing is signed here with its algorithm"),
    ] {
        fs::write(&path, text).unwrap();
        let problems = read_records(dir).unwrap_err();
        assert_eq!(problems.len(), 1);
        let line = problems[0].to_string();
        let start = format!("issuer.signing_keys: {}: ", path.display());
        assert!(line.starts_with(&start) && line.contains(expected), "{line}");
        assert!(line.contains("; "), "{line}");
    }
}

#[test]
fn files_that_others_can_write_or_read_are_refused() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path();
    let key = make(dir, None);
    let (json, pem) = (json_path(dir, key.kid()), pem_path(dir, key.kid()));
    let set = |path: &Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    for good in [0o400, 0o440, 0o640, 0o600] {
        set(&pem, good);
        assert!(read_key_pair(dir, &key).is_ok(), "{good:o}");
    }
    for bad in [0o644, 0o604, 0o601, 0o602, 0o620, 0o660, 0o777] {
        set(&pem, bad);
        let line = read_key_pair(dir, &key).unwrap_err().to_string();
        assert!(line.contains(&format!("has mode {bad:04o}; it must not be")), "{line}");
        assert!(line.ends_with(&format!("; run: chmod 600 {}", pem.display())), "{line}");
    }
    for good in [0o444, 0o644, 0o440, 0o600] {
        set(&json, good);
        assert!(read_records(dir).is_ok(), "{good:o}");
    }
    for bad in [0o620, 0o602, 0o666] {
        set(&json, bad);
        let line = read_records(dir).unwrap_err()[0].to_string();
        assert!(line.contains("must be writable only by its owner"), "{line}");
    }
}

#[test]
fn a_private_key_that_is_not_the_records_is_refused() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path();
    let (one, other) = (make(dir, None), make(dir, None));
    fs::copy(pem_path(dir, other.kid()), pem_path(dir, one.kid())).unwrap();
    let line = read_key_pair(dir, &one).unwrap_err().to_string();
    assert!(line.contains("does not belong to the public key"), "{line}");
    let pem = pem_path(dir, other.kid());
    fs::write(&pem, "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n").unwrap();
    let line = read_key_pair(dir, &other).unwrap_err().to_string();
    assert!(line.contains("does not parse as one for ES256"), "{line}");
    fs::remove_file(&pem).unwrap();
    let line = read_key_pair(dir, &other).unwrap_err().to_string();
    assert!(line.contains("No such file"), "{line}");
}

#[test]
fn leftovers_and_kubernetes_links_do_not_matter() {
    let home = tempfile::tempdir().unwrap();
    let real = home.path().join("..2027");
    let made = make(&real, None);
    let dir = home.path().join("keys");
    fs::create_dir(&dir).unwrap();
    std::os::unix::fs::symlink(&real, dir.join("..data")).unwrap();
    for path in [json_path(&real, made.kid()), pem_path(&real, made.kid())] {
        let name = path.file_name().unwrap();
        let target = Path::new("..data").join(name);
        std::os::unix::fs::symlink(target, dir.join(name)).unwrap();
    }
    fs::write(dir.join(".new-abc"), "half").unwrap();
    fs::write(dir.join("half.pem"), "half").unwrap();
    let records = read_records(&dir).unwrap();
    assert_eq!(records, [made]);
    assert!(read_key_pair(&dir, &records[0]).is_ok());
}

#[test]
fn a_digest_key_is_64_hex_characters_and_never_overwritten_unasked() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("secrets/digest.key");
    write_digest_key(&path, Existing::Keep).unwrap();
    let first = fs::read_to_string(&path).unwrap();
    assert_eq!(mode(&path), 0o600);
    assert_eq!((first.len(), first.ends_with('\n')), (65, true));
    assert!(first.trim_end().bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')));
    let refused = write_digest_key(&path, Existing::Keep).unwrap_err();
    assert!(matches!(refused, KeyStoreError::Exists(_)), "{refused}");
    assert_eq!(fs::read_to_string(&path).unwrap(), first);
    write_digest_key(&path, Existing::Replace).unwrap();
    assert_ne!(fs::read_to_string(&path).unwrap(), first);
    assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
}
