//! The key directory: `<kid>.json` with what is public about a key and when it is used, and
//! `<kid>.pem` with its private half.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use aws_lc_rs::rand;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use zeroize::Zeroizing;

use super::jwks::{PublicJwk, WantedKeys, thumbprint};
use super::{KeyPair, SignError, SigningAlgorithm};
use crate::domain::{Algorithm, DIGEST_KEY_LEN, Problem, Timestamp};
use crate::files::{self, Others, Unguarded};

/// How long a new key is published before it signs, where another one is active. Enough for
/// replicas that watch the directory. A verifier that caches our JWKS for longer needs longer.
pub const DEFAULT_OVERLAP: Duration = Duration::from_secs(10);

const FIELD: &str = "issuer.signing_keys";

/// Why a key directory could not be read or changed.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum KeyStoreError {
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("{}", lines(.0))]
    Broken(Vec<Problem>),
    #[error("{} holds no key {kid}; `tenantgate keys list` shows its keys", dir.display())]
    NoSuchKey { kid: String, dir: PathBuf },
    #[error(
        "{0} is the only key that can sign now; generate another one and wait until it is active, \
         or give --force to stop minting"
    )]
    OnlySigner(String),
    #[error("{} exists; give --force to replace it, which makes every token with digests under the \
             old key useless", .0.display())]
    Exists(PathBuf),
    #[error(transparent)]
    Crypto(#[from] SignError),
}

fn lines(problems: &[Problem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// What is known about a key without its private half.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRecord {
    /// What is published of it.
    pub public: PublicJwk,
    /// What it signs with.
    pub algorithm: SigningAlgorithm,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it begins to sign; it is published from the beginning.
    pub activate_at: Timestamp,
    /// Set: the key is used for nothing, whatever the time is. Replicas' clocks differ, and a
    /// withdrawal must not wait for one of them.
    pub retired_at: Option<Timestamp>,
}

/// What a key does now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyState {
    /// Published, signs from `activate_at` on.
    Pending,
    /// Signs new tokens.
    Signing,
    /// Its tokens are good, but a newer key signs.
    Published,
    /// Neither signs nor is published.
    Retired,
}

impl KeyState {
    /// The word in `tenantgate keys list`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Signing => "signing",
            Self::Published => "published",
            Self::Retired => "retired",
        }
    }
}

impl KeyRecord {
    /// The name of the key in tokens.
    pub fn kid(&self) -> &str {
        &self.public.kid
    }

    /// Active, and not retired.
    pub fn can_sign(&self, now: Timestamp) -> bool {
        self.retired_at.is_none() && self.activate_at <= now
    }

    /// What decides which of several active keys signs: the last one.
    pub fn seniority(&self) -> (Timestamp, Timestamp, &str) {
        (self.activate_at, self.created_at, self.kid())
    }
}

/// The key that signs at `now`.
pub fn signing(records: &[KeyRecord], now: Timestamp) -> Option<&KeyRecord> {
    let active = records.iter().filter(|record| record.can_sign(now));
    active.max_by_key(|record| record.seniority())
}

/// `records` are all keys of the directory: the newest active one signs.
pub fn state(record: &KeyRecord, records: &[KeyRecord], now: Timestamp) -> KeyState {
    if record.retired_at.is_some() {
        KeyState::Retired
    } else if record.activate_at > now {
        KeyState::Pending
    } else if signing(records, now).is_some_and(|signing| signing.kid() == record.kid()) {
        KeyState::Signing
    } else {
        KeyState::Published
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RecordFile {
    jwk: Box<RawValue>,
    created_at: String,
    activate_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    retired_at: Option<String>,
}

fn pem_path(dir: &Path, kid: &str) -> PathBuf {
    dir.join(format!("{kid}.pem"))
}

pub(super) fn json_path(dir: &Path, kid: &str) -> PathBuf {
    dir.join(format!("{kid}.json"))
}

/// The records of all keys in `dir`, oldest first; none if there is no such directory.
pub fn read_records(dir: &Path) -> Result<Vec<KeyRecord>, Vec<Problem>> {
    let Some(found) = scan(dir).map_err(|problem| vec![problem])? else { return Ok(Vec::new()) };
    if !found.broken.is_empty() {
        return Err(found.broken.into_values().collect());
    }
    Ok(found.records)
}

/// What a key directory holds.
pub(super) struct Scan {
    /// Oldest first.
    pub records: Vec<KeyRecord>,
    /// Why a record cannot be read, by the `kid` that its file is named after.
    pub broken: BTreeMap<String, Problem>,
}

/// `None`: there is no such directory. Files other than records are ignored: a `.pem` without its
/// `.json` is a key that is just being written.
pub(super) fn scan(dir: &Path) -> Result<Option<Scan>, Problem> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(problem(dir, &error, "make it readable for this user")),
    };
    let mut found = Scan { records: Vec::new(), broken: BTreeMap::new() };
    for entry in entries {
        let path = entry.map_err(|error| problem(dir, &error, "check the file system"))?.path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        match read_record(&path) {
            Ok(record) => found.records.push(record),
            Err(bad) => {
                let kid = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
                found.broken.insert(kid, bad);
            }
        }
    }
    found.records.sort_by(|a, b| a.seniority().cmp(&b.seniority()));
    Ok(Some(found))
}

