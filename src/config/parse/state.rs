use std::time::Duration;

use url::Url;

use super::issuer::digest_key;
use crate::config::reader::Reader;
use crate::config::{SecretText, State, StateEngine, raw};
use crate::domain::Secret;

/// Above this a withdrawal could not keep its promise of 2 s.
const SLOWEST_POLL: Duration = Duration::from_secs(1);

pub fn parse(reader: &mut Reader, state: raw::State) -> Option<State> {
    let engine = match (state.sqlite, state.postgres) {
        (Some(file), None) => {
            reader.without_effect("state", &["snapshot_file"], "with `sqlite`");
            Some(StateEngine::Sqlite(reader.path(&file)))
        }
        (None, Some(database)) => postgres(reader, database),
        (None, None) if reader.given("state.sqlite") || reader.given("state.postgres") => None,
        (None, None) => {
            let cure = "add `sqlite: FILE` for one process, or `postgres` for replicas";
            reader.problem("state", "names no place to keep anything", cure);
            None
        }
        (Some(_), Some(_)) => {
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
    let retention = state.retention?;
    let audit = reader.positive_duration("state.retention.audit", retention.audit);
    let usage = reader.positive_duration("state.retention.usage", retention.usage);
    Some(State {
        engine: engine?,
        key: key?,
        poll: poll?,
        snapshot: state.snapshot_file.map(|file| reader.path(&file)),
        keep_audit: audit?,
        keep_usage: usage?,
    })
}

fn postgres(reader: &mut Reader, database: raw::Postgres) -> Option<StateEngine> {
    let ca_file = database.ca_file.is_some();
    let ca_pem = reader.file("state.postgres.ca_file", database.ca_file);
    let (field, url) = match (database.url_file, database.url) {
        (Some(file), None) => {
            let field = "state.postgres.url_file";
            (field, reader.secret_file(field, Some(file))?)
        }
        (None, Some(url)) => ("state.postgres.url", SecretText(Secret::new(url))),
        (None, None) => {
            let cure = "add `url_file`, or `url` where it holds no password";
            reader.problem("state.postgres", "names no database", cure);
            return None;
        }
        (Some(_), Some(_)) => {
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
    if ca_file && ca_pem.is_none() {
        return None;
    }
    Some(StateEngine::Postgres { url, ca_pem })
}
