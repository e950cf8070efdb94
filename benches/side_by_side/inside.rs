//! (c) Inside Envoy: the module beside what Envoy has itself and beside external authorization,
//! before a real upstream.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::checks::{Tenantgate, micros, start_empty};
use super::envoy::{
    BODY, Contender, FILTERS, Site, UNDER_WAY, envoy_program, ext_authz, jwt_authn, start,
};
use super::load::{Expect, Load, Requests};
use super::report::{Table, median, median_ratio, target};
use crate::common::{Installation, PATH, TENANTS, codes};

/// Where a process happens to lie in memory makes a difference of its own, so all are started
/// again.
const STARTS: usize = 6;
/// The row that the module is compared with beside the first.
const JWT: usize = 4;
/// With the same processes.
const ROUNDS: usize = 4;
const CLOSED: Duration = Duration::from_millis(600);
/// The samples of Envoy's own means, for which tokens name their tenants in plain text.
const OWN_MEANS: &str = "envoy/without-tenantgate.yaml";
const LUA: &str = r#"
function envoy_on_request(handle)
  local metadata = handle:streamInfo():dynamicMetadata()
  local claims = metadata:get("envoy.filters.http.jwt_authn")["payload"]
  local pattern = "^/oda/apis/get/reports/assets/tenant/([%w._~-]+)/devicedistribution$"
  local tenant = string.match(handle:headers():get(":path"), pattern)
  for _, listed in ipairs(claims["tenants"]) do
    if listed == tenant then return end
  end
  handle:respond({[":status"] = "403"}, "")
end
"#;

pub fn run() {
    let program = envoy_program();
    let tenantgate = Tenantgate::start("");
    let (empty, empty_address) = start_empty();
    let installation = &tenantgate.installation;
    let plain: Vec<String> = codes(TENANTS).map(|code| code.expose().to_owned()).collect();
    let token = installation.token_with(1, TENANTS, json!({ "tenants": plain }));
    let bearer = format!("Bearer {token}");
    let requests = Requests::get(PATH, &[("authorization", &bearer)]);
    let jwks = installation.inputs.signing_keys().expect("an issuer").jwks_json();
    let dir = tempfile::tempdir().expect("a temporary folder");
    let (_upstream, upstream) =
        start(&program, &dir, Site { filters: Vec::new(), check: None, upstream: None });

    let mut with_payload = jwt_authn(&jwks, Some(1000));
    with_payload["typed_config"]["providers"]["own"]["payload_in_metadata"] = json!("payload");
    let rbac = [vec![with_payload.clone()], own_means()].concat();
    let services = [(&empty, empty_address), (&tenantgate.server, tenantgate.check)];
    let contenders = [
        ("no filter", vec![], None),
        ("a filter that does nothing", vec![nothing()], None),
        ("a module that does nothing", vec![dynamic_module(&empty_module(&dir), "")], None),
        ("tenantgate, module", vec![module(installation)], None),
        ("jwt_authn, token cache", vec![jwt_authn(&jwks, Some(1000))], None),
        ("jwt_authn, header_to_metadata, RBAC", rbac, None),
        ("jwt_authn, Lua", vec![with_payload, lua()], None),
        ("ext_authz, empty handler", vec![ext_authz()], Some(services[0])),
        ("ext_authz, tenantgate", vec![ext_authz()], Some(services[1])),
    ];
    let names = contenders.each_ref().map(|(name, ..)| *name);
    let mut figures = vec![<[Vec<f64>; 2]>::default(); contenders.len()];
    for _ in 0..STARTS {
        let started = contenders.each_ref().map(|(name, filters, service)| {
            let check = service.map(|(_, address)| address);
            let site = Site { filters: filters.clone(), check, upstream: Some(upstream) };
            let (envoy, address) = start(&program, &dir, site);
            let load = Load { address, requests: &requests, expect: Expect::Body(BODY.into()) };
            let asked = service.map(|(server, _)| server);
            let contender = Contender { name, envoy, load, asked };
            await_first(&contender);
            contender
        });
        for round in 0..ROUNDS {
            measure(&started, round, &mut figures);
        }
    }

    let columns =
        ["requests/s", "of no filter", "of jwt_authn", "CPU us/request", "CPU of no filter"];
    let mut table = Table::new("inside", "Inside Envoy, before a real upstream", &columns);
    for (name, [per_second, cpu]) in names.iter().zip(&figures) {
        let row = [
            median(per_second.clone()),
            median_ratio(per_second, &figures[0][0]),
            median_ratio(per_second, &figures[JWT][0]),
            median(cpu.clone()),
            median_ratio(cpu, &figures[0][1]),
        ];
        table.row(*name, &row.map(Some));
    }
    table.note(format!(
        "Medians of {STARTS} starts with {ROUNDS} interleaved rounds each, ratios those within a \
         round, {UNDER_WAY} requests under way. One worker; Envoy, the service it asks and the \
         upstream (another Envoy, over HTTP/1.1) share one core. CPU is that of Envoy and the \
         service, without the upstream. The module is fed by the sidecar; jwt_authn has its \
         token cache in all rows."
    ));
    table.publish();
}

