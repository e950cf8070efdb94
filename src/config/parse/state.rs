use std::time::Duration;

use url::Url;

use super::issuer::digest_key;
use crate::config::reader::Reader;
use crate::config::{SecretText, State, StateEngine, raw};
use crate::domain::Secret;
use crate::yaml::Field;

/// Above this a withdrawal could not keep its promise of 2 s.
const SLOWEST_POLL: Duration = Duration::from_secs(1);

pub fn parse(reader: &mut Reader, state: raw::State) -> Option<State> {
    let engine = match (state.sqlite, state.postgres) {
        (Field::Value(file), Field::Absent) => {
            reader.without_effect("state", &["snapshot_file"], "with `sqlite`");
            Some(StateEngine::Sqlite(reader.path(&file)))
        }
        (Field::Absent, Field::Value(database)) => postgres(reader, database),
        (Field::Absent, Field::Absent) => {
            let cure = "add `sqlite: FILE` for one process, or `postgres` for replicas";
            reader.problem("state", "names no place to keep anything", cure);
            None
        }
        (Field::Absent, Field::Broken) | (Field::Broken, Field::Absent) => None,
        (_, _) => {
            let cure = "keep one: `sqlite` for one process, `postgres` for replicas";
            reader.problem("state.sqlite", "is given beside `postgres`", cure);
            None
        }
    };
    let key = digest_key(reader, "state.key_file", state.key_file);
    let poll = reader.positive_duration("state.poll", state.poll);
    if poll.is_some_and(|poll| poll > SLOWEST_POLL) {
        let wrong = "is more than 1s: a withdrawal has to reach every replica within 2s";
        reader.problem("state.poll", wrong, "write at most `1s`");
    }
    let retention = state.retention.value()?;
    let audit = reader.positive_duration("state.retention.audit", retention.audit);
    let usage = reader.positive_duration("state.retention.usage", retention.usage);
    Some(State {
        engine: engine?,
        key: key?,
        poll: poll?,
        snapshot: state.snapshot_file.optional(|file| Some(reader.path(&file)))?,
        keep_audit: audit?,
        keep_usage: usage?,
    })
}

fn postgres(reader: &mut Reader, database: raw::Postgres) -> Option<StateEngine> {
    let ca_pem =
        database.ca_file.optional(|file| reader.file("state.postgres.ca_file", file.into()));
    let (field, url) = match (database.url_file, database.url) {
        (file, Field::Absent) if file.is_given() => {
            let field = "state.postgres.url_file";
            (field, reader.secret_file(field, file)?)
        }
        (Field::Absent, Field::Value(url)) => ("state.postgres.url", SecretText(Secret::new(url))),
        (Field::Absent, Field::Broken) => return None,
        (Field::Absent, Field::Absent) => {
            let cure = "add `url_file`, or `url` where it holds no password";
            reader.problem("state.postgres", "names no database", cure);
            return None;
        }
        (_, _) => {
            let wrong = "is given beside `url_file`";
            reader.problem("state.postgres.url", wrong, "keep one of the two");
            return None;
        }
    };
    let example = "write it like `postgres://user@host:5432/database`";
    let parsed = Url::parse(url.0.expose()).ok();
    let parsed = parsed.filter(|url| matches!(url.scheme(), "postgres" | "postgresql"));
    let Some(parsed) = parsed else {
        reader.problem(field, "is not a URL of a PostgreSQL database", example);
        return None;
    };
    if field == "state.postgres.url" && parsed.password().is_some() {
        reader.problem(field, "holds a password", "write the URL into a file and use `url_file`");
    }
    Some(StateEngine::Postgres { url, ca_pem: ca_pem? })
}
