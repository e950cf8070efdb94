//! The key directory: `<kid>.json` with what is public about a key and when it is used, and
//! `<kid>.pem` with its private half.

use std::collections::BTreeMap;
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
    let mut text = Zeroizing::new([b'\n'; 2 * DIGEST_KEY_LEN + 1]);
    let digits = &mut text[..2 * DIGEST_KEY_LEN];
    hex::encode_to_slice(key.as_slice(), digits).map_err(|_| SignError)?;
    write_private(path, &*text, existing)
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
mod tests;
