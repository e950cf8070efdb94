//! A registered client as it is stored.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::record::{Kind, Record, timestamp};
use super::seal::Sealer;
use crate::domain::{
    Client, ClientId, Credential, CredentialDigest, GrantSet, Holder, Quota, QuotaUnit, ScopeSet,
    TenantDigester,
};

/// The body of a client's record. What a later version adds, an earlier one leaves out.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ClientBody {
    /// Without repetition.
    pub scopes: Vec<String>,
    /// The codes of its static tenants, sealed. `None`: the lookup tells them.
    pub sealed_tenants: Option<String>,
    /// `None`: as long as the issuer says.
    pub token_ttl_seconds: Option<u64>,
    /// The developer's id.
    pub developer: Option<String>,
    /// Stops the client as if it were withdrawn.
    pub developer_inactive: bool,
    /// `None`: every API.
    pub apis: Option<Vec<String>>,
    /// Claims that every token carries: names, and values as JSON text.
    pub attributes: BTreeMap<String, String>,
    /// `None`: no quota of its own.
    pub quota: Option<StoredQuota>,
    /// Active, revoked and expired ones.
    pub credentials: Vec<StoredCredential>,
    /// Microseconds.
    pub created_at: i64,
}

/// How many requests a window may have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredQuota {
    /// More than zero.
    pub requests_per_unit: u32,
    /// Envoy's name of the unit.
    pub unit: String,
}

/// A generated secret, of which only the digest is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredCredential {
    /// Chosen at random; it names the credential in calls.
    pub id: String,
    /// Lower-case hex.
    pub sha256: String,
    /// False: revoked.
    pub active: bool,
    /// Microseconds, as below.
    pub created_at: i64,
    /// `None`: it does not expire.
    pub expires_at: Option<i64>,
}

/// What a stored client is read against.
pub struct ClientContext<'a> {
    /// Opens the static tenants.
    pub sealer: &'a Sealer,
    /// Makes the digests of static tenants.
    pub digester: &'a TenantDigester,
    /// Our own `iss`.
    pub issuer: &'a str,
    /// There is no lookup, so that no tenants means no grants.
    pub static_lookup: bool,
}

impl ClientBody {
    /// `None`: the body is not one of a client.
    pub fn of(record: &Record) -> Option<Self> {
        serde_json::from_str(&record.body).ok()
    }
}

/// A client's record without the digests of its secrets, for a process that proves no client.
pub fn without_credentials(record: Record) -> Record {
    if record.key.kind != Kind::Client || record.body.is_empty() {
        return record;
    }
    // A body that cannot be read is that of a client that can do nothing.
    let body = serde_json::from_str(&record.body).map(|mut body: Map<String, Value>| {
        body.remove("credentials");
        Value::Object(body).to_string()
    });
    Record { body: body.unwrap_or_default(), ..record }
}

impl ClientContext<'_> {
    /// `None`: the client is gone, or has no name that we know. One that cannot be read otherwise
    /// can do nothing: somebody knows it by its id, and what it may do is not known.
    pub fn client(&self, record: &Record) -> Option<Client> {
        let id = ClientId::parse(&record.key.client).filter(|_| !record.is_lifted())?;
        let client = ClientBody::of(record).and_then(|document| self.read(&id, document));
        Some(client.unwrap_or_else(|| {
            tracing::error!(client = %id, "a stored client cannot be read, and is taken for \
                                           withdrawn; is state.key_file the one it was stored \
                                           under?");
            Client::new(id)
        }))
    }

    fn read(&self, id: &ClientId, document: ClientBody) -> Option<Client> {
        let holder = Holder { issuer: self.issuer, client: id.as_str() };
        let codes = match &document.sealed_tenants {
            Some(sealed) => self.sealer.open(id.as_str(), sealed)?,
            None => Vec::new(),
        };
        let listed = self.static_lookup || document.sealed_tenants.is_some();
        let quota = match document.quota {
            Some(StoredQuota { requests_per_unit, unit }) => {
                Some(Quota { requests_per_unit, unit: QuotaUnit::parse(&unit)? })
            }
            None => None,
        };
        let credentials = document.credentials.iter().map(StoredCredential::read);
        Some(Client {
            credentials: credentials.collect::<Option<_>>()?,
            scopes: ScopeSet::from_tokens(document.scopes.iter().map(String::as_str)),
            static_grants: listed.then(|| Arc::new(GrantSet::of(codes, self.digester, holder))),
            token_ttl: document.token_ttl_seconds.map(Duration::from_secs),
            apis: document.apis,
            attributes: document.attributes,
            quota,
            approved: true,
            developer_active: !document.developer_inactive,
            ..Client::new(id.clone())
        })
    }
}

