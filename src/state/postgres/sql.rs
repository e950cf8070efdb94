//! The statements. `$1` is one JSON document, and so is every row that comes back.

macro_rules! now {
    () => {
        "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint"
    };
}

pub const VERSION: &str = "SELECT coalesce(max(version), 0)::text FROM tenantgate_schema";

pub const FIRST_EVENT: &str = concat!(
    "INSERT INTO tenantgate_feed (seq, id, at, body) VALUES (0, gen_random_uuid()::text, ",
    now!(),
    ", '')"
);

/// One statement, so that a client which stalls holds nothing. A write that
/// [`Expect`](super::super::Expect) refuses leaves an event without a body, for the numbers must
/// have no gap.
pub const WRITE: &str = concat!(
    "WITH p AS (SELECT * FROM jsonb_to_record($1) AS p(
        kind text, issuer text, client text, ref text, hold bigint, keep bigint, lifted bigint,
        body text, expect bigint, event text, request text, actor text, action text, detail text)),
     h AS (UPDATE tenantgate_head SET seq = seq + 1 WHERE one = 1 RETURNING seq),
     n AS (SELECT h.seq, ",
    now!(),
    " AS at FROM h),
     r AS (INSERT INTO tenantgate_record AS old
        (kind, issuer, client, ref, not_before, expires_at, lifted, body, seq, at)
       SELECT p.kind, p.issuer, p.client, p.ref, n.at + p.hold, n.at + p.hold + p.keep, p.lifted,
           p.body, n.seq, n.at
         FROM p, n
        WHERE p.expect <= 0 OR EXISTS (SELECT FROM tenantgate_record e
            WHERE e.kind = p.kind AND e.issuer = p.issuer AND e.client = p.client
              AND e.ref = p.ref AND e.seq = p.expect)
       ON CONFLICT (kind, issuer, client, ref) DO UPDATE SET
         not_before = CASE WHEN old.lifted = 1 OR excluded.lifted = 1 THEN excluded.not_before
             ELSE greatest(old.not_before, excluded.not_before) END,
         expires_at = CASE WHEN old.lifted = 1 OR excluded.lifted = 1 THEN excluded.expires_at
             WHEN old.expires_at IS NULL OR excluded.expires_at IS NULL THEN NULL
             ELSE greatest(old.expires_at, excluded.expires_at) END,
         lifted = excluded.lifted, body = excluded.body, seq = excluded.seq, at = excluded.at
       WHERE (SELECT expect FROM p) = -1
          OR ((SELECT expect FROM p) = 0 AND old.lifted = 1)
          OR old.seq = (SELECT expect FROM p)
       RETURNING *),
     a AS (INSERT INTO tenantgate_audit
        (id, seq, at, actor, action, issuer, client, ref, not_before, detail)
       SELECT p.request, r.seq, r.at, p.actor, p.action, r.issuer, r.client, r.ref, r.not_before,
           p.detail FROM p, r),
     f AS (INSERT INTO tenantgate_feed (seq, id, at, body)
       SELECT n.seq, p.event, n.at, coalesce(to_jsonb(r)::text, '')
         FROM p CROSS JOIN n LEFT JOIN r ON true)
     SELECT coalesce((SELECT to_jsonb(r)::text FROM r), '') FROM n"
);

pub const AUDIT_OF: &str = "SELECT to_jsonb(a)::text FROM tenantgate_audit a, jsonb_to_record($1) \
                            AS p(id text) WHERE a.id = p.id";

pub const POLL: &str = concat!(
    "WITH p AS (SELECT * FROM jsonb_to_record($1) AS p(seq bigint)),
     f AS (SELECT e.seq, e.id, e.body FROM tenantgate_feed e, p WHERE e.seq >= p.seq
         ORDER BY e.seq LIMIT 1000)
     SELECT jsonb_build_object(
        'now', ",
    now!(),
    ", 'standby', pg_is_in_recovery(),
        'head', (SELECT seq FROM tenantgate_head),
        'events', coalesce((SELECT jsonb_agg(jsonb_build_object(
            'seq', f.seq, 'id', f.id, 'record', nullif(f.body, '')::jsonb) ORDER BY f.seq) FROM f),
            '[]'::jsonb))::text"
);

/// One statement sees one moment.
pub const LOAD: &str = concat!(
    "SELECT jsonb_build_object(
        'now', ",
    now!(),
    ", 'standby', pg_is_in_recovery(),
        'cursor', (SELECT jsonb_build_object('seq', f.seq, 'id', f.id) FROM tenantgate_feed f
            ORDER BY f.seq DESC LIMIT 1))::text
     UNION ALL
     SELECT to_jsonb(r)::text FROM tenantgate_record r
      WHERE r.expires_at IS NULL OR r.expires_at > ",
    now!()
);

