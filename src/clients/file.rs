//! The shape of `clients.yaml`. What the values mean is decided in `load.rs`.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::path::Path;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::domain::Problem;
use crate::yaml::schema::{self, PathStep};
use crate::yaml::{self, Checked};

/// The client registry of tenantgate.
#[derive(Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawRegistry {
    /// The registered apps.
    pub clients: Vec<RawClient>,
}

/// One registered app. Has no `Debug`: tenant codes are secrets.
#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawClient {
    /// The `client_id`: 1 to 128 letters, digits and `._~@:+-`, not only dots.
    pub id: String,
    /// A revoked app gets no tokens, and the ones it has stop at once.
    #[serde(default)]
    pub status: RawClientStatus,
    /// Who is behind the app. Left out: nobody in particular, taken as active.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub developer: Option<RawDeveloper>,
    /// How the app proves who it is. At most two are active, for rotation.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub credentials: Vec<RawCredential>,
    /// The scopes that the app may ask for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scopes: Vec<String>,
    /// Static grants: tenant codes that this app may read, instead of the lookup. Empty: ask the
    /// lookup.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tenants: Vec<String>,
    /// How long this app's tokens live, such as `30m`. Left out: `issuer.token_ttl`.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub token_ttl: Option<String>,
    /// Tokens that were issued to this app up to this time (RFC 3339) are refused; `tenantgate
    /// clients revoke-tokens` sets it. Left out: none.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub tokens_not_before: Option<String>,
    /// The names of the APIs that the app may call. Left out: all.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub apis: Option<Vec<String>>,
    /// Claims that every token of this app carries: a name, and a text, number, boolean or list
    /// of these.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: BTreeMap<String, Value>,
    /// How much the app may ask for, handed to Envoy's rate limiters with every allowed request.
    /// Left out: what the lookup says, if it says anything.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub quota: Option<RawQuota>,
}

/// So many requests in each unit of time.
#[derive(Clone, Copy, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawQuota {
    /// At least 1.
    pub requests_per_unit: u32,
    /// The unit of time.
    pub unit: RawQuotaUnit,
}

/// The units that Envoy knows.
#[derive(Clone, Copy, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum RawQuotaUnit {
    Second,
    Minute,
    Hour,
    Day,
}

/// Whether the app may use the API at all.
#[derive(Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RawClientStatus {
    #[default]
    Approved,
    Revoked,
}

/// Who is behind an app.
#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawDeveloper {
    /// A name of your own for the developer; the same rule as for a client's `id`.
    pub id: String,
    /// The apps of an inactive developer are treated like revoked ones.
    #[serde(default)]
    pub status: RawDeveloperStatus,
}

/// Whether a developer's apps may be used.
#[derive(Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RawDeveloperStatus {
    #[default]
    Active,
    Inactive,
}

/// One secret of an app, of which only a digest is kept.
#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawCredential {
    /// `sha256:` and the lower-case hexadecimal SHA-256 of a generated secret, or the PHC string
    /// (`$argon2id$…`) of an imported one.
    pub digest: String,
    /// A revoked credential is refused.
    #[serde(default)]
    pub status: RawCredentialStatus,
    /// The credential is refused from this time on (RFC 3339). Left out: it does not expire.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<String>,
}

/// Whether a credential may be used.
#[derive(Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RawCredentialStatus {
    #[default]
    Active,
    Revoked,
}

/// An empty key is a mistake, not a key that is left out: an empty `apis` would mean all.
fn present<'de, T: Deserialize<'de>, D: Deserializer<'de>>(from: D) -> Result<Option<T>, D::Error> {
    T::deserialize(from).map(Some)
}

/// A file that does not have the shape above.
pub struct Misshapen {
    pub problems: Vec<Problem>,
    /// `None`: there is no list of clients in it.
    pub clients: Option<Vec<ReadClient>>,
}

/// A client of a file that does not have the right shape.
pub struct ReadClient {
    pub position: usize,
    /// Without what could not be read.
    pub client: RawClient,
    /// Nothing had to be left out.
    pub whole: bool,
}

/// A registry may be large, so that it is read straight into the types above. The general way of
/// reading, which is much slower and finds every problem with its path, is for files that do not
/// fit.
pub fn read(path: &Path) -> Result<RawRegistry, Misshapen> {
    let file = path.display().to_string();
    let text = fs::read_to_string(path).map_err(|error| Misshapen {
        problems: vec![yaml::unreadable(&file, &error)],
        clients: None,
    })?;
    parse(&file, &text)
}

