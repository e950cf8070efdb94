//! The keys that sign and verify our own tokens, loaded from the key directory.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use serde_json::json;

use super::store::{KeyRecord, Scan, json_path, problem, read_key_pair, scan};
use super::{KeyPair, SignError};
use crate::authz::trust::KeySet;
use crate::domain::{Algorithm, Problem, Timestamp};

/// What the keys are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// A key that can sign has to be there.
    Sign,
    /// Private keys need not be there, and are not opened.
    VerifyOnly,
}

/// A private key that is not retired. It may not be active yet.
pub struct Signer {
    record: KeyRecord,
    pair: KeyPair,
}

impl Signer {
    /// The name of the key in tokens and in the published set.
    pub fn kid(&self) -> &str {
        self.record.kid()
    }

    /// The `alg` of its tokens.
    pub fn algorithm(&self) -> Algorithm {
        self.record.algorithm.into()
    }

    /// When the key was made, for a metric and an alert on its age.
    pub fn created_at(&self) -> Timestamp {
        self.record.created_at
    }

    /// Signs `BASE64URL(header).BASE64URL(payload)`; the result is not encoded yet.
    pub fn sign(&self, header_and_payload: &[u8]) -> Result<Vec<u8>, SignError> {
        self.pair.sign(header_and_payload)
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signer({} {})", self.algorithm().as_str(), self.kid())
    }
}

/// All keys of the directory that are not retired.
#[derive(Debug, Default)]
pub struct SigningKeys {
    /// Oldest first.
    records: Vec<KeyRecord>,
    /// By the time from which they sign; the last active one does.
    signers: Vec<Arc<Signer>>,
    key_set: KeySet,
    jwks: Arc<str>,
}

/// The keys to work with, and what is wrong with the directory all the same.
#[derive(Debug)]
pub struct LoadedKeys {
    /// What can be used.
    pub keys: SigningKeys,
    /// What is wrong with others; the usable ones are used all the same.
    pub problems: Vec<Problem>,
}

impl SigningKeys {
    /// For the start: whatever is wrong is an error, and so is a directory in which no key was ever
    /// made. Where all are retired nothing is wrong, but nothing can be signed or verified.
    pub fn load(dir: &Path, need: Need) -> Result<Self, Vec<Problem>> {
        let holds_none = || {
            let cure = format!("run: tenantgate keys generate --dir {}", dir.display());
            vec![problem(dir, &"holds no key", &cure)]
        };
        let found = scan(dir).map_err(|problem| vec![problem])?.ok_or_else(holds_none)?;
        if found.records.is_empty() && found.broken.is_empty() {
            return Err(holds_none());
        }
        let LoadedKeys { keys, problems } = Self::from_scan(dir, need, found, &Self::default());
        if problems.is_empty() { Ok(keys) } else { Err(problems) }
    }

    /// For a running process. A key that is retired or gone is so whatever else is wrong; one whose
    /// files cannot be read stays as it was. An error only where the directory itself cannot be
    /// read.
    pub fn reload(&self, dir: &Path, need: Need) -> Result<LoadedKeys, Vec<Problem>> {
        let gone = || vec![problem(dir, &"is not there", "restore the directory")];
        let found = scan(dir).map_err(|problem| vec![problem])?.ok_or_else(gone)?;
        Ok(Self::from_scan(dir, need, found, self))
    }

    fn from_scan(dir: &Path, need: Need, found: Scan, before: &Self) -> LoadedKeys {
        let kept = |kid: &String| before.records.iter().find(|record| record.kid() == kid);
        let mut records: Vec<KeyRecord> =
            found.records.into_iter().filter(|record| record.retired_at.is_none()).collect();
        records.extend(found.broken.keys().filter_map(kept).cloned());
        records.sort_by(|a, b| a.seniority().cmp(&b.seniority()));
        let mut problems: Vec<Problem> = found.broken.into_values().collect();
        let (mut trusted, mut signers) = (Vec::new(), Vec::new());
        for record in &records {
            match record.public.trusted() {
                Ok(key) => trusted.push(key),
                Err(error) => {
                    let cure = "restore the file, or remove it together with its .pem";
                    problems.push(problem(&json_path(dir, record.kid()), &error, cure));
                }
            }
            if need == Need::Sign {
                match read_key_pair(dir, record) {
                    Ok(pair) => signers.push(Arc::new(Signer { record: record.clone(), pair })),
                    Err(bad) => {
                        problems.push(bad);
                        let mut old = before.signers.iter();
                        signers.extend(old.find(|signer| signer.record == *record).cloned());
                    }
                }
            }
        }
        let published: Vec<_> = records.iter().map(|record| record.public.to_json()).collect();
        let keys = Self {
            records,
            signers,
            key_set: KeySet::new(trusted, None),
            jwks: json!({ "keys": published }).to_string().into(),
        };
        LoadedKeys { keys, problems }
    }

    /// Nothing can be signed or verified with these.
    pub fn is_empty(&self) -> bool {
        self.key_set.is_empty()
    }

    /// The newest key that is active at `now`.
    pub fn signer(&self, now: Timestamp) -> Option<&Arc<Signer>> {
        self.signers.iter().rev().find(|signer| signer.record.can_sign(now))
    }

    /// Those that are published and do not sign yet, the next one first.
    pub fn pending(&self, now: Timestamp) -> impl Iterator<Item = &KeyRecord> {
        self.signers.iter().map(|signer| &signer.record).filter(move |record| !record.can_sign(now))
    }

    /// For verifying: pending keys too, because another replica's clock may be ahead of ours.
    pub fn key_set(&self) -> KeySet {
        self.key_set.clone()
    }

    /// The published document, pending keys included.
    pub fn jwks_json(&self) -> Arc<str> {
        self.jwks.clone()
    }
}

#[cfg(test)]
mod tests;
