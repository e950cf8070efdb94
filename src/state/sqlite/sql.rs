//! The statements. `$1` is one JSON document, `$2` the time; every row that comes back is JSON.

macro_rules! record {
    () => {
        "json_object('kind', kind, 'issuer', issuer, 'client', client, 'ref', ref,
            'not_before', not_before, 'expires_at', expires_at, 'lifted', lifted, 'body', body,
            'seq', seq, 'at', at)"
    };
}

macro_rules! arg {
    ($name:literal) => {
        concat!("json_extract($1, '$.", $name, "')")
    };
}

pub const VERSION: &str = "SELECT CAST(coalesce(max(version), 0) AS text) FROM tenantgate_schema";

/// `$1` is the event's id.
pub const FIRST_EVENT: &str =
    "INSERT INTO tenantgate_feed (seq, id, at, body) VALUES (0, json_extract($1, '$'), $2, '')";

pub const NEXT: &str = "UPDATE tenantgate_head SET seq = seq + 1 WHERE one = 1";

pub const WRITE: &str = concat!(
    "INSERT INTO tenantgate_record
        (kind, issuer, client, ref, not_before, expires_at, lifted, body, seq, at)
     SELECT ",
    arg!("kind"),
    ", ",
    arg!("issuer"),
    ", ",
    arg!("client"),
    ", ",
    arg!("ref"),
    ", $2 + ",
    arg!("hold"),
    ", $2 + ",
    arg!("hold"),
    " + ",
    arg!("keep"),
    ", ",
    arg!("lifted"),
    ", ",
    arg!("body"),
    ", h.seq, $2
       FROM tenantgate_head h
      WHERE ",
    arg!("expect"),
    " <= 0 OR EXISTS (SELECT 1 FROM tenantgate_record e
          WHERE e.kind = ",
    arg!("kind"),
    " AND e.issuer = ",
    arg!("issuer"),
    " AND e.client = ",
    arg!("client"),
    " AND e.ref = ",
    arg!("ref"),
    " AND e.seq = ",
    arg!("expect"),
    ")
     ON CONFLICT (kind, issuer, client, ref) DO UPDATE SET
       not_before = CASE WHEN lifted = 1 OR excluded.lifted = 1 THEN excluded.not_before
           ELSE max(not_before, excluded.not_before) END,
       expires_at = CASE WHEN lifted = 1 OR excluded.lifted = 1 THEN excluded.expires_at
           WHEN expires_at IS NULL OR excluded.expires_at IS NULL THEN NULL
           ELSE max(expires_at, excluded.expires_at) END,
       lifted = excluded.lifted, body = excluded.body, seq = excluded.seq, at = excluded.at
     WHERE ",
    arg!("expect"),
    " = -1 OR (",
    arg!("expect"),
    " = 0 AND lifted = 1)
        OR seq = ",
    arg!("expect"),
    "
     RETURNING ",
    record!()
);

pub const WRITE_AUDIT: &str = concat!(
    "INSERT INTO tenantgate_audit
        (id, seq, at, actor, action, issuer, client, ref, not_before, detail)
     SELECT ",
    arg!("request"),
    ", r.seq, r.at, ",
    arg!("actor"),
    ", ",
    arg!("action"),
    ", r.issuer, r.client, r.ref, r.not_before, ",
    arg!("detail"),
    "
       FROM tenantgate_record r JOIN tenantgate_head h ON r.seq = h.seq
      WHERE r.kind = ",
    arg!("kind"),
    " AND r.issuer = ",
    arg!("issuer"),
    " AND r.client = ",
    arg!("client"),
    " AND r.ref = ",
    arg!("ref")
);

pub const WRITE_EVENT: &str = "INSERT INTO tenantgate_feed (seq, id, at, body)
     SELECT seq, json_extract($1, '$.id'), $2, json_extract($1, '$.body') FROM tenantgate_head";

