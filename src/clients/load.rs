use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt::Display;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::file::{
    Misshapen, RawClient, RawClientStatus, RawCredential, RawCredentialStatus, RawDeveloperStatus,
    RawQuota, RawQuotaUnit, read,
};
use super::secret::parse_digest;
use crate::domain::{
    Attributes, Client, ClientBook, ClientId, Credential, CredentialDigest, GrantSet, Holder,
    MAX_ACTIVE_CREDENTIALS, Problem, Quota, QuotaUnit, ScopeSet, TenantCode, TenantDigester,
    Timestamp, argon2id_cost, is_reserved_claim, is_scope_token, parse_duration,
};
use crate::files::{self, Others, Unguarded};

/// A failed authentication computes a hash of every cost that the registry knows.
const MAX_COSTS: usize = 4;

/// A token with 300 tenants and these attributes still fits into 16 KiB.
const MAX_ATTRIBUTES: usize = 2048;

/// What a registry is read against.
pub struct LoadContext<'a> {
    pub digester: &'a TenantDigester,
    pub issuer: &'a str,
    pub tenant_claim: &'a str,
    pub api_names: &'a [&'a str],
    /// There is no lookup, so that an empty `tenants` means no grants.
    pub static_lookup: bool,
}

/// The clients to work with, and what is wrong with the file all the same.
#[derive(Debug)]
pub struct LoadedClients {
    pub book: ClientBook,
    pub problems: Vec<Problem>,
}

/// A client whose entry has anything wrong with it is withdrawn until it is right: what cannot be
/// read might be what takes something away. An API that is not known only narrows. An error where
/// the file has no list of clients.
pub fn load(path: &Path, context: &LoadContext<'_>) -> Result<LoadedClients, Vec<Problem>> {
    if let Err(Unguarded { wrong, cure }) = files::check_guarded(path, Others::Read) {
        return Err(vec![Problem::new(path.display().to_string(), wrong, cure)]);
    }
    match read(path) {
        Ok(raw) => {
            let clients = raw.clients.into_iter().enumerate();
            Ok(parse(clients.map(|(position, client)| (position, client, true)), context))
        }
        Err(Misshapen { problems, clients: None }) => Err(problems),
        Err(Misshapen { mut problems, clients: Some(clients) }) => {
            let clients = clients.into_iter();
            let parsed = parse(clients.map(|c| (c.position, c.client, c.whole)), context);
            let known: HashSet<String> =
                problems.iter().map(|problem| problem.field.clone()).collect();
            let further = parsed.problems.into_iter();
            problems.extend(further.filter(|problem| !known.contains(&problem.field)));
            Ok(LoadedClients { book: parsed.book, problems })
        }
    }
}

/// What is wrong with a client that is to be registered; the fields are its own.
pub fn check(client: RawClient, context: &LoadContext<'_>) -> Vec<Problem> {
    let LoadedClients { problems, .. } = parse(std::iter::once((0, client, true)), context);
    let prefix = format!("{}.", At(0));
    let own = |Problem { field, message }| Problem {
        field: field.strip_prefix(&prefix).unwrap_or(&field).to_owned(),
        message,
    };
    problems.into_iter().map(own).collect()
}

/// The error says what is wrong and what to do.
pub fn parse_token_ttl(text: &str) -> Result<Duration, String> {
    let ttl = parse_duration(text).map_err(|error| error.to_string())?;
    if ttl < Duration::from_secs(1) {
        return Err("shorter than a second; write it like 30m".to_owned());
    }
    Ok(ttl)
}

fn parse(
    raw: impl ExactSizeIterator<Item = (usize, RawClient, bool)>,
    context: &LoadContext<'_>,
) -> LoadedClients {
    let mut loader = Loader {
        context,
        problems: Vec::new(),
        ids: HashMap::with_capacity(raw.len()),
        named_twice: HashSet::new(),
        digests: HashMap::with_capacity(raw.len()),
        costs: BTreeSet::new(),
        no_grants: Arc::new(grant_set(Vec::new(), "", context)),
    };
    let client = |(position, client, whole): (_, _, _)| loader.client(position, client, whole);
    let mut clients: Vec<Client> = raw.filter_map(client).collect();
    for client in clients.iter_mut().filter(|client| loader.named_twice.contains(&client.id)) {
        client.approved = false;
    }
    if loader.costs.len() > MAX_COSTS {
        let message = format!(
            "imported credentials have {} different argon2id parameters, and a failed \
             authentication costs one hash of each; import them with at most {MAX_COSTS}",
            loader.costs.len()
        );
        loader.problems.push(Problem { field: "clients".to_owned(), message });
    }
    LoadedClients { book: clients.into_iter().collect(), problems: loader.problems }
}