fn read_record(path: &Path) -> Result<KeyRecord, Problem> {
    // Who can write it can make a key trusted.
    check_guarded(path, Others::Read)?;
    let text = fs::read_to_string(path)
        .map_err(|error| problem(path, &error, "make it readable for this user"))?;
    let restore = "restore the file, or remove it together with its .pem";
    let file: RecordFile =
        serde_json::from_str(&text).map_err(|error| problem(path, &error, restore))?;
    let public = PublicJwk::parse(file.jwk.get(), &WantedKeys::named(&Algorithm::ALL))
        .map_err(|error| problem(path, &format!("jwk: {error}"), restore))?;
    let algorithm = SigningAlgorithm::parse(public.algorithm.as_str())
        .ok_or_else(|| problem(path, &"jwk: nothing is signed here with its algorithm", restore))?;
    if path.file_stem().is_none_or(|stem| stem != public.kid.as_str()) {
        return Err(problem(path, &"is not named after the kid inside", "name it KID.json"));
    }
    let time = |name: &str, text: &str| {
        from_rfc3339(text).ok_or_else(|| {
            let what = format!("{name} is not a time");
            problem(path, &what, "write it like 2027-01-31T12:00:00Z")
        })
    };
    Ok(KeyRecord {
        public,
        algorithm,
        created_at: time("created_at", &file.created_at)?,
        activate_at: time("activate_at", &file.activate_at)?,
        retired_at: file.retired_at.map(|text| time("retired_at", &text)).transpose()?,
    })
}

/// The private half of a key, if its file is closed to others and belongs to the record.
pub fn read_key_pair(dir: &Path, record: &KeyRecord) -> Result<KeyPair, Problem> {
    let path = pem_path(dir, record.kid());
    check_guarded(&path, Others::GroupReads)?;
    let pem = fs::read(&path)
        .map(Zeroizing::new)
        .map_err(|error| problem(&path, &error, "make it readable for this user"))?;
    let restore = "restore the file, or remove the key's .json and .pem and generate another key";
    let pair = KeyPair::from_pem(&pem, record.algorithm)
        .map_err(|error| problem(&path, &error, restore))?;
    if pair.public_key() != record.public.key {
        return Err(problem(&path, &"does not belong to the public key in the .json", restore));
    }
    Ok(pair)
}

fn check_guarded(path: &Path, others: Others) -> Result<(), Problem> {
    let guarded = files::check_guarded(path, others);
    guarded.map_err(|Unguarded { wrong, cure }| problem(path, &wrong, &cure))
}

pub(super) fn problem(path: &Path, what: &dyn std::fmt::Display, cure: &str) -> Problem {
    Problem { field: FIELD.to_owned(), message: format!("{}: {what}; {cure}", path.display()) }
}

/// Makes a key. Without `activate_after` it signs at once if no other key does, else after
/// [`DEFAULT_OVERLAP`].
pub fn generate(
    dir: &Path,
    algorithm: SigningAlgorithm,
    activate_after: Option<Duration>,
    now: Timestamp,
) -> Result<KeyRecord, KeyStoreError> {
    create_private_dir(dir)?;
    let records = read_records(dir).map_err(KeyStoreError::Broken)?;
    let overlap = if signing(&records, now).is_some() { DEFAULT_OVERLAP } else { Duration::ZERO };
    let pair = KeyPair::generate(algorithm)?;
    let key = pair.public_key();
    let record = KeyRecord {
        public: PublicJwk { kid: thumbprint(&key), algorithm: algorithm.into(), key },
        algorithm,
        created_at: now,
        activate_at: now.plus(activate_after.unwrap_or(overlap)),
        retired_at: None,
    };
    // The record last: without it the private key does not count, so a crash leaves no half key.
    write_private(&pem_path(dir, record.kid()), pair.to_pem()?.as_bytes(), Existing::Keep)?;
    write_record(dir, &record, Existing::Keep)?;
    Ok(record)
}

