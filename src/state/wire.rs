//! What goes to a database and comes from it, as JSON, on both engines.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::record::{Change, Key, Record, micros_of};
use super::store::{Cursor, Loaded, LookupTurn, LookupWish, SharedLookup, StoreError};

pub fn to_json(value: &impl Serialize) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|error| StoreError::Refused(error.to_string()))
}

pub fn from_json<T: DeserializeOwned>(text: &str) -> Result<T, StoreError> {
    // The error names a place in the text, and nothing of its content that is secret.
    serde_json::from_str(text).map_err(|error| {
        StoreError::Refused(format!(
            "the state's database holds what this build cannot read: {error}"
        ))
    })
}

#[derive(Serialize)]
pub struct WriteArgument<'a> {
    #[serde(flatten)]
    key: &'a Key,
    hold: i64,
    keep: Option<i64>,
    lifted: i64,
    body: &'a str,
    expect: i64,
    event: String,
    request: &'a str,
    actor: &'a str,
    action: &'a str,
    detail: &'a str,
}

impl<'a> WriteArgument<'a> {
    pub fn of(change: &'a Change) -> Self {
        Self {
            key: &change.key,
            hold: micros_of(change.hold),
            keep: change.keep.map(micros_of),
            lifted: i64::from(change.lift),
            body: &change.body,
            expect: change.expect.number(),
            event: Uuid::now_v7().to_string(),
            request: &change.audit.request_id,
            actor: &change.audit.actor,
            action: &change.audit.action,
            detail: &change.audit.detail,
        }
    }
}

/// An answer that only the primary may give.
#[derive(Deserialize)]
pub struct FromPrimary<T> {
    #[serde(default)]
    standby: bool,
    #[serde(flatten)]
    answer: T,
}

impl<T> FromPrimary<T> {
    pub fn checked(self) -> Result<T, StoreError> {
        if self.standby { Err(StoreError::Standby) } else { Ok(self.answer) }
    }
}

/// What a turn for a lookup found.
#[derive(Deserialize)]
pub struct LookupState {
    ours: bool,
    answer: String,
    looked_up_at: i64,
}

impl LookupState {
    pub fn turn(self, wish: &LookupWish) -> LookupTurn {
        let Self { ours, answer, looked_up_at } = self;
        match (ours, looked_up_at > wish.newer_than) {
            (true, _) => LookupTurn::Ours,
            (false, true) => {
                LookupTurn::Answered(SharedLookup { client: String::new(), answer, looked_up_at })
            }
            (false, false) => LookupTurn::Theirs,
        }
    }
}

#[derive(Deserialize)]
struct Head {
    now: i64,
    /// `None`: the feed is empty, which no migration leaves behind.
    cursor: Option<Cursor>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Row {
    Record(Box<Record>),
    Head(FromPrimary<Head>),
}

/// The rows of a load: the head and the records, in any order.
pub fn loaded(rows: &[String]) -> Result<Loaded, StoreError> {
    let mut records = Vec::with_capacity(rows.len().saturating_sub(1));
    let mut head = None;
    for row in rows {
        match from_json(row)? {
            Row::Record(record) => records.push(*record),
            Row::Head(found) => head = Some(found.checked()?),
        }
    }
    let head = head.ok_or(StoreError::SchemaOld { found: 0 })?;
    let cursor = head.cursor.ok_or(StoreError::SchemaOld { found: 0 })?;
    Ok(Loaded { now: head.now, cursor, records })
}
