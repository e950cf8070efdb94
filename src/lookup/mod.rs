//! Asking the provider which tenants have authorised a client: over HTTP or gRPC, with the lookup's
//! own OAuth token, within limits of time, tries and concurrency. Nothing is remembered here.

mod answer;
mod callout_token;
mod directory;
mod flight;
mod grpc;
mod http;
mod inquiry;
mod links;
mod outbound;
mod pages;
mod remote;
mod request;
mod select;
mod shape;
mod step;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod token_request;
mod unavailable;
mod walk;

/// The provider's side of the lookup over gRPC, generated from `proto/`.
#[expect(missing_docs, reason = "generated; the proto file describes it")]
pub mod directory_v1 {
    tonic::include_proto!("tenantgate.directory.v1");
}

pub use answer::{Answer, Grants};
pub use callout_token::TokenHealth;
pub use directory::Directory;
pub use flight::{Flight, Joined, lock};
pub use inquiry::Question;
pub use select::{Listed, Selector};
pub use shape::Body;
pub use step::{Step, StepObserver};
pub use unavailable::{CalloutTokenError, TlsFault, Unavailable};
