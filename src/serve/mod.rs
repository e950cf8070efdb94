//! The edges: the only rooms that speak gRPC and HTTP to callers.

mod admin;
mod check;
mod finish;
mod gathering;
mod grpc;
mod http;
mod listener;
mod streams;
mod token;

pub use admin::{AdminState, router as admin_router};
pub use check::{CheckServer, check};
pub use grpc::serve as serve_check;
pub use http::{HttpLimits, serve as serve_http};
pub use listener::{Bound, Listener};
pub use token::router as token_router;