fn parse(file: &str, text: &str) -> Result<RawRegistry, Misshapen> {
    let options = serde_saphyr::options! {
        // A registry may hold a million clients.
        budget: None,
        // Other tools would take an unquoted code 007 for the number 7.
        no_schema: true,
        strict_booleans: true,
    };
    if let Ok(registry) = serde_saphyr::from_str_with_options(text, options) {
        return Ok(registry);
    }
    match yaml::check(file, text) {
        Checked { value: Some(registry), problems, .. } if problems.is_empty() => Ok(registry),
        Checked { document, problems, .. } => {
            Err(Misshapen { problems, clients: read_clients(document) })
        }
    }
}

/// Takes every key that holds something wrong off its client.
fn read_clients(mut document: Value) -> Option<Vec<ReadClient>> {
    let findings = schema::findings(&schema::of::<RawRegistry>(), &document);
    let clients = document.get_mut("clients")?.as_array_mut()?;
    let mut broken = HashSet::new();
    for finding in findings {
        let [PathStep::Key(_), PathStep::Index(position), further @ ..] = finding.path.as_slice()
        else {
            continue;
        };
        broken.insert(*position);
        if let [PathStep::Key(key), ..] = further
            && let Some(Value::Object(client)) = clients.get_mut(*position)
        {
            client.remove(key);
        }
    }
    let read = |(position, client): (usize, &mut Value)| {
        let client = lenient(client.take())?;
        Some(ReadClient { position, client, whole: !broken.contains(&position) })
    };
    Some(clients.iter_mut().enumerate().filter_map(read).collect())
}

fn lenient(mut client: Value) -> Option<RawClient> {
    client.as_object_mut()?.entry("id").or_insert_with(|| Value::from(""));
    serde_json::from_value(client).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(text: &str) -> Vec<String> {
        let problems = parse("clients.yaml", text).err().map(|misshapen| misshapen.problems);
        problems.unwrap_or_default().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_file_without_clients_is_not_an_empty_registry() {
        for text in ["", "# nothing", "clients:", "{}", "clients: {}", "clients: 5"] {
            assert_eq!(problems(text).len(), 1, "{text:?}");
        }
        assert!(parse("f", "clients: []").is_ok_and(|registry| registry.clients.is_empty()));
    }

    #[test]
    fn what_is_not_text_has_to_be_quoted() {
        assert_eq!(
            problems("clients: [{id: a, tenants: [007]}]"),
            ["clients[0].tenants[0]: must be a text; this is a number"]
        );
        let quoted = parse("f", "clients: [{id: a, tenants: ['007', T1]}]").ok().unwrap();
        assert_eq!(quoted.clients[0].tenants, ["007", "T1"]);
    }

    #[test]
    fn an_empty_key_is_told_like_a_wrong_one() {
        let keys = [
            "status",
            "developer",
            "credentials",
            "tenants",
            "token_ttl",
            "tokens_not_before",
            "apis",
            "attributes",
        ];
        for key in keys {
            let problems = problems(&format!("clients: [{{id: a, {key}: }}]"));
            let told = format!("clients[0].{key}: empty;");
            assert!(!problems.is_empty() && problems.iter().all(|p| p.starts_with(&told)), "{key}");
        }
    }

    #[test]
    fn the_sound_parts_of_a_misshapen_file_keep_their_positions() {
        let text = "clients: [5, {id: a, statu: x, scopes: [s]}, {tenants: 5, token_ttl: 1m}]";
        let misshapen = parse("f", text).err().unwrap();
        assert_eq!(misshapen.problems.len(), 4);
        let clients = misshapen.clients.unwrap();
        let [a, nameless] = clients.as_slice() else { panic!("other clients") };
        assert_eq!(
            (a.position, a.whole, a.client.scopes.as_slice()),
            (1, false, &["s".into()][..])
        );
        assert_eq!((nameless.position, nameless.client.id.as_str()), (2, ""));
        assert_eq!(nameless.client.token_ttl.as_deref(), Some("1m"));
    }

    #[test]
    fn a_file_that_is_no_mapping_is_a_problem_like_every_other() {
        for text in ["- id: a", "[]", "hello", "5", "null", "~", "true", "1.5", "\"x\"", "---"] {
            let misshapen = parse("f", text).err().unwrap();
            assert_eq!(misshapen.problems.len(), 1, "{text}");
            assert!(misshapen.clients.is_none(), "{text}");
        }
    }
}
