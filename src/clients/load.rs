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
            let told: HashSet<String> = problems.iter().map(|told| told.field.clone()).collect();
            let further = parsed.problems.into_iter();
            problems.extend(further.filter(|problem| !told.contains(&problem.field)));
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
mod tests {
    use std::fs;

    use super::*;

    const ISSUER: &str = "https://issuer.example";

    fn digester() -> TenantDigester {
        TenantDigester::new(&[1; 32], Some(&[2; 32]))
    }

    fn load_text(text: &str, static_lookup: bool) -> Result<ClientBook, Vec<Problem>> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("clients.yaml");
        fs::write(&path, text).unwrap();
        let context = LoadContext {
            digester: &digester(),
            issuer: ISSUER,
            tenant_claim: "tenant_list",
            api_names: &["oda", "oda2"],
            static_lookup,
        };
        let LoadedClients { book, problems } = load(&path, &context)?;
        if problems.is_empty() { Ok(book) } else { Err(problems) }
    }

    fn problems(text: &str) -> Vec<String> {
        let problems = load_text(text, false).err().unwrap_or_default();
        problems.iter().map(ToString::to_string).collect()
    }

    fn sha256(byte: &str) -> String {
        format!("sha256:{}", byte.repeat(32))
    }

    #[test]
    fn a_full_client_is_read() {
        let text = format!(
            "clients:
  - id: acme-analytics
    status: revoked
    developer: {{ id: acme, status: inactive }}
    credentials:
      - {{ digest: \"{}\", status: active, expires_at: 2027-01-01T00:00:00Z }}
      - {{ digest: \"{}\", status: revoked }}
      - {{ digest: \"$argon2id$v=19$m=8,t=1,p=1$c2FsdHNhbHRzYWx0$ZCYgZGlnZXN0IGRpZ2VzdA\" }}
    scopes: [reports.read, reports.write]
    tenants: [T2, T1]
    token_ttl: 30m
    apis: [oda2]
    attributes: {{ plan: gold, seats: 5, trial: false, regions: [eu, us] }}
",
            sha256("ab"),
            sha256("00")
        );
        let book = load_text(&text, false).unwrap();
        let client = book.get("acme-analytics").unwrap();
        assert!(!client.approved && !client.developer_active);
        let ends: Vec<_> = client.credentials.iter().map(|c| (c.active, c.expires_at)).collect();
        let new_year = Some(Timestamp::from_secs(1_798_761_600));
        assert_eq!(ends, [(true, new_year), (false, None), (true, None)]);
        assert!(
            matches!(client.credentials[0].digest, CredentialDigest::Sha256(d) if d == [0xab; 32])
        );
        assert!(matches!(client.credentials[2].digest, CredentialDigest::Argon2id(_)));
        assert_eq!(client.scopes.as_str(), "reports.read reports.write");
        assert_eq!(client.token_ttl, Some(Duration::from_secs(1800)));
        assert_eq!(client.apis.as_deref(), Some(&["oda2".to_owned()][..]));
        let attributes: Vec<_> =
            client.attributes.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let expected = ["plan=\"gold\"", "regions=[\"eu\",\"us\"]", "seats=5", "trial=false"];
        assert_eq!(attributes, expected);

        let grants = client.static_grants.as_ref().unwrap();
        let codes: Vec<_> = grants.codes.iter().map(TenantCode::expose).collect();
        assert_eq!(codes, ["T2", "T1"]);
        assert_eq!(grants.looked_up_at, crate::domain::Monotonic::default());
        let holder = Holder { issuer: ISSUER, client: "acme-analytics" };
        assert_eq!(grants.digests.len(), 4);
        for code in codes {
            assert!(digester().all(holder, code).all(|digest| grants.digests.contains(&digest)));
        }
    }

    #[test]
    fn what_is_left_out_has_its_default() {
        let book = load_text("clients: [{ id: a }]", false).unwrap();
        let client = book.get("a").unwrap();
        assert!(client.approved && client.developer_active && client.credentials.is_empty());
        assert!(client.scopes.is_empty() && client.static_grants.is_none());
        assert!(
            client.token_ttl.is_none() && client.apis.is_none() && client.attributes.is_empty()
        );
    }

    #[test]
    fn without_a_lookup_no_tenants_are_no_grants() {
        let book = load_text("clients: [{ id: a }, { id: b, tenants: [] }]", true).unwrap();
        for id in ["a", "b"] {
            assert!(book.get(id).unwrap().static_grants.as_ref().unwrap().codes.is_empty());
        }
    }

    #[test]
    fn every_bad_value_is_told_with_its_place() {
        let twice = sha256("ab");
        let cheap = "$argon2id$v=19$m=8,t=1,p=1$c2FsdHNhbHRzYWx0$ZCYgZGlnZXN0IGRpZ2VzdA";
        for (client, told) in [
            ("id: .", "clients[1].id: not a client id; use 1 to 128 of"),
            ("id: first", "clients[1].id: the same as clients[0].id; every client needs its own"),
            ("id: a, developer: {id: a/b}", "clients[1].developer.id: not a name; use 1 to 128"),
            (
                "id: a, credentials: [{digest: x}]",
                "clients[1].credentials[0].digest: neither sha256:",
            ),
            (
                &format!("id: a, credentials: [{{digest: '{twice}'}}]"),
                "clients[1].credentials[0].digest: the same as clients[0].credentials[0]; every",
            ),
            (
                &format!(
                    "id: a, credentials: [{{digest: '{}', expires_at: tomorrow}}]",
                    sha256("01")
                ),
                "clients[1].credentials[0].expires_at: not a time of RFC 3339; write it like",
            ),
            (
                &format!(
                    "id: a, credentials: [{{digest: '{cheap}'}}, {{digest: '{cheap}'}}, {{digest: \
                     '{cheap}'}}]"
                ),
                "clients[1].credentials: 3 are active; revoke those no longer in use",
            ),
            ("id: a, scopes: [ok, 'two words']", "clients[1].scopes[1]: not a scope; use one word"),
            ("id: a, tenants: [ok, 'a/b']", "clients[1].tenants[1]: not a tenant code; use 1 to"),
            (
                "id: a, tenants: [ok, ok]",
                "clients[1].tenants[1]: the same as tenants[0]; remove one",
            ),
            ("id: a, token_ttl: soon", "clients[1].token_ttl: not a duration; "),
            ("id: a, token_ttl: 0s", "clients[1].token_ttl: shorter than a second; write it like"),
            (
                "id: a, apis: [oda, odb]",
                "clients[1].apis[1]: no API has this name; the config has: oda, oda2",
            ),
            (
                "id: a, attributes: {client_id: x}",
                "clients[1].attributes.client_id: the name of a claim",
            ),
            (
                "id: a, attributes: {tenant_list: x}",
                "clients[1].attributes.tenant_list: the name of",
            ),
            (
                "id: a, attributes: {'': x}",
                "clients[1].attributes: a name is empty; name the claim",
            ),
            ("id: a, attributes: {x: {y: z}}", "clients[1].attributes.x: neither text, number"),
            ("id: a, attributes: {x: [[]]}", "clients[1].attributes.x: neither text, number"),
            ("id: a, attributes: {x: }", "clients[1].attributes.x: neither text, number"),
            (
                &format!("id: a, attributes: {{x: {}}}", "y".repeat(2046)),
                "clients[1].attributes: 2049 bytes, which would make tokens too large; keep to \
                 2048",
            ),
        ] {
            let first = format!("{{ id: first, credentials: [{{digest: '{twice}'}}] }}");
            let problems = problems(&format!("clients: [{first}, {{ {client} }}]"));
            assert_eq!(problems.len(), 1, "{client}: {problems:?}");
            assert!(problems[0].starts_with(told), "{client}: {}", problems[0]);
        }
    }

    #[test]
    fn too_many_argon2id_parameters_are_told() {
        let credential = |passes| {
            let hash = format!(
                "$argon2id$v=19$m=8,t={passes},p=1$c2FsdHNhbHRzYWx0$ZCYgZGlnZXN0IGRpZ2VzdA"
            );
            format!("{{ id: c{passes}, credentials: [{{ digest: '{hash}' }}] }}")
        };
        let registry = |count| {
            let clients: Vec<_> = (1..=count).map(credential).collect();
            format!("clients: [{}]", clients.join(", "))
        };
        assert!(problems(&registry(4)).is_empty());
        assert!(
            problems(&registry(5))[0].starts_with("clients: imported credentials have 5 different")
        );
    }

    #[test]
    fn a_quota_is_at_least_one_in_a_unit_that_envoy_knows() {
        let quota = |text: &str| problems(&format!("clients: [{{ id: a, quota: {text} }}]"));
        assert!(quota("{ requests_per_unit: 500, unit: MINUTE }").is_empty());
        assert!(quota("{ requests_per_unit: 4294967295, unit: DAY }").is_empty());
        for (text, field) in [
            ("{ requests_per_unit: 0, unit: MINUTE }", "clients[0].quota.requests_per_unit: "),
            ("{ requests_per_unit: -1, unit: MINUTE }", "clients[0].quota.requests_per_unit: "),
            ("{ requests_per_unit: 4294967296, unit: DAY }", "clients[0].quota"),
            ("{ requests_per_unit: 5, unit: minute }", "clients[0].quota.unit: "),
            ("{ requests_per_unit: 5, unit: WEEK }", "clients[0].quota.unit: "),
            ("{ requests_per_unit: 5 }", "clients[0].quota.unit: "),
            ("500", "clients[0].quota: "),
        ] {
            let told = quota(text);
            assert!(told.first().is_some_and(|told| told.starts_with(field)), "{text}: {told:?}");
        }
    }

    #[test]
    fn shape_and_values_are_told_at_once() {
        let text = "clients: [{ id: '...', statu: approved }, { scopes: ['a b'], status: off }]";
        assert_eq!(
            problems(text),
            [
                "clients[0].statu: unknown key; did you mean `status`?",
                "clients[1].status: must be `approved` or `revoked`; this is another text",
                "clients[1].id: missing; add it: The `client_id`: 1 to 128 letters, digits and \
                 `._~@:+-`, not only dots",
                "clients[0].id: not a client id; use 1 to 128 of A-Z a-z 0-9 . _ ~ @ : + -, not \
                 only dots",
                "clients[1].scopes[0]: not a scope; use one word of printable ASCII without quotes \
                 and backslashes for each scope",
            ]
        );
    }

    #[test]
    fn no_problem_shows_a_tenant_code_or_a_digest() {
        for text in [
            "clients: [{ id: a, tenants: ['CANARY/1', CANARY, CANARY] }]",
            "clients: [{ id: a, tenants: CANARY }]",
            "clients: [{ id: a, tenants: [[CANARY]] }]",
            "clients: [{ id: a, tenants: [CANARY }]",
            "clients: [{ id: a, tenants: [\"CANARY\\q\"] }]",
            "clients: [{ id: a, credentials: [{ digest: 'sha256:CANARY' }] }]",
            "clients: [{ id: a, credentials: [{ digest: '$argon2id$CANARY' }] }]",
            "clients: [{ id: a, credentials: [{ digest: [CANARY] }] }]",
        ] {
            let told = problems(text).join("\n");
            assert!(!told.is_empty() && !told.contains("CANARY"), "{text}: {told}");
        }
    }

    #[test]
    fn an_unreadable_file_is_one_problem() {
        let context = LoadContext {
            digester: &digester(),
            issuer: ISSUER,
            tenant_claim: "t",
            api_names: &[],
            static_lookup: false,
        };
        let problems = load(Path::new("/nowhere/clients.yaml"), &context).unwrap_err();
        assert_eq!(problems.len(), 1);
        assert_eq!(problems[0].field, "/nowhere/clients.yaml");
    }
}
