use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};

use super::{CONFIG_ENV, CONFIG_FILE};
use crate::config::{AnswerReading, ClaimForm, CodesOf, Config, Lookup};
use crate::domain::{
    ClientId, DIGEST_KEY_LEN, Problem, Quota, SystemClock, TenantCode, TenantDigester,
};
use crate::lookup::{
    Body, CalloutTokenError, Directory, Grants, Listed, Question, Step, TlsFault, Unavailable,
};
use crate::telemetry::{Instruments, Metrics};
use crate::yaml::locate;

const DENIED: u8 = 3;
/// Characters of a body.
const MAX_SHOWN: usize = 4000;
const MAX_POSITIONS: usize = 20;

/// Questions to the provider's own authorization API
#[derive(Args)]
pub struct LookupArgs {
    #[command(subcommand)]
    command: LookupCommand,
}

#[derive(Subcommand)]
enum LookupCommand {
    /// Make one real lookup and show each step. Exit code: 0 granted, 3 denied, 1 unavailable
    Test(TestArgs),
}

#[derive(Args)]
struct TestArgs {
    #[arg(long, value_name = "FILE", env = CONFIG_ENV, default_value = CONFIG_FILE)]
    config: PathBuf,
    /// The client to look up; it need not be registered.
    #[arg(long, value_name = "ID")]
    client: String,
    /// Show tenant codes, which are secrets, instead of references.
    #[arg(long)]
    show_codes: bool,
}

