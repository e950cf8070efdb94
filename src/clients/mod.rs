//! The client registry: `clients.yaml` and who can prove to be one of its clients.

mod authenticate;
mod edit;
mod file;
mod load;
mod queue;
mod secret;

pub use authenticate::{Attempt, Authentication, Authenticator, Presented, Refused};
pub use edit::{EditError, IfMissing, add, edit, revoke, revoke_tokens, rotate, state};
pub use file::{
    RawClient, RawClientStatus, RawCredential, RawCredentialStatus, RawDeveloper,
    RawDeveloperStatus, RawQuota, RawQuotaUnit, RawRegistry, read,
};
pub use load::{LoadContext, LoadedClients, check, load, parse_token_ttl};
pub use secret::{digest_generated, digest_imported, generate};
