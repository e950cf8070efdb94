//! A client between the bodies of calls and the form in which it is stored.

use std::collections::BTreeMap;

use serde_json::Value;

use super::documents::{
    self, About, ClientPatch, CredentialDocument, DeveloperStatus, NewClient, RecordSource, time,
};
use super::failure::Failure;
use crate::clients::{
    RawClient, RawClientStatus, RawDeveloper, RawDeveloperStatus, RawQuota, RawQuotaUnit,
    parse_token_ttl,
};
use crate::domain::{
    Client, ClientId, Credential, CredentialDigest, Holder, QuotaUnit, Secret, TenantCode,
    TenantDigester, Timestamp, Withdrawals,
};
use crate::state::{ClientBody, Record, Sealer, StoredCredential, StoredQuota};

/// Revoked secrets that are kept, so that the log can tell one from an unknown one.
const MAX_REVOKED: usize = 10;

/// A client that is about to be stored.
pub struct Draft {
    pub id: ClientId,
    stored: ClientBody,
    tenants: Vec<String>,
    /// As it was written, to be checked like that of a file.
    token_ttl: Option<String>,
}

impl Draft {
    pub fn new(body: NewClient) -> Result<(Self, About), Failure> {
        let id = ClientId::parse(&body.client_id).ok_or_else(|| {
            Failure::Invalid(format!("client_id: not a client id; use {}", ClientId::RULE))
        })?;
        let about = About { request_id: body.request_id, reason: body.reason };
        let (stored, tenants, token_ttl) = Default::default();
        let mut draft = Self { id, stored, tenants, token_ttl };
        draft.patch(ClientPatch {
            scope: body.scope.map(Some),
            tenants: body.tenants.map(Some),
            token_ttl: body.token_ttl.map(Some),
            developer: body.developer.map(Some),
            apis: body.apis.map(Some),
            attributes: body.attributes.map(Some),
            quota: body.quota.map(Some),
            request_id: None,
            reason: None,
        });
        Ok((draft, about))
    }

    pub fn read(record: &Record, sealer: &Sealer) -> Result<Self, Failure> {
        let unreadable = || {
            let text =
                "what is stored of this client cannot be read; delete it and register it again";
            Failure::Conflict(text.to_owned())
        };
        let id = ClientId::parse(&record.key.client).ok_or_else(unreadable)?;
        let stored = ClientBody::of(record).ok_or_else(unreadable)?;
        let codes = match &stored.sealed_tenants {
            Some(sealed) => sealer.open(id.as_str(), sealed).ok_or_else(unreadable)?,
            None => Vec::new(),
        };
        let tenants = codes.iter().map(|code| code.expose().to_owned()).collect();
        let token_ttl = stored.token_ttl_seconds.map(|seconds| format!("{seconds}s"));
        Ok(Self { id, stored, tenants, token_ttl })
    }

    pub fn patch(&mut self, body: ClientPatch) {
        let stored = &mut self.stored;
        if let Some(scope) = body.scope {
            stored.scopes = scope.map(documents::Scopes::into_list).unwrap_or_default();
        }
        if let Some(tenants) = body.tenants {
            self.tenants = tenants.unwrap_or_default();
        }
        if let Some(token_ttl) = body.token_ttl {
            self.token_ttl = token_ttl;
        }
        if let Some(developer) = body.developer {
            stored.developer_inactive = developer
                .as_ref()
                .is_some_and(|developer| developer.status == DeveloperStatus::Inactive);
            stored.developer = developer.and_then(|developer| developer.id);
        }
        if let Some(apis) = body.apis {
            stored.apis = apis;
        }
        if let Some(attributes) = body.attributes {
            let attributes = attributes.unwrap_or_default().into_iter();
            stored.attributes = attributes.map(|(name, value)| (name, value.to_string())).collect();
        }
        if let Some(quota) = body.quota {
            stored.quota = quota.map(|quota| StoredQuota {
                requests_per_unit: quota.requests_per_unit,
                unit: QuotaUnit::from(quota.unit).as_str().to_owned(),
            });
        }
    }

    pub fn active(&self) -> usize {
        self.stored.credentials.iter().filter(|credential| credential.active).count()
    }

    pub fn add_secret(&mut self, secret: &Secret, now: i64) {
        let sha256 = digest(secret);
        self.stored.credentials.push(StoredCredential {
            id: sha256[..16].to_owned(),
            sha256,
            active: true,
            created_at: now,
            expires_at: None,
        });
    }

    pub fn revoke_secret(&mut self, id: &str) -> Result<(), Failure> {
        let credentials = &mut self.stored.credentials;
        let found = credentials.iter_mut().find(|credential| credential.id == id);
        found.ok_or(Failure::NotFound("this client has no such secret"))?.active = false;
        let mut revoked = credentials.iter().filter(|credential| !credential.active).count();
        credentials.retain(|credential| {
            let drop = !credential.active && revoked > MAX_REVOKED;
            revoked -= usize::from(drop);
            !drop
        });
        Ok(())
    }

    /// The name of a secret, where it is in use.
    pub fn credential_of(&self, secret: &Secret) -> Option<String> {
        let sha256 = digest(secret);
        let mut active = self.stored.credentials.iter().filter(|credential| credential.active);
        active.find(|credential| credential.sha256 == sha256).map(|found| found.id.clone())
    }

