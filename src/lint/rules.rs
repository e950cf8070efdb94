//! What holds whatever the gateway: the same judgement for settings of different names.

use super::Report;
use super::node::Node;

/// What a client calls without a token. Nothing else may go unchecked.
const TOKEN_PATHS: [&str; 5] = [
    "/oauth2/token",
    "/oauth2/jwks",
    "/oauth2/revoke",
    "/oauth2/introspect",
    "/.well-known/oauth-authorization-server",
];

pub fn is_token_path(path: &str) -> bool {
    TOKEN_PATHS.contains(&path)
}

/// Names that clients must not set.
pub const OUR_PREFIX: &str = "x-tenantgate-";
const PATH_HEADERS: [&str; 8] = [
    "x-original-url",
    "x-original-uri",
    "x-rewrite-url",
    "x-forwarded-uri",
    "x-forwarded-prefix",
    "x-http-method-override",
    "x-http-method",
    "x-method-override",
];

/// The default of `max_requests` and its kin.
const FEW_REQUESTS: f64 = 1024.0;

pub const UNCHECKED: &str = "such requests reach the API unchecked";

pub fn fail_open(report: &mut Report, at: &Node, cure: &str) {
    if at.is_true() {
        let why = "while tenantgate cannot be asked every request passes unchecked";
        report.error(at, "fails open", why, cure);
    }
}

/// `if_missing`: what the gateway takes where nothing stands.
pub fn timeout(report: &mut Report, at: &Node, if_missing: &str, cure: &str) {
    let seconds = if at.exists() { at.seconds() } else { Node::seconds_of(if_missing) };
    let what = match at.text() {
        Some(text) => format!("a time-out of {text:.20}"),
        None => format!("no time-out, so {if_missing}"),
    };
    match seconds {
        None => report.error(at, "a time-out that is not a duration", "it cannot be judged", cure),
        Some(seconds) if seconds <= 0.0 || seconds > 1.0 => {
            let why = "a check takes under a millisecond, and requests queue while it hangs";
            report.error(at, what, why, cure);
        }
        // Envoy's default, 200 ms, is reported as well: a throttled container pauses longer.
        Some(seconds) if seconds < 0.2 || !at.exists() => {
            let why = "one pause of a throttled container fails good requests";
            report.warning(at, what, why, cure);
        }
        Some(_) => {}
    }
}

pub fn status_on_error(report: &mut Report, at: &Node, status: Option<f64>, cure: &str) {
    let what = match status {
        None => "a failed check answers 403".to_owned(),
        Some(503.0) => return,
        Some(status) => format!("a failed check answers {status}"),
    };
    let why = "clients take it for lost access, or do not try again";
    match status {
        Some(status) if (500.0..600.0).contains(&status) => report.warning(at, what, why, cure),
        _ => report.error(at, what, why, cure),
    }
}

pub fn body(report: &mut Report, at: &Node) {
    if at.exists() {
        let why = "a check needs none: it costs memory and time, and large requests fail";
        report.warning(at, "the body is sent to the check", why, "take it out");
    }
}

pub fn route_may_change(report: &mut Report, at: &Node) {
    if at.is_true() {
        let why = "after the check a request may move to a route with other settings";
        report.error(at, "the route is chosen again", why, "set it to false or take it out");
    }
}

/// The names of the headers that are sent to the check.
pub fn sent_headers(report: &mut Report, at: &Node, names: &[String], cure: &str) {
    if names.is_empty() {
        let why = "cookies and whatever else clients send go to the check";
        report.warning(at, "no list of headers", why, cure);
    } else if !names.iter().any(|name| name == "authorization") {
        let why = "without it no token arrives and every request is answered 401";
        report.error(at, "the list lacks `authorization`", why, "add authorization");
    }
    for name in names.iter().filter(|name| matches!(name.as_str(), "cookie" | "*" | "")) {
        let why = "a check needs none of it";
        report.warning(at, format!("`{name}` is sent to the check"), why, "take it out");
    }
}

/// What is taken off a request before anything reads it.
#[derive(Default)]
pub struct Removed {
    pub exact: Vec<String>,
    pub prefixes: Vec<String>,
}

impl Removed {
    fn has(&self, name: &str) -> bool {
        self.exact.iter().any(|exact| exact.eq_ignore_ascii_case(name))
            || self.prefixes.iter().any(|prefix| name.starts_with(&prefix.to_ascii_lowercase()))
    }