pub fn run(args: LookupArgs) -> anyhow::Result<ExitCode> {
    let LookupCommand::Test(args) = args.command;
    let client = ClientId::parse(&args.client)
        .with_context(|| format!("--client: not a client id; use {}", ClientId::RULE))?;
    let config = match Config::load(&args.config) {
        Ok(config) => config,
        Err(problems) => {
            for problem in problems {
                eprintln!("tenantgate: {problem}");
            }
            return Ok(ExitCode::FAILURE);
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let show = |name: &str, text: &str| println!("{name:<9} {text}");
    let test = Test {
        file: &args.config,
        config: &config,
        client: &client,
        show_codes: args.show_codes,
        show: &show,
    };
    // The table says all that the log would, which has no place between its lines.
    let silent = tracing::subscriber::NoSubscriber::new();
    let done = tracing::subscriber::with_default(silent, || runtime.block_on(test.run()));
    done.map(ExitCode::from)
}

struct Test<'a> {
    file: &'a Path,
    config: &'a Config,
    client: &'a ClientId,
    show_codes: bool,
    show: &'a (dyn Fn(&str, &str) + Send + Sync),
}

impl Test<'_> {
    async fn run(&self) -> anyhow::Result<u8> {
        let lookup = &self.config.tenants.lookup;
        if *lookup == Lookup::Static {
            bail!("tenants.lookup is `static`: there is nothing to ask; add `url` or `grpc` to it");
        }
        let instruments =
            Instruments { clock: Arc::new(SystemClock), metrics: Arc::new(Metrics::new()) };
        let directory =
            Directory::new(lookup, instruments).map_err(|problem| anyhow::anyhow!("{problem}"))?;
        (self.show)("client", self.client.as_str());
        let started = tokio::time::Instant::now();
        let answer = directory.look_up(Question::of(self.client), &|step| self.step(&step)).await;
        let took = in_brief(started.elapsed());
        match answer {
            Ok(answer) => Ok(self.grants(&answer.grants, &took)),
            Err(reason) => {
                (self.show)("result", &format!("unavailable after {took}: {reason}"));
                (self.show)("cure", &self.cure(&reason));
                Ok(1)
            }
        }
    }

    fn step(&self, step: &Step<'_>) {
        let (name, text) = match step {
            Step::Token { fetched, remaining } => {
                let source = if *fetched { "fetched from the token endpoint" } else { "kept" };
                ("token", format!("{source}, lives {}", in_brief(*remaining)))
            }
            Step::TokenReplaced { remaining } => {
                ("token", format!("refused, so fetched a new one, lives {}", in_brief(*remaining)))
            }
            Step::Asking { url } => ("asking", url.clone()),
            Step::Read { page, body } => ("body", self.body(*page, *body)),
            Step::Answered { status: Ok(status), took } => {
                ("answer", format!("status {status} after {}", in_brief(*took)))
            }
            Step::Answered { status: Err(reason), took } => {
                ("answer", format!("{reason} (after {})", in_brief(*took)))
            }
            Step::Waiting { delay } => {
                ("waiting", format!("{} before the next try", in_brief(*delay)))
            }
        };
        (self.show)(name, &text);
    }

    fn grants(&self, grants: &Grants, took: &str) -> u8 {
        let Grants::Listed { listed, .. } = grants else {
            unreachable!("nothing was asked for that could be unchanged");
        };
        self.selected(listed);
        for (what, positions) in [
            ("no tenant code", &listed.dropped),
            ("not matched by code_pattern", &listed.unmatched),
        ] {
            if !positions.is_empty() {
                let first = &positions[..positions.len().min(MAX_POSITIONS)];
                let more = if first.len() < positions.len() { " and more" } else { "" };
                let count = positions.len();
                let text = format!("{count} {what}, at positions {first:?}{more}");
                (self.show)("dropped", &text);
            }
        }
        for name in &listed.dropped_claims {
            (self.show)("dropped", &format!("claim {name}: larger than 1 KiB or reserved"));
        }
        for (name, json) in &listed.claims {
            (self.show)("claim", &format!("{name}: {json}"));
        }
        match listed.quota {
            Some(Quota { requests_per_unit, unit }) => {
                (self.show)("quota", &format!("{requests_per_unit} a {}", unit.as_str()));
            }
            None if listed.bad_quota => {
                (self.show)(
                    "dropped",
                    "the quota: not a whole number and SECOND, MINUTE, HOUR or DAY",
                );
            }
            None => {}
        }
        let digester = self.digester();
        for code in &listed.codes {
            (self.show)("tenant", &self.tenant(&digester, code));
        }
        match listed.codes.len() {
            0 => {
                (self.show)("result", &format!("denied after {took}: no tenant has authorised it"));
                DENIED
            }
            count => {
                (self.show)("result", &format!("granted after {took}; tenants: {count}"));
                0
            }
        }
    }

    /// Keys and types; what the provider wrote only where codes may be shown.
    fn body(&self, page: u32, body: Body<'_>) -> String {
        let keys = self.reading().filter(|reading| reading.of == CodesOf::Keys);
        let select = keys.map(|reading| reading.select.text.clone());
        let text = if self.show_codes {
            let text = body.expose().to_string();
            let end = text.char_indices().nth(MAX_SHOWN).map(|(at, _)| at);
            end.map_or(text.clone(), |end| format!("{}…", &text[..end]))
        } else {
            body.shape(select.as_deref()).to_string()
        };
        if page == 0 { text } else { format!("page {}: {text}", page + 1) }
    }

    fn reading(&self) -> Option<&AnswerReading> {
        match &self.config.tenants.lookup {
            Lookup::Http(http) => Some(&http.reading),
            Lookup::Static | Lookup::Grpc(_) => None,
        }
    }

    /// How many items `select` went through, and what became of them.
    fn selected(&self, listed: &Listed) {
        let Some(reading) = self.reading() else { return };
        let select = &reading.select.text;
        let found = listed.selected;
        let walked = match &reading.select.array {
            None => String::new(),
            Some(_) => {
                let lost = match listed.items.saturating_sub(found) {
                    0 => String::new(),
                    left if select.contains('?') => format!("; the filter dropped {left}"),
                    left => format!("; {left} without it"),
                };
                format!(" of {} items{lost}", listed.items)
            }
        };
        (self.show)("select", &format!("{select} found {found}{walked}"));
    }

    /// What to change, and where in the config that is.
    fn cure(&self, reason: &Unavailable) -> String {
        let (standard, tls) = match &self.config.tenants.lookup {
            Lookup::Http(http) => (http.authzen.then_some("authzen"), &http.tls),
            Lookup::Grpc(grpc) => (Some("grpc"), &grpc.tls),
            Lookup::Static => unreachable!("nobody was asked"),
        };
        let (key, cure) = match (cure(reason, tls.identity_pem.is_some()), standard) {
            (("url", cure), Some(standard)) => (format!("{standard}.url"), cure),
            (("select" | "pages", _), Some(standard)) => {
                (standard.to_owned(), "the answer is not what the standard says; ask the provider")
            }
            ((key, cure), _) => (key.to_owned(), cure),
        };
        let problem = Problem { field: format!("tenants.lookup.{key}"), message: cure.to_owned() };
        let placed = locate::place(vec![problem], self.file);
        placed.iter().map(ToString::to_string).collect()
    }

    fn tenant(&self, digester: &TenantDigester, code: &TenantCode) -> String {
        let reference = digester.reference(code.expose());
        if self.show_codes {
            format!("{reference} {}", code.expose())
        } else {
            reference.to_string()
        }
    }

    /// The references are those of the logs, where the config has a key for them.
    fn digester(&self) -> TenantDigester {
        match self.config.issuer.as_ref().map(|issuer| &issuer.tenant_claim.form) {
            Some(ClaimForm::Digest { key, .. }) => TenantDigester::new(key, None),
            Some(ClaimForm::Plain) | None => {
                TenantDigester::new(&rand::random::<[u8; DIGEST_KEY_LEN]>(), None)
            }
        }
    }
}

