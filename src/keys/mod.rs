//! Keys: those that sign our tokens, and the public ones of other issuers.

pub mod jwks;
mod key_pair;
pub mod remote;
pub mod signing;
pub mod store;

pub use key_pair::{KeyPair, PrivateKeyError, SignError, SigningAlgorithm};
