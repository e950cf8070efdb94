//! The client-credentials grant: form -> client authentication -> standing -> grants -> narrowing -> token.

mod credentials;
mod error;
mod form;
mod grant;
mod mint;
mod throttle;
mod withdrawn;

pub use credentials::{Presented, Source};
pub use error::TokenError;
pub use form::{MAX_FORM, TokenForm};
pub use grant::{Issued, TokenService};
pub use mint::{ClaimForm, MintContext};
pub use throttle::Throttle;