/// The last event stays, whatever its age: replicas compare it with their cursor.
pub const TIDY: &str = concat!(
    "WITH p AS (SELECT ",
    now!(),
    " AS now, p.* FROM jsonb_to_record($1)
        AS p(feed bigint, lifted bigint, audit bigint, usage bigint)),
     a AS (DELETE FROM tenantgate_feed f USING p WHERE f.at < p.now - p.feed
        AND f.seq < (SELECT max(seq) FROM tenantgate_feed)),
     b AS (DELETE FROM tenantgate_record r USING p WHERE r.expires_at < p.now
        OR (r.lifted = 1 AND r.at < p.now - p.lifted)),
     c AS (DELETE FROM tenantgate_audit t USING p WHERE t.at < p.now - p.audit),
     d AS (DELETE FROM tenantgate_usage u USING p WHERE u.hour < p.now - p.usage),
     e AS (DELETE FROM tenantgate_lookup l USING p WHERE l.looked_up_at < p.now - p.feed
        AND l.lease_until < p.now)
     SELECT ''"
);

pub const AUDIT: &str = r#"WITH p AS (SELECT * FROM jsonb_to_record($1)
        AS p(client text, ref text, "from" bigint, "to" bigint, "limit" bigint))
     SELECT to_jsonb(a)::text FROM tenantgate_audit a, p
      WHERE (p.client = '' OR a.client = p.client) AND (p.ref = '' OR a.ref = p.ref)
        AND a.at >= p."from" AND a.at < p."to"
      ORDER BY a.at DESC, a.seq DESC LIMIT (SELECT p."limit" FROM p)"#;

/// In the order of the key, so that two replicas cannot wait for each other.
pub const ADD_USAGE: &str = "INSERT INTO tenantgate_usage AS old
        (hour, issuer, client, ref, outcome, count, first, last)
     SELECT hour, issuer, client, ref, outcome, sum(count)::bigint, min(first), max(last)
       FROM jsonb_to_recordset($1) AS p(hour bigint, issuer text, client text, ref text,
           outcome text, count bigint, first bigint, last bigint)
      GROUP BY hour, issuer, client, ref, outcome
      ORDER BY hour, issuer, client, ref, outcome
     ON CONFLICT (hour, issuer, client, ref, outcome) DO UPDATE SET
       count = old.count + excluded.count, first = least(old.first, excluded.first),
       last = greatest(old.last, excluded.last)";

pub const USAGE: &str = r#"WITH p AS (SELECT * FROM jsonb_to_record($1)
        AS p(client text, ref text, "from" bigint, "to" bigint, "limit" bigint))
     SELECT to_jsonb(u)::text FROM tenantgate_usage u, p
      WHERE (p.client = '' OR u.client = p.client) AND (p.ref = '' OR u.ref = p.ref)
        AND u.hour >= p."from" AND u.hour < p."to"
      ORDER BY u.hour DESC, u.count DESC, u.client, u.ref, u.outcome
      LIMIT (SELECT p."limit" FROM p)"#;

/// Takes the turn where nobody has it and no answer is new enough; shows what was there before.
pub const LOOKUP_TURN: &str = concat!(
    "WITH p AS (SELECT * FROM jsonb_to_record($1)
        AS p(section text, client text, newer_than bigint, lease bigint, owner text)),
     n AS (SELECT ",
    now!(),
    " AS now),
     t AS (INSERT INTO tenantgate_lookup AS l
        (section, client, answer, looked_up_at, stored_at, lease_until, owner)
       SELECT p.section, p.client, '', 0, 0, n.now + p.lease, p.owner FROM p, n
       ON CONFLICT (section, client) DO UPDATE SET
         lease_until = excluded.lease_until, owner = excluded.owner
       WHERE l.looked_up_at <= (SELECT newer_than FROM p) AND l.lease_until <= (SELECT now FROM n)
       RETURNING true)
     SELECT jsonb_build_object('ours', EXISTS (SELECT FROM t), 'answer', coalesce(l.answer, ''),
        'looked_up_at', coalesce(l.looked_up_at, 0))::text
       FROM p LEFT JOIN tenantgate_lookup l ON l.section = p.section AND l.client = p.client"
);

pub const SHARE_LOOKUP: &str = concat!(
    "INSERT INTO tenantgate_lookup AS l
        (section, client, answer, looked_up_at, stored_at, lease_until, owner)
     SELECT p.section, p.client, p.answer, p.looked_up_at, ",
    now!(),
    ", 0, p.owner FROM jsonb_to_record($1)
        AS p(section text, client text, answer text, looked_up_at bigint, owner text)
     ON CONFLICT (section, client) DO UPDATE SET
       answer = excluded.answer, looked_up_at = excluded.looked_up_at,
       stored_at = excluded.stored_at, lease_until = 0, owner = excluded.owner
     WHERE l.looked_up_at < excluded.looked_up_at"
);

pub const RELEASE_LOOKUP: &str = "UPDATE tenantgate_lookup l SET lease_until = 0
     FROM jsonb_to_record($1) AS p(section text, client text, owner text)
     WHERE l.section = p.section AND l.client = p.client AND l.owner = p.owner";

pub const SHARED_LOOKUPS: &str = concat!(
    "SELECT jsonb_build_object('now', ",
    now!(),
    ", 'answers', coalesce((SELECT jsonb_agg(jsonb_build_object('client', l.client,
            'answer', l.answer, 'looked_up_at', l.looked_up_at))
         FROM tenantgate_lookup l, jsonb_to_record($1) AS p(section text, after bigint)
        WHERE l.section = p.section AND l.stored_at > p.after), '[]'::jsonb))::text"
);