macro_rules! audit_entry {
    () => {
        "json_object('id', id, 'seq', seq, 'at', at, 'actor', actor, 'action', action,
            'issuer', issuer, 'client', client, 'ref', ref, 'not_before', not_before,
            'detail', detail)"
    };
}

pub const AUDIT_OF: &str =
    concat!("SELECT ", audit_entry!(), " FROM tenantgate_audit WHERE id = ", arg!("id"));

pub const POLL: &str = concat!(
    "WITH f AS (SELECT seq, id, body FROM tenantgate_feed WHERE seq >= ",
    arg!("seq"),
    "
         ORDER BY seq LIMIT 1000)
     SELECT json_object('now', $2, 'head', (SELECT seq FROM tenantgate_head),
        'events', json((SELECT json_group_array(json_object(
            'seq', seq, 'id', id, 'record', json(nullif(body, '')))) FROM f)))"
);

pub const LOAD: &str = concat!(
    "SELECT json_object('now', $2, 'cursor', (SELECT json_object('seq', seq, 'id', id)
        FROM tenantgate_feed ORDER BY seq DESC LIMIT 1))
     UNION ALL
     SELECT ",
    record!(),
    " FROM tenantgate_record
      WHERE expires_at IS NULL OR expires_at > $2"
);

/// The last event stays, whatever its age.
pub const TIDY: [&str; 5] = [
    concat!(
        "DELETE FROM tenantgate_feed WHERE at < $2 - ",
        arg!("feed"),
        " AND seq < (SELECT max(seq) FROM tenantgate_feed)"
    ),
    concat!(
        "DELETE FROM tenantgate_record WHERE expires_at < $2
            OR (lifted = 1 AND at < $2 - ",
        arg!("lifted"),
        ")"
    ),
    concat!("DELETE FROM tenantgate_audit WHERE at < $2 - ", arg!("audit")),
    concat!("DELETE FROM tenantgate_usage WHERE hour < $2 - ", arg!("usage")),
    concat!(
        "DELETE FROM tenantgate_lookup WHERE looked_up_at < $2 - ",
        arg!("feed"),
        " AND lease_until < $2"
    ),
];

pub const AUDIT: &str = concat!(
    "SELECT ",
    audit_entry!(),
    " FROM tenantgate_audit
      WHERE (",
    arg!("client"),
    " = '' OR client = ",
    arg!("client"),
    ")
        AND (",
    arg!("ref"),
    " = '' OR ref = ",
    arg!("ref"),
    ")
        AND at >= ",
    arg!("from"),
    " AND at < ",
    arg!("to"),
    "
      ORDER BY at DESC, seq DESC LIMIT ",
    arg!("limit")
);

pub const ADD_USAGE: &str =
    "INSERT INTO tenantgate_usage (hour, issuer, client, ref, outcome, count, first, last)
     SELECT json_extract(value, '$.hour'), json_extract(value, '$.issuer'),
         json_extract(value, '$.client'), json_extract(value, '$.ref'),
         json_extract(value, '$.outcome'), sum(json_extract(value, '$.count')),
         min(json_extract(value, '$.first')), max(json_extract(value, '$.last'))
       FROM json_each($1) WHERE true GROUP BY 1, 2, 3, 4, 5
     ON CONFLICT (hour, issuer, client, ref, outcome) DO UPDATE SET
       count = count + excluded.count, first = min(first, excluded.first),
       last = max(last, excluded.last)";

pub const USAGE: &str = concat!(
    "SELECT json_object('hour', hour, 'issuer', issuer, 'client', client, 'ref', ref,
        'outcome', outcome, 'count', count, 'first', first, 'last', last)
       FROM tenantgate_usage
      WHERE (",
    arg!("client"),
    " = '' OR client = ",
    arg!("client"),
    ")
        AND (",
    arg!("ref"),
    " = '' OR ref = ",
    arg!("ref"),
    ")
        AND hour >= ",
    arg!("from"),
    " AND hour < ",
    arg!("to"),
    "
      ORDER BY hour DESC, count DESC, client, ref, outcome LIMIT ",
    arg!("limit")
);
