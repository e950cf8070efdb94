use super::Given;
use crate::authz::route::{Conflict, RouteRule, Router, Template, TemplateError};
use crate::config::reader::Reader;
use crate::config::{Api, Route, raw};
use crate::domain::is_scope_token;
use crate::yaml::Field;
use crate::yaml::schema::nearest;

const MAX_NAME: usize = 128;

pub fn parse(
    reader: &mut Reader,
    apis: Field<Vec<Field<raw::Api>>>,
    given: Given,
) -> Option<Vec<Api>> {
    let mut names: Vec<String> = Vec::new();
    reader.each("apis", apis, |reader, at, api| {
        if let Field::Value(name) = &api.name {
            if names.contains(name) {
                reader.problem(
                    &format!("{at}.name"),
                    "is the name of an API above",
                    "give each API its own name",
                );
            }
            names.push(name.clone());
        }
        one(reader, at, api, given)
    })
}

fn one(reader: &mut Reader, at: &str, api: raw::Api, given: Given) -> Option<Api> {
    let name = reader.text(&format!("{at}.name"), api.name).filter(|name| {
        let fits = name.len() <= MAX_NAME;
        if !fits {
            reader.problem(
                &format!("{at}.name"),
                format!("has more than {MAX_NAME} characters"),
                "shorten it",
            );
        }
        fits
    });
    if api.api_key.is_given() && !given.clients {
        reader.problem(
            &format!("{at}.api_key"),
            "accepts registered credentials, but there is no `clients` section",
            "add it, or remove `api_key`",
        );
    }
    let api_key_header = api.api_key.optional(|key| api_key_header(reader, at, key));
    // Those that are sound are held against each other, whatever is wrong with the rest.
    let mut sound = Vec::new();
    let routes = reader.each(&format!("{at}.routes"), api.routes, |reader, at, route| {
        let route = self::route(reader, at, route)?;
        sound.push((at.to_owned(), rule(&route)));
        Some(route)
    });
    conflicts(reader, sound);
    Some(Api {
        name: name?,
        routes: routes?,
        forward_authorization: api.forward_authorization.value()?,
        shadow: api.shadow.value()?,
        api_key_header: api_key_header?,
    })
}

/// In lower case.
fn api_key_header(reader: &mut Reader, at: &str, key: raw::ApiKey) -> Option<String> {
    let field = format!("{at}.api_key.header");
    let Ok(name) = http::HeaderName::from_bytes(key.header.value()?.as_bytes()) else {
        reader.problem(&field, "is not a header's name", "write it like `x-api-key`");
        return None;
    };
    let name = name.as_str();
    let taken = matches!(name, "authorization" | "cookie" | "host")
        || ["x-forwarded-", "x-envoy-", "x-tenantgate-"].iter().any(|own| name.starts_with(own));
    if taken {
        reader.problem(
            &field,
            "is a header with a meaning of its own",
            "choose another, such as `x-api-key`",
        );
        return None;
    }
    Some(name.to_owned())
}

fn route(reader: &mut Reader, at: &str, route: raw::Route) -> Option<Route> {
    let path = format!("{at}.path");
    let text = route.path.value().map(|path| path.0);
    let template =
        text.as_deref().zip(route.ignore_case.value()).and_then(|(text, ignore_case)| {
            Template::parse(text, ignore_case)
                .map_err(|error| {
                    let mut message = error.to_string();
                    if let TemplateError::VariableName(name) = &error
                        && means_tenant(&format!("{{{name}}}"))
                    {
                        message.push_str("; did you mean `{tenant}`?");
                    }
                    reader.problems.push(crate::domain::Problem { field: path.clone(), message });
                })
                .ok()
        });
    let lacks_tenant = template.as_ref().is_some_and(|template| !template.has_tenant());
    if lacks_tenant && route.public == Field::Value(false) {
        let meant = text.as_deref().unwrap_or_default().split('/').find(|part| means_tenant(part));
        match meant {
            Some(meant) => reader.problem(
                &path,
                format!("has `{meant}`, but no `{{tenant}}`"),
                "did you mean `{tenant}`?",
            ),
            None => reader.problem(
                &path,
                "has no `{tenant}`",
                "write it where the tenant code is, or set `public: true` to let everybody \
                 pass",
            ),
        }
    }
    let methods = reader.each(&format!("{at}.methods"), route.methods, method);
    let scopes = reader.each(&format!("{at}.scopes"), route.scopes, scope);
    if route.public == Field::Value(true)
        && scopes.as_ref().is_some_and(|scopes| !scopes.is_empty())
    {
        reader.problem(
            &format!("{at}.scopes"),
            "has no effect on a public route",
            "remove it, or `public: true`",
        );
    }
    let name = match route.name {
        Field::Absent => text,
        name => reader.text(&format!("{at}.name"), name),
    };
    Some(Route {
        name: name?,
        template: template?,
        methods: methods?,
        head: route.head.value()?,
        scopes: scopes?,
        public: route.public.value()?,
        allow_encoded_percent: route.allow_encoded_percent.value()?,
    })
}

/// Whether a segment looks like `{tenant}`, misspelt or in the way of another product.
fn means_tenant(segment: &str) -> bool {
    let name = segment.trim_matches(|c: char| !c.is_ascii_alphanumeric());
    name.len() < segment.len() && nearest(name, ["tenant"].into_iter()).is_some()
}

fn method(reader: &mut Reader, field: &str, text: String) -> Option<String> {
    let token = http::Method::from_bytes(text.as_bytes()).is_ok();
    if !token || text.bytes().any(|b| b.is_ascii_lowercase()) {
        reader.problem(field, "is not an HTTP method in upper case", "write it like `GET`");
        return None;
    }
    Some(text)
}

fn scope(reader: &mut Reader, field: &str, text: String) -> Option<String> {
    if !is_scope_token(&text) {
        reader.problem(
            field,
            "is not a scope (RFC 6749)",
            "write each scope by itself, without spaces or quotes",
        );
        return None;
    }
    Some(text)
}

fn rule(route: &Route) -> RouteRule<()> {
    RouteRule {
        template: route.template.clone(),
        methods: route.methods.clone(),
        head: route.head,
        allow_encoded_percent: route.allow_encoded_percent,
        data: (),
    }
}

fn conflicts(reader: &mut Reader, sound: Vec<(String, RouteRule<()>)>) {
    let (places, rules): (Vec<String>, Vec<RouteRule<()>>) = sound.into_iter().unzip();
    for error in Router::new(rules).err().unwrap_or_default() {
        let (first, second) = (&places[error.first], &places[error.second]);
        let (wrong, cure) = match error.conflict {
            Conflict::Method(method) => (
                format!("matches {method} on the same paths as {first}"),
                "take the method or the route out of one of them",
            ),
            Conflict::TenantPlace => (
                format!(
                    "matches the same paths as {first}, with `{{tenant}}` not at the same place"
                ),
                "write both with `{tenant}` where the tenant code is",
            ),
        };
        reader.problem(&format!("{second}.path"), wrong, cure);
    }
}
