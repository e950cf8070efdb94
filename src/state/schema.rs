//! The tables, the same on both engines, and how they came to be.

/// The schema that this build wants.
pub const LATEST: i64 = 1;

/// The versions of the schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Schema {
    /// 0: there is nothing yet.
    pub version: i64,
}

/// The statements that lead from each version to the next. What has been released is never changed.
pub(super) const MIGRATIONS: [&[&str]; LATEST as usize] = [&[
    // The order of all changes. Every write raises it in the statement that makes the change, so
    // that a later change cannot be seen before an earlier one.
    "CREATE TABLE tenantgate_head (
        one bigint PRIMARY KEY CHECK (one = 1),
        seq bigint NOT NULL)",
    "CREATE TABLE tenantgate_feed (
        seq bigint PRIMARY KEY,
        id text NOT NULL UNIQUE,
        at bigint NOT NULL,
        body text NOT NULL)",
    // Withdrawals and clients: the last word on each key.
    "CREATE TABLE tenantgate_record (
        kind text NOT NULL,
        issuer text NOT NULL,
        client text NOT NULL,
        ref text NOT NULL,
        not_before bigint NOT NULL,
        expires_at bigint,
        lifted bigint NOT NULL,
        body text NOT NULL,
        seq bigint NOT NULL,
        at bigint NOT NULL,
        PRIMARY KEY (kind, issuer, client, ref))",
    "CREATE INDEX tenantgate_record_expiry ON tenantgate_record (expires_at)
        WHERE expires_at IS NOT NULL",
    "CREATE TABLE tenantgate_audit (
        id text PRIMARY KEY,
        seq bigint NOT NULL,
        at bigint NOT NULL,
        actor text NOT NULL,
        action text NOT NULL,
        issuer text NOT NULL,
        client text NOT NULL,
        ref text NOT NULL,
        not_before bigint NOT NULL,
        detail text NOT NULL)",
    "CREATE INDEX tenantgate_audit_time ON tenantgate_audit (at)",
    "CREATE TABLE tenantgate_usage (
        hour bigint NOT NULL,
        issuer text NOT NULL,
        client text NOT NULL,
        ref text NOT NULL,
        outcome text NOT NULL,
        count bigint NOT NULL,
        first bigint NOT NULL,
        last bigint NOT NULL,
        PRIMARY KEY (hour, issuer, client, ref, outcome))",
    "CREATE INDEX tenantgate_usage_tenant ON tenantgate_usage (ref, hour)",
    // What lookups said, for the other replicas; the answers are sealed.
    "CREATE TABLE tenantgate_lookup (
        section text NOT NULL,
        client text NOT NULL,
        answer text NOT NULL,
        looked_up_at bigint NOT NULL,
        stored_at bigint NOT NULL,
        lease_until bigint NOT NULL,
        owner text NOT NULL,
        PRIMARY KEY (section, client))",
    "CREATE INDEX tenantgate_lookup_time ON tenantgate_lookup (section, stored_at)",
    "INSERT INTO tenantgate_head (one, seq) VALUES (1, 0)",
]];

/// Holds the version. It is made first, outside of the list.
pub(super) const VERSION_TABLE: &str =
    "CREATE TABLE IF NOT EXISTS tenantgate_schema (version bigint PRIMARY KEY)";