struct Loader<'a> {
    context: &'a LoadContext<'a>,
    problems: Vec<Problem>,
    ids: HashMap<ClientId, usize>,
    named_twice: HashSet<ClientId>,
    /// Where each digest of a generated secret stands.
    digests: HashMap<[u8; 32], (usize, usize)>,
    costs: BTreeSet<String>,
    no_grants: Arc<GrantSet>,
}

impl Loader<'_> {
    /// `None` where the id is bad, so that nothing can be said of the client.
    fn client(&mut self, position: usize, raw: RawClient, whole: bool) -> Option<Client> {
        let at = At(position);
        let before = self.problems.len();
        let id = self.id(at, &raw.id);
        if let Some(developer) = &raw.developer
            && ClientId::parse(&developer.id).is_none()
        {
            self.problem(at, "developer.id", format!("not a name; use {}", ClientId::RULE));
        }
        let developer_active =
            raw.developer.is_none_or(|developer| developer.status == RawDeveloperStatus::Active);
        let credentials = self.credentials(at, &raw.credentials);
        let scopes = self.scopes(at, &raw.scopes);
        let codes = self.tenants(at, &raw.tenants);
        let token_ttl = raw.token_ttl.and_then(|text| {
            parse_token_ttl(&text).map_err(|message| self.problem(at, "token_ttl", message)).ok()
        });
        let tokens_not_before = raw.tokens_not_before.and_then(|text| {
            let time = parse_time(&text);
            time.map_err(|message| self.problem(at, "tokens_not_before", message)).ok()
        });
        let attributes = self.attributes(at, &raw.attributes);
        let quota = raw.quota.and_then(|quota| self.quota(at, quota));
        let good = whole && self.problems.len() == before;
        let apis = raw.apis.map(|apis| self.known_apis(at, apis));
        let id = id?;
        Some(Client {
            static_grants: self.static_grants(codes, &id),
            id,
            approved: good && raw.status == RawClientStatus::Approved,
            developer_active,
            credentials,
            scopes,
            token_ttl,
            tokens_not_before,
            apis,
            attributes,
            quota,
        })
    }

    fn problem(&mut self, at: At, field: impl Display, message: impl Into<String>) {
        self.problems.push(Problem { field: format!("{at}.{field}"), message: message.into() });
    }

    fn id(&mut self, at: At, text: &str) -> Option<ClientId> {
        let Some(id) = ClientId::parse(text) else {
            self.problem(at, "id", format!("not a client id; use {}", ClientId::RULE));
            return None;
        };
        match self.ids.entry(id.clone()) {
            Entry::Vacant(entry) => {
                entry.insert(at.0);
            }
            Entry::Occupied(entry) => {
                let first = At(*entry.get());
                self.named_twice.insert(id.clone());
                self.problem(
                    at,
                    "id",
                    format!("the same as {first}.id; every client needs its own"),
                );
            }
        }
        Some(id)
    }

    fn credentials(&mut self, at: At, raw: &[RawCredential]) -> Vec<Credential> {
        let active = raw.iter().filter(|raw| raw.status == RawCredentialStatus::Active).count();
        if active > MAX_ACTIVE_CREDENTIALS {
            let message = format!(
                "{active} are active; revoke those no longer in use, so that at most \
                 {MAX_ACTIVE_CREDENTIALS} are"
            );
            self.problem(at, "credentials", message);
        }
        let numbered = raw.iter().enumerate();
        numbered.filter_map(|(position, raw)| self.credential(at, position, raw)).collect()
    }

    fn credential(&mut self, at: At, position: usize, raw: &RawCredential) -> Option<Credential> {
        let field = |name| format!("credentials[{position}].{name}");
        let expires_at = raw.expires_at.as_deref().and_then(|text| {
            parse_time(text).map_err(|message| self.problem(at, field("expires_at"), message)).ok()
        });
        let digest = parse_digest(&raw.digest)
            .map_err(|message| self.problem(at, field("digest"), message))
            .ok()?;
        match &digest {
            CredentialDigest::Sha256(digest) => match self.digests.entry(*digest) {
                Entry::Vacant(entry) => {
                    entry.insert((at.0, position));
                }
                Entry::Occupied(entry) => {
                    let (client, other) = *entry.get();
                    let first = format!("{}.credentials[{other}]", At(client));
                    let message =
                        format!("the same as {first}; every credential needs its own secret");
                    self.problem(at, field("digest"), message);
                    return None;
                }
            },
            CredentialDigest::Argon2id(phc) => {
                if !self.costs.contains(argon2id_cost(phc)) {
                    self.costs.insert(argon2id_cost(phc).to_owned());
                }
            }
        }
        Some(Credential { digest, active: raw.status == RawCredentialStatus::Active, expires_at })
    }

    fn scopes(&mut self, at: At, raw: &[String]) -> ScopeSet {
        for (position, scope) in raw.iter().enumerate() {
            if !is_scope_token(scope) {
                let message = "not a scope; use one word of printable ASCII without quotes and \
                               backslashes for each scope";
                self.problem(at, format_args!("scopes[{position}]"), message);
            }
        }
        ScopeSet::from_tokens(raw.iter().map(String::as_str))
    }

    fn tenants(&mut self, at: At, raw: &[String]) -> Vec<TenantCode> {
        let mut first_at: HashMap<&str, usize> = HashMap::with_capacity(raw.len());
        let mut codes = Vec::with_capacity(raw.len());
        for (position, text) in raw.iter().enumerate() {
            let field = format_args!("tenants[{position}]").to_string();
            match (TenantCode::parse(text), first_at.entry(text)) {
                // The code is a secret, so that its place has to do.
                (None, _) => {
                    let message =
                        "not a tenant code; use 1 to 128 of A-Z a-z 0-9 . _ ~ -, not only dots";
                    self.problem(at, field, message);
                }
                (Some(_), Entry::Occupied(first)) => {
                    self.problem(
                        at,
                        field,
                        format!("the same as tenants[{}]; remove one", first.get()),
                    );
                }
                (Some(code), Entry::Vacant(entry)) => {
                    entry.insert(position);
                    codes.push(code);
                }
            }
        }
        codes
    }

    fn known_apis(&mut self, at: At, mut names: Vec<String>) -> Vec<String> {
        let known = self.context.api_names;
        for (position, name) in names.iter().enumerate() {
            if !known.contains(&name.as_str()) {
                let message = format!("no API has this name; the config has: {}", known.join(", "));
                self.problem(at, format_args!("apis[{position}]"), message);
            }
        }
        names.retain(|name| known.contains(&name.as_str()));
        names
    }

    fn quota(&mut self, at: At, raw: RawQuota) -> Option<Quota> {
        if raw.requests_per_unit == 0 {
            let message = "nothing may be asked for with 0; to stop a client use `status: revoked`";
            self.problem(at, "quota.requests_per_unit", message);
            return None;
        }
        let unit = match raw.unit {
            RawQuotaUnit::Second => QuotaUnit::Second,
            RawQuotaUnit::Minute => QuotaUnit::Minute,
            RawQuotaUnit::Hour => QuotaUnit::Hour,
            RawQuotaUnit::Day => QuotaUnit::Day,
        };
        Some(Quota { requests_per_unit: raw.requests_per_unit, unit })
    }

    fn attributes(&mut self, at: At, raw: &BTreeMap<String, Value>) -> Attributes {
        let mut attributes = Attributes::new();
        for (name, value) in raw {
            let field = format!("attributes.{name}");
            if name.is_empty() {
                self.problem(at, "attributes", "a name is empty; name the claim");
            }
            if is_reserved_claim(name) || name == self.context.tenant_claim {
                self.problem(
                    at,
                    &field,
                    "the name of a claim that tokens carry anyway; choose another",
                );
            }
            if !is_claim_value(value) {
                self.problem(
                    at,
                    &field,
                    "neither text, number, boolean nor a list of these; write one",
                );
            }
            attributes.insert(name.clone(), value.to_string());
        }
        let size: usize = attributes.iter().map(|(name, value)| name.len() + value.len()).sum();
        if size > MAX_ATTRIBUTES {
            let message = format!(
                "{size} bytes, which would make tokens too large; keep to {MAX_ATTRIBUTES}"
            );
            self.problem(at, "attributes", message);
        }
        attributes
    }

    fn static_grants(&self, codes: Vec<TenantCode>, id: &ClientId) -> Option<Arc<GrantSet>> {
        if codes.is_empty() {
            return self.context.static_lookup.then(|| self.no_grants.clone());
        }
        Some(Arc::new(grant_set(codes, id.as_str(), self.context)))
    }
}

/// Static grants have no age.
fn grant_set(codes: Vec<TenantCode>, client: &str, context: &LoadContext<'_>) -> GrantSet {
    GrantSet::of(codes, context.digester, Holder { issuer: context.issuer, client })
}

fn is_claim_value(value: &Value) -> bool {
    let scalar = |value: &Value| value.is_string() || value.is_number() || value.is_boolean();
    scalar(value) || value.as_array().is_some_and(|values| values.iter().all(scalar))
}

/// The error says what is wrong and what to do.
pub fn parse_time(text: &str) -> Result<Timestamp, String> {
    let time: jiff::Timestamp = text.parse().map_err(|_| {
        "not a time of RFC 3339; write it like 2027-01-01T00:00:00Z, or leave it out".to_owned()
    })?;
    let nanos = time.as_nanosecond().clamp(0, u64::MAX.into());
    Ok(Timestamp::from_nanos(nanos as u64))
}

/// The place of a client in the file.
#[derive(Clone, Copy)]
struct At(usize);

impl Display for At {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "clients[{}]", self.0)
    }
}

#[cfg(test)]
mod tests;