fn measure(contenders: &[Contender<'_>], round: usize, figures: &mut [[Vec<f64>; 2]]) {
    for turn in 0..contenders.len() {
        let at = (turn + round) % contenders.len();
        let contender = &contenders[at];
        let before = contender.cpu();
        let done = contender.load.closed_loop(UNDER_WAY, usize::MAX, CLOSED);
        let done = done.expect("a closed-loop round");
        figures[at][0].push(done.per_second());
        figures[at][1].push(micros(contender.cpu() - before) / done.completed as f64);
    }
}

/// The module answers 503 until it has been fed.
fn await_first(contender: &Contender<'_>) {
    for _ in 0..100 {
        if contender.load.answer().is_ok() {
            return;
        }
        sleep(Duration::from_millis(50));
    }
    panic!("{}: no request passes", contender.name);
}

fn module(installation: &Installation) -> Value {
    let library = target().join("release/libtenantgate_module.so");
    assert!(library.exists(), "{} is not there: run `make module`", library.display());
    let text = |path: PathBuf| path.to_str().expect("a plain path").to_owned();
    let config = json!({
        "config": text(installation.file("tenantgate.yaml")),
        "feed": format!("unix:{}", text(installation.file("feed.sock"))),
    });
    dynamic_module(&library, &config.to_string())
}

/// Built here, because only this needs it.
fn empty_module(dir: &TempDir) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/side_by_side/empty_module.rs");
    let library = dir.path().join("libempty_module.so");
    let mut rustc = Command::new("rustc");
    rustc.args(["--edition", "2024", "--crate-type", "cdylib", "-O", "-o"]).arg(&library);
    assert!(rustc.arg(source).status().expect("rustc").success(), "the empty module is broken");
    library
}

fn dynamic_module(library: &Path, config: &str) -> Value {
    json!({
        "name": "tenantgate",
        "typed_config": {
            "@type": format!("{FILTERS}.http.dynamic_modules.v3.DynamicModuleFilter"),
            "dynamic_module_config": {
                "module": { "local": { "filename": library.to_str().expect("a plain path") } },
                "do_not_close": true,
            },
            "filter_name": "tenantgate",
            "filter_config": {
                "@type": "type.googleapis.com/google.protobuf.StringValue",
                "value": config,
            },
        },
    })
}

/// Nothing but the place of a filter in the chain.
fn nothing() -> Value {
    json!({
        "name": "envoy.filters.http.set_metadata",
        "typed_config": { "@type": format!("{FILTERS}.http.set_metadata.v3.Config") },
    })
}

fn lua() -> Value {
    json!({
        "name": "envoy.filters.http.lua",
        "typed_config": {
            "@type": format!("{FILTERS}.http.lua.v3.Lua"),
            "default_source_code": { "inline_string": LUA },
        },
    })
}

/// The filters behind `jwt_authn` in the sample.
fn own_means() -> Vec<Value> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(OWN_MEANS);
    let text = fs::read_to_string(file).expect("the sample");
    let sample: Value = serde_saphyr::from_str(&text).expect("the sample is YAML");
    let manager = "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config";
    let filters = sample.pointer(&format!("{manager}/http_filters"));
    let filters = filters.and_then(Value::as_array).expect("the sample's filters");
    let wanted = ["envoy.filters.http.header_to_metadata", "envoy.filters.http.rbac"];
    let wanted = |filter: &&Value| wanted.iter().any(|name| filter["name"] == **name);
    filters.iter().filter(wanted).cloned().collect()
}