impl StoredCredential {
    fn read(&self) -> Option<Credential> {
        let mut digest = [0; 32];
        hex::decode_to_slice(&self.sha256, &mut digest).ok()?;
        Some(Credential {
            digest: CredentialDigest::Sha256(digest),
            active: self.active,
            expires_at: self.expires_at.map(timestamp),
        })
    }
}

#[cfg(test)]
mod tests {
    use zeroize::Zeroizing;

    use super::*;
    use crate::domain::{Standing, TenantCode};
    use crate::state::{Key, StateKey};

    fn record(body: String, lifted: i64) -> Record {
        Record {
            key: Key::client(Holder { issuer: "i", client: "acme" }),
            not_before: 0,
            expires_at: None,
            lifted,
            body,
            seq: 1,
            at: 1,
        }
    }

    fn read(key: u8, body: String, lifted: i64) -> Option<Client> {
        let sealer = StateKey::new(Zeroizing::new([key; 32])).sealer();
        let digester = TenantDigester::new(&[7; 32], None);
        let context = ClientContext {
            sealer: &sealer,
            digester: &digester,
            issuer: "i",
            static_lookup: false,
        };
        context.client(&record(body, lifted))
    }

    fn document() -> String {
        let sealer = StateKey::new(Zeroizing::new([1; 32])).sealer();
        let codes = [TenantCode::parse("CANARY").unwrap()];
        let document = ClientBody {
            scopes: vec!["a".to_owned(), "b".to_owned()],
            sealed_tenants: sealer.seal("acme", &codes),
            token_ttl_seconds: Some(60),
            credentials: vec![StoredCredential {
                id: "1".to_owned(),
                sha256: hex::encode(CredentialDigest::sha256_of("secret")),
                active: true,
                created_at: 0,
                expires_at: None,
            }],
            quota: Some(StoredQuota { requests_per_unit: 5, unit: "MINUTE".to_owned() }),
            ..ClientBody::default()
        };
        serde_json::to_string(&document).unwrap()
    }

    #[test]
    fn without_credentials_a_client_is_the_same_but_for_them() {
        let stripped = without_credentials(record(document(), 0)).body;
        assert!(document().contains("sha256") && !stripped.contains("sha256"), "{stripped}");
        let (whole, without) = (read(1, document(), 0).unwrap(), read(1, stripped, 0).unwrap());
        let parts = |client: Client| (client.scopes, client.token_ttl, client.quota);
        assert_eq!((whole.credentials.len(), without.credentials.len()), (1, 0));
        assert_eq!(parts(whole), parts(without));
        assert_eq!(without_credentials(record("not JSON".to_owned(), 0)).body, "");
        let deleted = record(String::new(), 1);
        assert_eq!(without_credentials(deleted.clone()), deleted);
    }

    #[test]
    fn a_document_becomes_a_client_and_holds_no_code() {
        assert!(!document().contains("CANARY"));
        let client = read(1, document(), 0).unwrap();
        assert_eq!(client.standing(), Standing::Good);
        assert_eq!(client.scopes.as_str(), "a b");
        assert_eq!(client.static_grants.unwrap().codes[0].expose(), "CANARY");
        assert_eq!(client.quota.unwrap().requests_per_unit, 5);
        assert!(read(1, document(), 1).is_none());
        assert!(read(1, "{}".to_owned(), 0).unwrap().static_grants.is_none());
    }

    #[test]
    fn what_cannot_be_read_can_do_nothing() {
        for (key, body) in [(2, document()), (1, "{".to_owned())] {
            let client = read(key, body, 0).unwrap();
            assert_eq!(client.standing(), Standing::Withdrawn);
            assert!(client.credentials.is_empty());
        }
    }
}
