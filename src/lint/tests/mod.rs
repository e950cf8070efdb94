//! Our own samples have no errors, and every way to spoil one of them is found.

mod envoy_mutations;
mod kubernetes_mutations;

use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::*;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn file(path: &str) -> File {
    let text = std::fs::read_to_string(root().join(path)).unwrap();
    File { name: path.to_owned(), text }
}

fn folder(path: &str) -> Vec<File> {
    let entries = std::fs::read_dir(root().join(path)).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.retain(|name| Path::new(name).extension().is_some_and(|end| end == "yaml"));
    names.sort();
    names.iter().map(|name| file(&format!("{path}/{name}"))).collect()
}

/// The file with one place changed.
fn spoilt(file: &File, from: &str, to: &str) -> File {
    assert_eq!(file.text.matches(from).count(), 1, "{from:?} is not there once in {}", file.name);
    File { name: file.name.clone(), text: file.text.replacen(from, to, 1) }
}

fn errors(report: &Report) -> Vec<String> {
    let errors = report.findings.iter().filter(|finding| finding.severity == Severity::Error);
    errors.map(ToString::to_string).collect()
}

/// The finding that the spoilt file has and the good one has not.
#[track_caller]
fn assert_found(before: &Report, after: &Report, severity: Severity, place: &str) {
    let new: Vec<&Finding> =
        after.findings.iter().filter(|finding| !before.findings.contains(finding)).collect();
    let found = new.iter().any(|one| one.severity == severity && one.place.contains(place));
    assert!(found, "no {} at {place}: {new:#?}", severity.name());
}

#[test]
fn our_samples_of_envoy_have_no_errors() {
    for sample in folder("envoy") {
        let report = envoy(&sample).unwrap();
        // Without tenantgate, and before its management API instead of an API.
        let asks_nobody = ["/without-tenantgate.yaml", "/management.yaml"];
        if asks_nobody.iter().any(|name| sample.name.ends_with(name)) {
            assert_eq!(report.findings.len(), 1, "{report:#?}");
            assert_eq!(report.findings[0].what, "no filter asks tenantgate");
        } else {
            assert_eq!(errors(&report), [""; 0], "{}", sample.name);
        }
    }
}

#[test]
fn our_samples_of_kubernetes_have_no_errors() {
    for path in ["deploy/envoy-gateway", "deploy/istio", "deploy/kubernetes"] {
        let report = kubernetes(&folder(path)).unwrap();
        assert_eq!(errors(&report), [""; 0], "{path}");
        let place = "configmap-tenantgate.yaml:ConfigMap/tenantgate-config";
        let skipped = report.skipped.iter().any(|skipped| skipped.place.ends_with(place));
        assert_eq!(skipped, path == "deploy/kubernetes", "{:#?}", report.skipped);
    }
}

#[test]
fn each_resource_of_ours_can_stand_alone() {
    let resources =
        |path| folder(path).into_iter().filter(|one| !one.name.ends_with("/envoy.yaml"));
    for path in ["deploy/envoy-gateway", "deploy/istio", "deploy/in-process"] {
        for one in resources(path) {
            let name = one.name.clone();
            assert_eq!(errors(&kubernetes(&[one]).unwrap()), [""; 0], "{name}");
        }
    }
}

#[test]
fn what_is_neither_is_refused_with_what_was_expected() {
    for (text, expected) in [
        ("hello: world", "expected one config dump"),
        ("[1, 2]", "expected one config dump"),
        ("a: 1\n---\nb: 2\n", "2 documents; expected one config dump"),
        ("", "0 documents; expected one config dump"),
        ("{", "x.yaml"),
    ] {
        let file = File { name: "x.yaml".to_owned(), text: text.to_owned() };
        let error = envoy(&file).unwrap_err();
        assert!(error.contains(expected), "{text:?}: {error}");
        let error = kubernetes(&[file]).unwrap_err().join("\n");
        assert!(error.starts_with("x.yaml"), "{text:?}: {error}");
    }
    let bad = File { name: "x.yaml".to_owned(), text: "a: 1".to_owned() };
    assert!(kubernetes(&[bad]).unwrap_err()[0].contains("`apiVersion` and `kind`"));
}

#[test]
fn a_finding_is_one_line_whatever_the_names_are() {
    let sample = spoilt(
        &file("envoy/envoy.yaml"),
        "- name: public\n      address",
        "- name: \"a\\nb: c\"\n      address",
    );
    let sample = spoilt(&sample, "failure_mode_allow: false", "failure_mode_allow: true");
    let report = envoy(&sample).unwrap();
    let line = errors(&report).concat();
    assert!(!line.contains('\n'), "{line}");
    let (head, rest) = line.split_once(": ").unwrap();
    assert_eq!(head.split(' ').count(), 2, "{head}");
    assert!(rest.contains(", ") && rest.contains("; "), "{rest}");
}

