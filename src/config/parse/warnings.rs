//! What is allowed, but rarely meant.

use std::time::Duration;

use strsim::osa_distance;

use super::Given;
use crate::authz::path::CheckedPath;
use crate::authz::route::{Demands, Found, RouteRule, Router};
use crate::config::reader::Reader;
use crate::config::{Api, Issuer, Listen, ListenAddress, ListenOn, Route, TrustedIssuer};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// The methods that clients and libraries know (IANA), of WebDAV and versioning too.
const METHODS: [&str; 41] = [
    "ACL",
    "BASELINE-CONTROL",
    "BIND",
    "CHECKIN",
    "CHECKOUT",
    "CONNECT",
    "COPY",
    "DELETE",
    "GET",
    "HEAD",
    "LABEL",
    "LINK",
    "LOCK",
    "MERGE",
    "MKACTIVITY",
    "MKCALENDAR",
    "MKCOL",
    "MKREDIRECTREF",
    "MKWORKSPACE",
    "MOVE",
    "OPTIONS",
    "ORDERPATCH",
    "PATCH",
    "POST",
    "PROPFIND",
    "PROPPATCH",
    "PURGE",
    "PUT",
    "QUERY",
    "REBIND",
    "REPORT",
    "SEARCH",
    "TRACE",
    "UNBIND",
    "UNCHECKOUT",
    "UNLINK",
    "UNLOCK",
    "UPDATE",
    "UPDATEREDIRECTREF",
    "VERSION-CONTROL",
    "PRI",
];

pub fn listen(reader: &mut Reader, listen: &Listen) {
    let others = [
        ("token", listen.token.as_ref()),
        ("admin", Some(&listen.admin)),
        ("management", listen.management.as_ref()),
    ];
    for (name, on) in others {
        if let Some(ListenOn { address: ListenAddress::Tcp(address), tls: None }) = on
            && address.ip().is_unspecified()
        {
            reader.warning(
                &format!("listen.{name}"),
                "is open on all addresses without TLS",
                "write the one address that is meant, or keep others away by other means",
            );
        }
    }
}

pub fn issuer(reader: &mut Reader, issuer: &Issuer) {
    lifetime(reader, "issuer.token_ttl", issuer.token_ttl);
    lifetime(reader, "issuer.max_token_ttl", issuer.max_token_ttl);
}

pub fn issuers(reader: &mut Reader, issuers: &[TrustedIssuer]) {
    for (index, issuer) in issuers.iter().enumerate() {
        lifetime(reader, &format!("issuers[{index}].max_lifetime"), issuer.max_lifetime);
    }
}

fn lifetime(reader: &mut Reader, field: &str, lifetime: Duration) {
    if lifetime > DAY {
        reader.warning(
            field,
            "is longer than a day, and so long a stolen token is good",
            "shorten it; clients mint a new token when one expires",
        );
    }
}

/// Who verifies our tokens without the registry does not learn which clients were revoked.
pub fn registry(reader: &mut Reader, given: Given) {
    if given.issuer && !given.clients {
        reader.warning(
            "clients",
            "is missing, so that tokens of revoked clients pass here until they expire",
            "name the registry of the processes that mint",
        );
    }
}

pub fn apis(reader: &mut Reader, apis: &[Api]) {
    for (index, api) in apis.iter().enumerate() {
        let at = format!("apis[{index}]");
        if api.shadow {
            reader.warning(
                &format!("{at}.shadow"),
                "lets EVERYTHING pass on this API",
                "remove it when the roll-out is done",
            );
        }
        for (index, route) in api.routes.iter().enumerate() {
            methods(reader, &format!("{at}.routes[{index}].methods"), &route.methods);
        }
        let routes: Vec<(String, &Route)> = api
            .routes
            .iter()
            .enumerate()
            .map(|(index, route)| (format!("{at}.routes[{index}]"), route))
            .collect();
        public_overlaps(reader, &routes);
        neighbours(reader, &routes);
    }
}

fn methods(reader: &mut Reader, at: &str, methods: &[String]) {
    for (index, method) in methods.iter().enumerate() {
        if METHODS.contains(&method.as_str()) {
            continue;
        }
        let cure = match method.as_str() {
            "*" | "ALL" | "ANY" => {
                "list those that are meant, such as `[GET, POST, PUT, PATCH, DELETE]`".to_owned()
            }
            _ => match METHODS.iter().find(|known| osa_distance(known, method) == 1) {
                Some(near) => format!("did you mean `{near}`?"),
                None => "write methods that clients send, such as `GET`".to_owned(),
            },
        };
        reader.warning(
            &format!("{at}[{index}]"),
            format!("`{method}` is a method that no client sends"),
            cure,
        );
    }
}

fn public_overlaps(reader: &mut Reader, routes: &[(String, &Route)]) {
    for (at, public) in routes.iter().filter(|(_, route)| route.public) {
        let overlap = |route: &Route| {
            let shared = public.methods.iter().any(|method| route.methods.contains(method));
            !route.public && shared && route.template.overlaps(&public.template)
        };
        if let Some((closed, _)) = routes.iter().find(|(_, route)| overlap(route)) {
            reader.warning(
                &format!("{at}.path"),
                format!("is public and matches paths of {closed} too, which is not"),
                "make sure that what only this one matches is meant for everybody, or narrow it",
            );
        }
    }
}

struct Sketch<'a> {
    at: &'a str,
    route: &'a Route,
}

impl Demands for Sketch<'_> {
    fn is_public(&self) -> bool {
        self.route.public
    }

    fn scopes(&self) -> &[String] {
        &self.route.scopes
    }
}

/// Routes that do not ask for the same although their paths differ so little that some upstreams
/// see no difference.
fn neighbours(reader: &mut Reader, routes: &[(String, &Route)]) {
    let rules = routes.iter().map(|(at, route)| RouteRule {
        template: route.template.clone(),
        methods: route.methods.clone(),
        head: route.head,
        allow_encoded_percent: route.allow_encoded_percent,
        data: Sketch { at, route },
    });
    let Ok(router) = Router::new(rules.collect()) else { return };
    for (index, (at, route)) in routes.iter().enumerate() {
        let this = Sketch { at, route };
        for (earlier_at, earlier) in &routes[..index] {
            let other = Sketch { at: earlier_at, route: earlier };
            let shared = earlier.methods.iter().any(|method| route.methods.contains(method));
            let differ = this.stricter_than(&other) || other.stricter_than(&this);
            if shared && differ && route.template.is_near(&earlier.template) {
                reader.warning(
                    &format!("{at}.path"),
                    format!(
                        "differs from {earlier_at} only in case or a trailing slash, and does not \
                         ask for the same"
                    ),
                    "ask for the same in both: some APIs see no difference",
                );
            }
        }
        let Some(path) = route.template.sample_with(".json") else { continue };
        let found = route.methods.iter().find_map(|method| find(&router, method, &path));
        if let Some(lax) = found.filter(|lax| this.stricter_than(lax)) {
            reader.warning(
                &format!("{at}.path"),
                format!(
                    "is passed by where `.json` follows it: {} has that, and does not ask for all \
                     that this one does",
                    lax.at
                ),
                "write a route for that too, if the API takes it for the same",
            );
        }
    }
}

fn find<'r, 's>(
    router: &'r Router<Sketch<'s>>,
    method: &str,
    path: &str,
) -> Option<&'r Sketch<'s>> {
    match router.find(method, CheckedPath::parse(path.as_bytes()).ok()?) {
        Found::Route(found) => Some(found.data),
        Found::NoRoute | Found::Refused(_) => None,
    }
}

#[cfg(test)]
mod tests;
