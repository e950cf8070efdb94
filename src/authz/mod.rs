//! The decision. Only this module can make a [`Permit`], and only a permit becomes an OK.

mod bearer;
mod credential;
mod decide;
mod facts;
mod in_words;
mod issuer;
mod json;
mod jwt;
pub mod path;
mod probing;
pub mod route;
mod snapshot;
mod tenant;
#[cfg(test)]
pub(crate) mod tests;
pub mod trust;
mod withdrawn;

pub use bearer::{BearerHeader, HeaderValue, Headers};
pub use decide::{
    Authorizer, Bearer, CheckInput, Denied, Hint, Identified, Identity, Observer, Outcome, Permit,
    ShadowPass, Verdict,
};
pub use facts::{Facts, FactsCache};
pub use in_words::nearest_route;
pub use issuer::{IssuerPolicy, TenantsOf, Trust};
pub use probing::{ProbeWatch, Probing};
pub use snapshot::{Api, Apis, FreshnessRule, Route, Snapshot, Variable};