/// Ends a key: it signs nothing, is not published, and its tokens stop. A key that was retired
/// before keeps its time.
pub fn retire(
    dir: &Path,
    kid: &str,
    force: bool,
    now: Timestamp,
) -> Result<KeyRecord, KeyStoreError> {
    let mut records = read_records(dir).map_err(KeyStoreError::Broken)?;
    let Some(at) = records.iter().position(|record| record.kid() == kid) else {
        return Err(KeyStoreError::NoSuchKey { kid: kid.to_owned(), dir: dir.to_owned() });
    };
    let mut record = records.swap_remove(at);
    if record.retired_at.is_some() {
        return Ok(record);
    }
    if record.can_sign(now) && signing(&records, now).is_none() && !force {
        return Err(KeyStoreError::OnlySigner(kid.to_owned()));
    }
    record.retired_at = Some(now);
    write_record(dir, &record, Existing::Replace)?;
    Ok(record)
}

/// Writes a fresh key for tenant digests: 64 hex characters.
pub fn write_digest_key(path: &Path, existing: Existing) -> Result<(), KeyStoreError> {
    if let Some(dir) = path.parent().filter(|dir| !dir.as_os_str().is_empty()) {
        create_private_dir(dir)?;
    }
    let mut key = Zeroizing::new([0; DIGEST_KEY_LEN]);
    rand::fill(key.as_mut_slice()).map_err(SignError::from)?;
    let mut text = Zeroizing::new(String::with_capacity(2 * DIGEST_KEY_LEN + 1));
    for byte in key.iter() {
        write!(text, "{byte:02x}").map_err(|_| SignError)?;
    }
    text.push('\n');
    write_private(path, text.as_bytes(), existing)
}

/// What happens to a file that is there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// It is an error.
    Keep,
    /// It is overwritten.
    Replace,
}

fn write_record(dir: &Path, record: &KeyRecord, existing: Existing) -> Result<(), KeyStoreError> {
    let path = json_path(dir, record.kid());
    let as_io = |error: serde_json::Error| io_error(&path)(error.into());
    let file = RecordFile {
        jwk: serde_json::value::to_raw_value(&record.public.to_json()).map_err(as_io)?,
        created_at: exact(record.created_at),
        activate_at: exact(record.activate_at),
        retired_at: record.retired_at.map(to_rfc3339),
    };
    let mut text = serde_json::to_vec_pretty(&file).map_err(as_io)?;
    text.push(b'\n');
    write_private(&path, &text, existing)
}

/// In one step: a reader of `path` sees the whole file or none, and it has mode 0600 from the
/// first moment on.
fn write_private(path: &Path, bytes: &[u8], existing: Existing) -> Result<(), KeyStoreError> {
    // A link that is there is an existing file, whatever is behind it.
    let target = match existing {
        Existing::Keep => path.to_owned(),
        Existing::Replace => files::behind_links(path).map_err(io_error(path))?,
    };
    let dir = match target.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    };
    let write = || {
        let mut file = tempfile::Builder::new()
            .prefix(".new-")
            .permissions(fs::Permissions::from_mode(0o600))
            .tempfile_in(dir)?;
        file.write_all(bytes)?;
        file.as_file().sync_all()?;
        match existing {
            Existing::Keep => file.persist_noclobber(&target)?,
            Existing::Replace => file.persist(&target)?,
        };
        File::open(dir)?.sync_all()
    };
    write().map_err(|error: io::Error| match error.kind() {
        io::ErrorKind::AlreadyExists => KeyStoreError::Exists(path.to_owned()),
        _ => io_error(path)(error),
    })
}

fn create_private_dir(dir: &Path) -> Result<(), KeyStoreError> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(io_error(dir))
}

fn io_error(path: &Path) -> impl Fn(io::Error) -> KeyStoreError {
    move |source| KeyStoreError::Io { path: path.to_owned(), source }
}

/// In whole seconds, rounded down, so that a key that signs at once does.
/// To the nanosecond: of two keys made in one second the later one is the newer.
fn exact(time: Timestamp) -> String {
    let time = jiff::Timestamp::from_nanosecond(time.nanos().into());
    time.unwrap_or(jiff::Timestamp::MAX).to_string()
}

/// In UTC, to the second (RFC 3339).
pub fn to_rfc3339(time: Timestamp) -> String {
    let seconds = i64::try_from(time.secs()).ok();
    seconds
        .and_then(|seconds| jiff::Timestamp::from_second(seconds).ok())
        .unwrap_or(jiff::Timestamp::MAX)
        .to_string()
}

fn from_rfc3339(text: &str) -> Option<Timestamp> {
    let time: jiff::Timestamp = text.parse().ok()?;
    Some(Timestamp::from_nanos(u64::try_from(time.as_nanosecond()).ok()?))
}

#[cfg(test)]
mod tests {
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
}
