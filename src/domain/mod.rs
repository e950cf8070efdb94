//! The words of the project as types. Knows nothing but `std`, a swap cell, durations and waits,
//! and the keyed hash that replaces a tenant code.

mod algorithm;
mod backoff;
mod book;
mod caller;
mod claims;
mod client;
mod deny;
mod duration;
mod grants;
mod ids;
mod meter;
mod problem;
mod quota;
mod references;
mod secret;
mod tenant;
mod time;
mod wish;
mod withdrawals;
mod withdrawn;

/// What `wish` is built on; a model in the tests puts its own in place of it.
mod sync {
    pub use std::sync::atomic::{AtomicBool, Ordering};
}

pub use algorithm::Algorithm;
pub use backoff::Backoff;
pub use book::{ClientBook, ClientChange};
pub use caller::Caller;
pub use claims::{GRANTS_AT, NARROWED, is_reserved_claim};
pub use client::{
    Client, Credential, CredentialDigest, MAX_ACTIVE_CREDENTIALS, Standing, argon2id_cost,
};
pub use deny::DenyReason;
pub use duration::{DurationError, parse_duration};
pub use grants::{Attributes, GrantBook, GrantCell, GrantSet};
pub use ids::{ClientId, ScopeSet, is_scope_token};
pub use meter::Meter;
pub use problem::Problem;
pub use quota::{Quota, QuotaUnit};
pub use references::{TenantRef, TenantRefs, TokenRef};
pub use secret::Secret;
pub use tenant::{
    DIGEST_KEY_LEN, DIGEST_LEN, Holder, TenantCode, TenantDigest, TenantDigester, TenantForm,
    TenantSet, is_tenant_code,
};
pub use time::{Clock, ManualClock, Moment, Monotonic, SystemClock, Timestamp};
pub use withdrawals::{Subject, Withdrawals, WithdrawnHolder};
pub use withdrawn::{
    ClientWithdrawals, Evidence, Floor, GrantEvidence, Target, TokenEvidence, Vouched, Withdrawn,
};