fn any_json() -> impl Strategy<Value = Value> {
    let keys = prop_oneof![
        Just("configs"),
        Just("static_resources"),
        Just("listeners"),
        Just("filter_chains"),
        Just("filters"),
        Just("typed_config"),
        Just("http_filters"),
        Just("@type"),
        Just("name"),
        Just("route_config"),
        Just("virtual_hosts"),
        Just("routes"),
        Just("match"),
        Just("route"),
        Just("typed_per_filter_config"),
        Just("grpc_service"),
        Just("timeout"),
        Just("kind"),
        Just("apiVersion"),
        Just("metadata"),
        Just("spec"),
        Just("extAuth"),
        Just("rules"),
        Just("targetRefs"),
        Just("items"),
        Just("meshConfig"),
        Just("data"),
        Just("access_log"),
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
        prop_oneof![
            Just("a.v3.HttpConnectionManager"),
            Just("a.v3.ExtAuthz"),
            Just("SecurityPolicy"),
            Just("gateway.envoyproxy.io/v1"),
            Just("HTTPRoute"),
            Just("ConfigMap"),
            Just("v1"),
            Just("ListenersConfigDump"),
            Just("µs"),
            Just("1.5.5s"),
            Just("9e999s"),
        ]
        .prop_map(Value::from),
    ];
    leaf.prop_recursive(8, 96, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::vec((keys.clone().prop_map(str::to_owned), inner), 0..6)
                .prop_map(|entries| Value::Object(entries.into_iter().collect())),
        ]
    })
}

/// Every path to a value that is not an object or list.
fn leaves(value: &Value, path: &str, found: &mut Vec<String>) {
    match value {
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                leaves(item, &format!("{path}/{index}"), found);
            }
        }
        Value::Object(object) => {
            for (key, item) in object {
                let key = key.replace('~', "~0").replace('/', "~1");
                leaves(item, &format!("{path}/{key}"), found);
            }
        }
        _ => found.push(path.to_owned()),
    }
}

/// The cut ways to a value: it, or something above it, becomes another one.
fn shortened(path: &str, levels: usize) -> &str {
    let mut path = path;
    for _ in 0..levels {
        path = path.rsplit_once('/').map_or("", |(above, _)| above);
    }
    path
}

fn survives(file: File) {
    let _whatever = envoy(&file).map(|report| to_json(&report));
    let _whatever = kubernetes(&[file]).map(|report| to_json(&report));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn any_json_is_survived(value in any_json()) {
        survives(File { name: "a.json".to_owned(), text: value.to_string() });
    }

    #[test]
    fn any_text_is_survived(text in "(?s).{0,200}") {
        survives(File { name: "a.yaml".to_owned(), text });
    }

    /// A good file with one value of it replaced: deep enough for every line of the code.
    #[test]
    fn anything_within_a_good_file_is_survived(
        sample in 0usize..20,
        at in any::<prop::sample::Index>(),
        up in 0usize..4,
        value in any_json(),
    ) {
        let samples: Vec<File> = ["envoy", "deploy/envoy-gateway", "deploy/istio"]
            .iter().flat_map(|path| folder(path)).collect();
        let sample = &samples[sample % samples.len()];
        let mut document = documents::read(sample).unwrap().swap_remove(0);
        let mut paths = Vec::new();
        leaves(&document, "", &mut paths);
        let path = shortened(&paths[at.index(paths.len())], up).to_owned();
        if let Some(place) = document.pointer_mut(&path) {
            *place = value;
        }
        survives(File { name: "a.json".to_owned(), text: document.to_string() });
    }
}

#[test]
fn bombs_are_refused_or_bounded() {
    let deep = format!("{{\"configs\": {}1{}}}", "[".repeat(100_000), "]".repeat(100_000));
    let mut laughs = "a: &a [x]\n".to_owned();
    for (name, before) in ('b'..='z').zip('a'..) {
        let line =
            format!("{name}: &{name} [*{before}, *{before}, *{before}, *{before}, *{before}]\n");
        laughs.push_str(&line);
    }
    for text in [deep, laughs] {
        let file = File { name: "bomb".to_owned(), text };
        assert!(envoy(&file).is_err());
        assert!(kubernetes(&[file]).is_err());
    }
}
