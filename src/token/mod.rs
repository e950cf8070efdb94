//! The client-credentials grant (RFC 6749, section 4.4): form -> client authentication -> standing
//! -> grants -> narrowing -> token.

mod audit;
mod credentials;
mod error;
mod form;
mod grant;
mod mint;
mod refusal;
mod throttle;
mod withdrawn;

pub use credentials::presented;
pub use error::TokenError;
pub use form::{MAX_FORM, TokenForm};
pub use grant::{Arrival, Issued, TokenQuestion, TokenRequest, TokenService};
pub use refusal::{Cause, Refusal};
pub use throttle::Throttle;
