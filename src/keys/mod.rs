//! Keys: those that sign our tokens, and the public ones of other issuers.

mod jwks;
mod key_pair;
mod remote;
mod signing;
pub mod store;

pub use jwks::{parse_jwks, read_jwks_file};
pub use key_pair::{KeyPair, PrivateKeyError, SignError, SigningAlgorithm};
pub use remote::{Location, RemoteKeys};
pub use signing::{Need, Signer, SigningKeys};