    pub fn judge(&self, report: &mut Report, at: &Node, cure: &str) {
        // A prefix takes the whole family only if it is no longer than the family's own.
        if !self.prefixes.iter().any(|p| OUR_PREFIX.starts_with(&p.to_ascii_lowercase())) {
            let why = "the API takes a client's own x-tenantgate-… header for tenantgate's";
            let what = "headers that begin with x-tenantgate- are not taken off early";
            report.error(at, what, why, cure);
        }
        let missing: Vec<&str> = PATH_HEADERS.into_iter().filter(|name| !self.has(name)).collect();
        if !missing.is_empty() {
            let why = "frameworks that obey them serve a path or method that was not checked";
            let what = format!("not taken off early: {}", missing.join(" "));
            report.warning(
                at,
                what,
                why,
                "remove them early too, or be sure that the API ignores them",
            );
        }
    }
}

const LOGGED: &str = "the path holds the tenant code, which is a secret";

pub fn default_format(report: &mut Report, at: &Node, cure: &str) {
    report.error(at, "the default log format has the path", LOGGED, cure);
}

pub fn logs_all(report: &mut Report, at: &Node) {
    let cure = "write a log with a format of its own instead";
    report.error(at, "this log always has the path", LOGGED, cure);
}

/// Formats of access logs, however deep their texts are.
pub fn log_format(report: &mut Report, format: &Node) {
    for text in format.all_texts() {
        let upper = text.text().unwrap_or_default().to_ascii_uppercase();
        let has = |needles: &[&str]| needles.iter().any(|needle| upper.contains(needle));
        if has(&["%PATH(", "%PATH%"])
            || has(&[":PATH", "ORIGINAL-PATH", "(REFERER", "?REFERER", "ORIGINAL-URL"])
            || has(&["REQUEST.PATH", "REQUEST.URL_PATH", "REQUEST.REFERER", "REQUEST.QUERY"])
        {
            let cure = "leave it out; %ROUTE_NAME% and the metadata `tenant_ref` say which it was";
            report.error(&text, "the path is logged", LOGGED, cure);
        }
        if has(&["(AUTHORIZATION", "?AUTHORIZATION", "(COOKIE", "?COOKIE"])
            || has(&["HEADERS['AUTHORIZATION", "HEADERS[\"AUTHORIZATION"])
        {
            let why = "everybody who reads the log can use it";
            report.error(&text, "a credential is logged", why, "leave it out");
        }
    }
}

pub fn spans(report: &mut Report, at: &Node, cure: &str) {
    report.error(at, "spans carry the path", LOGGED, cure);
}

/// Tags of spans that are read from the request.
pub fn span_tags(report: &mut Report, tags: &Node) {
    for text in tags.all_texts() {
        let lower = text.text().unwrap_or_default().to_ascii_lowercase();
        let named = |name: &&str| lower == *name || lower.contains(&format!("req({name}"));
        if [":path", "x-envoy-original-path", "referer", "authorization", "cookie"]
            .iter()
            .any(named)
        {
            let why = "it holds the tenant code or a credential";
            report.error(&text, "a tag of spans is a secret", why, "take the tag out");
        }
    }
}

/// `limits`: the settings that bound the requests under way.
pub fn capacity(report: &mut Report, limits: &[Node], cure: &str) {
    for at in limits {
        if at.number().unwrap_or(FEW_REQUESTS) <= FEW_REQUESTS {
            let what = format!("at most {} at once", at.number().unwrap_or(FEW_REQUESTS));
            let why = "every request asks this one service, and a burst becomes 503s";
            report.warning(at, what, why, cure);
        }
    }
}

pub fn outlier_detection(report: &mut Report, at: &Node) {
    if at.exists() {
        let why = "it ejects the one service that every request asks: the API closes";
        report.warning(at, "outlier detection of the check", why, "take it out");
    }
}

pub fn websocket(report: &mut Report, at: &Node) {
    let why = "the check is made once: a withdrawn tenant stays connected";
    let cure = "take it out where no route needs it, and bound the time of such connections";
    report.warning(at, "upgrades (websocket, CONNECT) are allowed", why, cure);
}

/// Code that Envoy fetches from elsewhere and runs in itself.
pub fn remote_modules(report: &mut Report, document: &Node) {
    document.walk(&mut |key, node| {
        let remote = match key {
            "dynamic_module_config" => node.at("module.remote"),
            "dynamicModules" => {
                for module in node.items() {
                    remote_module(report, &module.at("source.remote"));
                }
                return;
            }
            _ => return,
        };
        remote_module(report, &remote);
    });
}

fn remote_module(report: &mut Report, at: &Node) {
    if at.exists() {
        let why = "the server it comes from runs code that sees every token";
        report.error(at, "a module is fetched from elsewhere", why, "bring it in with the image");
    }
}
