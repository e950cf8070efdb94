use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};

use crate::config::{ClaimForm, Config, Lookup};
use crate::domain::{ClientId, DIGEST_KEY_LEN, SystemClock, TenantCode, TenantDigester};
use crate::lookup::{Directory, Grants, Question, Step, TokenError, Unavailable};
use crate::telemetry::Metrics;

const DENIED: u8 = 3;

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
    #[arg(long, value_name = "FILE")]
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
    let test = Test { config: &config, client: &client, show_codes: args.show_codes, show: &show };
    runtime.block_on(test.run()).map(ExitCode::from)
}

struct Test<'a> {
    config: &'a Config,
    client: &'a ClientId,
    show_codes: bool,
    show: &'a (dyn Fn(&str, &str) + Send + Sync),
}

impl Test<'_> {
    async fn run(&self) -> anyhow::Result<u8> {
        let lookup = &self.config.tenants.lookup;
        if *lookup == Lookup::Static {
            bail!("tenants.lookup is `static`: there is nobody to ask; add `url` or `grpc` to it");
        }
        let directory = Directory::new(lookup, Arc::new(SystemClock), Arc::new(Metrics::new()))
            .map_err(|problem| anyhow::anyhow!("{problem}"))?;
        (self.show)("client", self.client.as_str());
        let started = tokio::time::Instant::now();
        let answer = directory.look_up(Question::of(self.client), &|step| self.step(&step)).await;
        let took = shown(started.elapsed());
        match answer {
            Ok(answer) => Ok(self.grants(&answer.grants, &took)),
            Err(reason) => {
                (self.show)("result", &format!("unavailable after {took}: {reason}"));
                (self.show)("cure", cure(&reason));
                Ok(1)
            }
        }
    }

    fn step(&self, step: &Step<'_>) {
        let (name, text) = match step {
            Step::Token { fetched, remaining } => {
                let source = if *fetched { "fetched from the token endpoint" } else { "kept" };
                ("token", format!("{source}, lives {}", shown(*remaining)))
            }
            Step::TokenReplaced { remaining } => {
                ("token", format!("refused, so fetched a new one, lives {}", shown(*remaining)))
            }
            Step::Asking { url } => ("asking", url.clone()),
            Step::Answered { status: Ok(status), took } => {
                ("answer", format!("status {status} after {}", shown(*took)))
            }
            Step::Answered { status: Err(reason), took } => {
                ("answer", format!("{reason} (after {})", shown(*took)))
            }
            Step::Waiting { delay } => {
                ("waiting", format!("{} before the next try", shown(*delay)))
            }
        };
        (self.show)(name, &text);
    }

    fn grants(&self, grants: &Grants, took: &str) -> u8 {
        let Grants::Listed { listed, .. } = grants else {
            unreachable!("nothing was asked for that could be unchanged");
        };
        if !listed.dropped.is_empty() {
            let text =
                format!("no tenant codes at positions {:?}; they are left out", listed.dropped);
            (self.show)("dropped", &text);
        }
        for name in &listed.dropped_claims {
            (self.show)("dropped", &format!("claim {name}: larger than 1 KiB or reserved"));
        }
        for (name, json) in &listed.claims {
            (self.show)("claim", &format!("{name}: {json}"));
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

fn shown(time: Duration) -> String {
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

fn cure(reason: &Unavailable) -> &'static str {
    match reason {
        Unavailable::Timeout => "see how long the provider takes, or raise tenants.lookup.timeout",
        Unavailable::Connect(_) => {
            "check host, port and scheme of tenants.lookup.url (or grpc.url), and tls and proxy"
        }
        Unavailable::Broken(_) => "check that the URL leads to the provider's API; see its log",
        Unavailable::Status { status: 429, .. }
        | Unavailable::Rpc(tonic::Code::ResourceExhausted) => {
            "the provider limits requests: ask for a higher limit, or lower tenants.lookup.concurrency"
        }
        Unavailable::Status { .. } | Unavailable::Rpc(_) => {
            "see the provider's log; a status that means \"no grants\" belongs in tenants.lookup.no_grants_status"
        }
        Unavailable::Redirect(_) => "put the final URL into tenants.lookup.url",
        Unavailable::TooLarge => "raise tenants.lookup.max_body_bytes",
        Unavailable::NotJson => "check that the URL leads to an API that answers in JSON",
        Unavailable::WrongShape(_) => {
            "compare tenants.lookup.select with a real answer; it has to select strings in an array"
        }
        Unavailable::Unauthorized(_) => {
            "check tenants.lookup.auth: the provider has to accept these credentials, for oauth2 also its scope and audience"
        }
        Unavailable::CalloutToken(TokenError::InvalidClient) => {
            "check client_id and secret (or key) of tenants.lookup.auth.oauth2, and that the server allows its method"
        }
        Unavailable::CalloutToken(_) => "check tenants.lookup.auth.oauth2 and the token endpoint",
        Unavailable::Busy | Unavailable::Replaced | Unavailable::Aborted => "try again",
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
        let test = Test { config: &config, client: &client, show_codes, show: &show };
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
            "dropped: no tenant codes at positions [1]",
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
        let (code, shown) = test(false, |_, _| answer(404, &[], "")).await;
        assert_eq!(code, DENIED);
        assert!(
            shown.contains("answer: status 404") && shown.contains("result: denied"),
            "{shown}"
        );
        let (code, shown) = test(false, |_, _| answer(200, &[], r#"{"tenants": "CANARY"}"#)).await;
        assert_eq!(code, 1);
        assert!(shown.contains("result: unavailable") && shown.contains("select"), "{shown}");
    }
}