    /// To be checked as an entry of `clients.yaml` is.
    pub fn to_raw(&self) -> RawClient {
        let stored = &self.stored;
        let attributes = stored.attributes.iter();
        RawClient {
            id: self.id.to_string(),
            status: RawClientStatus::Approved,
            developer: stored
                .developer
                .clone()
                .map(|id| RawDeveloper { id, status: RawDeveloperStatus::Active }),
            credentials: Vec::new(),
            scopes: stored.scopes.clone(),
            tenants: self.tenants.clone(),
            token_ttl: self.token_ttl.clone(),
            tokens_not_before: None,
            apis: stored.apis.clone(),
            attributes: attributes.map(|(name, text)| (name.clone(), value_of(text))).collect(),
            quota: stored.quota.as_ref().and_then(|quota| {
                let unit = match QuotaUnit::parse(&quota.unit)? {
                    QuotaUnit::Second => RawQuotaUnit::Second,
                    QuotaUnit::Minute => RawQuotaUnit::Minute,
                    QuotaUnit::Hour => RawQuotaUnit::Hour,
                    QuotaUnit::Day => RawQuotaUnit::Day,
                };
                Some(RawQuota { requests_per_unit: quota.requests_per_unit, unit })
            }),
        }
    }

    /// After it has been checked.
    pub fn to_body(&self, sealer: &Sealer, now: i64) -> Option<String> {
        let codes: Option<Vec<_>> =
            self.tenants.iter().map(|code| TenantCode::parse(code)).collect();
        let sealed_tenants = match codes? {
            codes if codes.is_empty() => None,
            codes => Some(sealer.seal(self.id.as_str(), &codes)?),
        };
        let ttl = self.token_ttl.as_deref().map(parse_token_ttl).transpose().ok()?;
        let created_at = match self.stored.created_at {
            0 => now,
            created_at => created_at,
        };
        let document = ClientBody {
            sealed_tenants,
            token_ttl_seconds: ttl.map(|ttl| ttl.as_secs()),
            created_at,
            ..self.stored.clone()
        };
        serde_json::to_string(&document).ok()
    }
}

fn digest(secret: &Secret) -> String {
    hex::encode(CredentialDigest::sha256_of(secret.expose()))
}

fn value_of(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_default()
}

/// What a client's document is made of, beside the client.
pub struct Known<'a> {
    /// How it is stored. `None`: it is in `clients.yaml`.
    pub record: Option<&'a Record>,
    pub holder: Holder<'a>,
    pub withdrawals: Option<&'a Withdrawals>,
    pub digester: &'a TenantDigester,
    pub now: Timestamp,
}

/// A client as it is in force.
pub fn document(client: &Client, known: &Known<'_>) -> documents::ClientDocument {
    let stored = known.record.and_then(ClientBody::of);
    let withdrawn = known.withdrawals.and_then(|all| all.lookup(known.holder));
    let by_call = withdrawn.as_ref().and_then(|withdrawn| withdrawn.tokens_not_before());
    let not_before = client.tokens_not_before.max(by_call);
    let tenants = client.static_grants.as_ref().map(|grants| {
        let reference = |code: &TenantCode| known.digester.reference(code.expose()).to_string();
        grants.codes.iter().map(reference).collect()
    });
    let developer = stored.as_ref().and_then(|stored| stored.developer.clone());
    let attributes = client.attributes.iter();
    documents::ClientDocument {
        client_id: client.id.to_string(),
        source: if known.record.is_some() { RecordSource::State } else { RecordSource::File },
        status: if client.approved { "approved" } else { "revoked" },
        blocked: withdrawn.is_some_and(|withdrawn| withdrawn.is_blocked()),
        developer: Some(documents::Developer {
            id: developer,
            status: match client.developer_active {
                true => DeveloperStatus::Active,
                false => DeveloperStatus::Inactive,
            },
        }),
        scope: client.scopes.as_str().to_owned(),
        tenants,
        token_ttl: client.token_ttl.map(|ttl| humantime::format_duration(ttl).to_string()),
        apis: client.apis.clone(),
        attributes: attributes
            .map(|(name, text)| (name.clone(), value_of(text)))
            .collect::<BTreeMap<_, _>>(),
        quota: client.quota.map(|quota| documents::QuotaDocument {
            requests_per_unit: quota.requests_per_unit,
            unit: quota.unit.into(),
        }),
        credentials: match &stored {
            Some(stored) => stored.credentials.iter().map(|c| of_stored(c, known.now)).collect(),
            None => client.credentials.iter().map(|c| of_file(c, known.now)).collect(),
        },
        tokens_not_before: not_before.map(|time| time.to_string()),
        created_at: stored.map(|stored| time(stored.created_at)),
    }
}

fn of_stored(credential: &StoredCredential, now: Timestamp) -> CredentialDocument {
    let expired = credential.expires_at.is_some_and(|end| end <= (now.nanos() / 1_000) as i64);
    CredentialDocument {
        credential_id: Some(credential.id.clone()),
        status: status(credential.active, expired),
        created_at: Some(time(credential.created_at)),
        expires_at: credential.expires_at.map(time),
    }
}

fn of_file(credential: &Credential, now: Timestamp) -> CredentialDocument {
    CredentialDocument {
        credential_id: None,
        status: status(credential.active, credential.active && !credential.usable_at(now)),
        created_at: None,
        expires_at: credential.expires_at.map(|end| end.to_string()),
    }
}

fn status(active: bool, expired: bool) -> &'static str {
    match (active, expired) {
        (false, _) => "revoked",
        (true, true) => "expired",
        (true, false) => "active",
    }
}
