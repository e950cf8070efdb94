use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{DurationText, Field, FileText};

#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["key_file"]))]
pub struct State {
    /// A file on a local disk, for exactly one process. One of `sqlite` and `postgres`.
    pub sqlite: Field<FileText>,
    /// A database that all replicas share.
    pub postgres: Field<Postgres>,
    /// 64 hex characters, made by `tenantgate keys digest`: names tenants in rows and answers,
    /// never by their codes, and seals the static tenants of clients. The same for all replicas;
    /// with another one, what is stored of tenants means nothing.
    pub key_file: Field<FileText>,
    /// How often a replica looks for changes.
    pub poll: Field<DurationText>,
    /// With `postgres`: a local copy, so that a process can start while the database is away. It
    /// holds no tenant code.
    pub snapshot_file: Field<FileText>,
    /// How long what is recorded is kept.
    pub retention: Field<Retention>,
}

impl Default for State {
    fn default() -> Self {
        Self {
            sqlite: Field::Absent,
            postgres: Field::Absent,
            key_file: Field::Absent,
            poll: Field::Value("500ms".into()),
            snapshot_file: Field::Absent,
            retention: Field::Value(Retention::default()),
        }
    }
}

#[derive(Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Postgres {
    /// A file with the URL, such as `postgres://tenantgate:PASSWORD@state-rw:5432/tenantgate`. One
    /// of `url_file` and `url`. It must lead to the primary, also through a pooler. Without
    /// `sslmode` in it, the server's certificate is verified, unless the server is on this machine.
    pub url_file: Field<FileText>,
    /// The URL, where it holds no password.
    pub url: Field<String>,
    /// PEM certificates of the CA that signed the server's certificate.
    pub ca_file: Field<FileText>,
}

#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Retention {
    /// The record of management actions.
    pub audit: Field<DurationText>,
    /// The hourly counts of use.
    pub usage: Field<DurationText>,
}

impl Default for Retention {
    fn default() -> Self {
        Self { audit: Field::Value("365d".into()), usage: Field::Value("90d".into()) }
    }
}
