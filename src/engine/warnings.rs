use std::path::Path;

use super::{Engine, Inputs};
use crate::config::Config;
use crate::domain::{ClientBook, Problem};
use crate::keys;
use crate::yaml::locate;
use crate::yaml::schema::nearest;

impl Inputs {
    /// What is allowed, but rarely meant: what the config says of itself, and what only shows
    /// together with the files that it names.
    pub fn warnings(&self) -> Vec<Problem> {
        let config = self.config();
        let scopes = self.clients().map(|book| unknown_scopes(&config, book));
        let issuer = config.issuer.as_ref();
        let keys = issuer.and_then(|issuer| issuer.keys.folder());
        let keys = keys.map(|folder| keys::ignored_files(folder));
        let found = scopes.into_iter().chain(keys).flatten().collect();
        let file = config.files.first().map_or(Path::new(""), |file| file.as_path());
        let found = locate::place(found, file);
        config.warnings.iter().cloned().chain(found).collect()
    }
}

fn unknown_scopes(config: &Config, book: &ClientBook) -> Vec<Problem> {
    let held = |scope: &str| book.iter().any(|client| client.scopes.contains(scope));
    let mut found = Vec::new();
    for (api_at, api) in config.apis.iter().enumerate() {
        for (route_at, route) in api.routes.iter().enumerate() {
            for (at, scope) in route.scopes.iter().enumerate().filter(|(_, scope)| !held(scope)) {
                let field = format!("apis[{api_at}].routes[{route_at}].scopes[{at}]");
                let all = book.iter().flat_map(|client| client.scopes.iter());
                let cure = match nearest(scope, all) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => "give it to the clients that need it".to_owned(),
                };
                found.push(Problem::new(field, "is a scope that no client has", cure));
            }
        }
    }
    found
}

impl Engine {
    /// Logs what is allowed, but rarely meant, and what lets everybody pass.
    pub fn warn(&self) {
        for warning in &self.report.load().warnings {
            tracing::warn!(%warning, "the config is valid, but look at this");
        }
        for api in &self.config().apis {
            for route in api.routes.iter().filter(|route| route.public) {
                tracing::warn!(api = api.name, route = route.name, "PUBLIC: everybody passes here");
            }
        }
    }
}
