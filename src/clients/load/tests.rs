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
    assert!(matches!(client.credentials[0].digest, CredentialDigest::Sha256(d) if d == [0xab; 32]));
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
    assert!(client.token_ttl.is_none() && client.apis.is_none() && client.attributes.is_empty());
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
        ("id: a, credentials: [{digest: x}]", "clients[1].credentials[0].digest: neither sha256:"),
        (
            &format!("id: a, credentials: [{{digest: '{twice}'}}]"),
            "clients[1].credentials[0].digest: the same as clients[0].credentials[0]; every",
        ),
        (
            &format!("id: a, credentials: [{{digest: '{}', expires_at: tomorrow}}]", sha256("01")),
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
        ("id: a, tenants: [ok, ok]", "clients[1].tenants[1]: the same as tenants[0]; remove one"),
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
        ("id: a, attributes: {tenant_list: x}", "clients[1].attributes.tenant_list: the name of"),
        ("id: a, attributes: {'': x}", "clients[1].attributes: a name is empty; name the claim"),
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
        let hash =
            format!("$argon2id$v=19$m=8,t={passes},p=1$c2FsdHNhbHRzYWx0$ZCYgZGlnZXN0IGRpZ2VzdA");
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