fn in_brief(time: Duration) -> String {
    if time < Duration::from_millis(1) {
        return "less than 1ms".to_owned();
    }
    let rounded = if time < Duration::from_secs(10) {
        Duration::from_millis(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
    } else {
        Duration::from_secs(time.as_secs())
    };
    humantime::format_duration(rounded).to_string()
}

/// The key of `tenants.lookup` that is to be looked at, and what about it.
fn cure(reason: &Unavailable, has_identity: bool) -> (&'static str, &'static str) {
    let url = "url";
    match reason {
        Unavailable::Timeout => ("timeout", "see how long the provider takes, or raise it"),
        Unavailable::Connect(_) => (url, "check host, port and scheme, and `tls` and `proxy`"),
        Unavailable::Tls { fault, .. } => tls_cure(*fault, url, has_identity),
        Unavailable::Broken(_) => (
            url,
            "check that it leads to the provider's API, and that http:// does not go to a TLS \
             port; see the provider's log",
        ),
        Unavailable::Status { status: 429, .. }
        | Unavailable::Rpc(tonic::Code::ResourceExhausted) => {
            ("concurrency", "the provider limits requests: ask for a higher limit, or lower it")
        }
        Unavailable::Status { status: 404, .. } => (
            url,
            "check the path; where 404 means that no tenant has authorised the app, say so with \
             `no_grants_status: [404]`",
        ),
        Unavailable::Status { status: 400, .. } => (
            url,
            "see the provider's log: the request is not what it expects, or goes in plain text to \
             a TLS port",
        ),
        Unavailable::Status { .. } | Unavailable::Rpc(_) => (
            url,
            "see the provider's log; a status that means \"no grants\" belongs in \
             `no_grants_status`",
        ),
        Unavailable::Redirect(_) => (url, "write the final URL; redirects are not followed"),
        Unavailable::TooLarge => ("max_body_bytes", "raise it"),
        Unavailable::NotJson => (url, "check that it leads to an API that answers in JSON"),
        Unavailable::Packed(_) => (url, "what `Content-Encoding` says is not what was sent"),
        Unavailable::WrongShape(_) => {
            ("select", "compare it with the body above; --show-codes shows the body as it came")
        }
        Unavailable::Incomplete(_) => {
            ("pages", "compare `pages` and `complete_if` with the body above")
        }
        Unavailable::Unauthorized(_) => (
            "auth",
            "the provider has to accept these credentials, for oauth2 also its scope and audience",
        ),
        Unavailable::CalloutToken(CalloutTokenError::InvalidClient) => (
            "auth.oauth2",
            "check `client_id` and the secret or key, and that the server allows `method`",
        ),
        Unavailable::CalloutToken(CalloutTokenError::Tls { fault, .. }) => {
            tls_cure(*fault, "auth.oauth2.token_url", has_identity)
        }
        Unavailable::CalloutToken(_) => ("auth.oauth2", "check it and the token endpoint"),
        Unavailable::Busy | Unavailable::Replaced | Unavailable::Aborted => ("url", "try again"),
    }
}

fn tls_cure(
    fault: TlsFault,
    url: &'static str,
    has_identity: bool,
) -> (&'static str, &'static str) {
    match fault {
        TlsFault::UnknownCa => {
            ("tls.ca_file", "name the file with the CA that signed the server's certificate")
        }
        TlsFault::WrongName => (url, "use a name that the server's certificate has"),
        TlsFault::Expired => (url, "the server's certificate is not valid now; check both clocks"),
        TlsFault::ClientCertificate if has_identity => {
            ("tls.cert_file", "the server does not accept this certificate; ask whose it trusts")
        }
        TlsFault::ClientCertificate => {
            ("tls.cert_file", "the server wants a certificate: add it, and `key_file`")
        }
        TlsFault::NotTls => {
            (url, "what answers there does not speak TLS; write http://, or its TLS port")
        }
        TlsFault::Other => (url, "see the server's log for TLS versions and ciphers"),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::lookup::testing::{Acts, Provider, Seen, answer, tenants};

    async fn test(
        show_codes: bool,
        script: impl Fn(&Seen, usize) -> Acts + Send + Sync + 'static,
    ) -> (u8, String) {
        let provider = Provider::with_tokens(script).await;
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("secret"), "CANARY-secret\n").unwrap();
        let yaml = format!(
            "listen: {{ check: 127.0.0.1:0, admin: 127.0.0.1:0 }}
issuers:
  - {{ issuer: https://i, jwks_url: https://i/jwks, audience: https://a, algorithms: [ES256],
      tenant_claim: /tenants, client_claim: /azp, typ: [at+jwt] }}
tenants:
  lookup:
    url: {url}/{{client_id}}/authorizedTenants
    select: $.tenants[*].code
    auth:
      oauth2: {{ token_url: {url}/oauth/token, client_id: gate, client_secret_file: secret }}
apis:
  - {{ name: a, routes: [{{ path: '/{{tenant}}/**', methods: [GET] }}] }}
",
            url = provider.url
        );
        let file = dir.path().join("tenantgate.yaml");
        std::fs::write(&file, yaml).unwrap();
        let config = Config::load(&file).unwrap();
        let lines = Mutex::new(String::new());
        let show = |name: &str, text: &str| {
            *lines.lock().unwrap() += &format!("{name}: {text}\n");
        };
        let client = ClientId::parse("acme").unwrap();
        let test = Test { file: &file, config: &config, client: &client, show_codes, show: &show };
        let code = test.run().await.unwrap();
        let shown = lines.into_inner().unwrap();
        assert!(!shown.contains("CANARY") && !shown.contains("token-"), "{shown}");
        (code, shown)
    }

    #[tokio::test]
    async fn shows_each_step_and_references_instead_of_codes() {
        let (code, shown) = test(false, |_, nth| match nth {
            0 => answer(401, &[], ""),
            _ => tenants(&["T-1", "a/b", "T-2"]),
        })
        .await;
        assert_eq!(code, 0, "{shown}");
        for part in [
            "token: fetched from the token endpoint, lives ",
            "token: refused, so fetched a new one",
            "/acme/authorizedTenants\n",
            "answer: status 200 after ",
            "body: { tenants: [3 × { code: text }] }\n",
            "select: $.tenants[*].code found 3 of 3 items\n",
            "dropped: 1 no tenant code, at positions [1]",
            "; tenants: 2\n",
        ] {
            assert!(shown.contains(part), "{part} missing in\n{shown}");
        }
        assert!(!shown.contains("T-1") && !shown.contains("a/b"), "{shown}");
    }

    #[tokio::test]
    async fn shows_codes_only_when_told() {
        let (code, shown) = test(true, |_, _| tenants(&["T-1"])).await;
        assert_eq!(code, 0);
        assert!(shown.contains(" T-1\n"), "{shown}");
    }

    #[tokio::test]
    async fn denied_and_unavailable_have_their_codes() {
        let (code, shown) = test(false, |_, _| tenants(&[])).await;
        assert_eq!(code, DENIED);
        assert!(
            shown.contains("answer: status 200") && shown.contains("result: denied"),
            "{shown}"
        );
        let (code, shown) = test(false, |_, _| answer(404, &[], "")).await;
        assert_eq!(code, 1);
        assert!(shown.contains("cure: tenants.lookup.url: check the path; "), "{shown}");
        assert!(shown.contains("tenantgate.yaml:"), "{shown}");
    }

    #[tokio::test]
    async fn a_wrong_shape_is_shown_with_how_far_the_query_got() {
        let body = r#"{"data": {"tenants": [{"code": "CANARY"}]}}"#;
        let (code, shown) = test(false, move |_, _| answer(200, &[], body)).await;
        assert_eq!(code, 1);
        for part in [
            "body: { data: { tenants: [1 × { code: text }] } }\n",
            "the array that `select` walks is missing: no `$.tenants`, as the answer is an \
             object\n",
            "cure: tenants.lookup.select: compare it with the body above; ",
        ] {
            assert!(shown.contains(part), "{part} missing in\n{shown}");
        }
    }
}
