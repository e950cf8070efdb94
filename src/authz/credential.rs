//! Who is calling: exactly one credential, a token or an API key.

use std::sync::Arc;

use super::bearer::{self, HeaderValue};
use super::decide::{Authorizer, CheckInput, Denied, Hint, Identity};
use super::issuer::KeyStanding;
use super::jwt::{MAX_TOKEN, TokenRefusal, Verifier, within_lifetime};
use super::snapshot::Api;
use crate::domain::{CredentialDigest, DenyReason};

impl<'a> Authorizer<'a> {
    pub(super) fn identify(&self, api: &Api, input: &CheckInput<'a>) -> Result<Identity, Denied> {
        let key = match &api.api_key_header {
            Some(name) => input.headers.get(name),
            None => HeaderValue::Missing,
        };
        match (input.headers.get("authorization"), key) {
            (HeaderValue::Missing, HeaderValue::Missing) => Err(DenyReason::NoCredential.into()),
            (HeaderValue::One(value), HeaderValue::Missing) => self.token_identity(value),
            (HeaderValue::Missing, HeaderValue::One(key)) => Ok(self.key_identity(key)?),
            _ => Err(DenyReason::SeveralCredentials.into()),
        }
    }

    pub(super) fn token_identity(&self, value: &[u8]) -> Result<Identity, Denied> {
        // A cached token has passed every rule, including those on its syntax.
        let token = bearer::after_scheme(value).filter(|token| token.len() <= MAX_TOKEN);
        let digest = token.map(|token| self.cache.digest(token));
        let remembered = digest.as_ref().and_then(|digest| self.cache.get(digest));
        if let Some(facts) = remembered.filter(|facts| facts.comparable(&self.snapshot.digester)) {
            match self.snapshot.trust.standing(facts.key, self.now.monotonic) {
                KeyStanding::Trusted => {
                    within_lifetime(
                        facts.not_before,
                        facts.expires_at,
                        &facts.issuer,
                        self.now.wall,
                    )?;
                    return Ok(Identity::Token(facts));
                }
                KeyStanding::TooOld => return Err(DenyReason::KeysUnavailable.into()),
                // The key is gone, or its issuer's rules have changed: verify again.
                KeyStanding::Withdrawn => {}
            }
        }
        let verifier = Verifier {
            trust: &self.snapshot.trust,
            digester: &self.snapshot.digester,
            grants: self.grants,
            now: self.now,
        };
        let facts = Arc::new(verifier.verify(bearer::token(value)?)?);
        if let Some(digest) = digest {
            self.cache.insert(digest, Arc::clone(&facts));
        }
        Ok(Identity::Token(facts))
    }

    /// Whether the header for API keys holds a credential that the registry knows, whatever its
    /// state.
    pub(super) fn shows_our_key(&self, api: &Api, input: &CheckInput<'_>) -> bool {
        let Some(name) = &api.api_key_header else { return false };
        match (input.headers.get(name), &self.snapshot.clients) {
            (HeaderValue::Missing, _) | (_, None) => false,
            (HeaderValue::One(key), Some(book)) => str::from_utf8(key).is_ok_and(|key| {
                book.by_credential_digest(&CredentialDigest::sha256_of(key)).is_some()
            }),
            (HeaderValue::Several, Some(_)) => true,
        }
    }

    fn key_identity(&self, key: &[u8]) -> Result<Identity, DenyReason> {
        let key = str::from_utf8(key).map_err(|_| DenyReason::ApiKeyInvalid)?;
        let book = self.snapshot.clients.as_ref().ok_or(DenyReason::ApiKeyInvalid)?;
        let digest = CredentialDigest::sha256_of(key);
        let found = book.by_credential_digest(&digest);
        let (client, credential) = found.ok_or(DenyReason::ApiKeyInvalid)?;
        if !credential.usable_at(self.now.wall) {
            return Err(DenyReason::ApiKeyInvalid);
        }
        Ok(Identity::ApiKey(Arc::clone(client)))
    }
}

impl From<TokenRefusal> for Denied {
    fn from(refusal: TokenRefusal) -> Self {
        let unknown = refusal.unknown_key_of.as_ref();
        let hint = unknown.map(|policy| Hint::UnknownKey { issuer: policy.issuer.clone() });
        Self { rule: refusal.rule, hint, ..refusal.reason.into() }
    }
}
