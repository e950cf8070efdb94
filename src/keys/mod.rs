//! Keys: those that sign our tokens, and the public ones of other issuers.

mod ignored;
mod jwks;
mod key_pair;
mod remote;
mod signing;
pub mod store;

pub use ignored::ignored_files;
pub use jwks::{FileKeys, WantedKeys, parse_jwks, read_jwks_file, tell_skipped};
pub use key_pair::{KeyPair, PrivateKeyError, SignError, SigningAlgorithm};
pub use remote::{FetchStatus, KeysOf, Location, RemoteKeys, key_client};
pub use signing::{LoadedKeys, Need, Signer, SigningKeys};
