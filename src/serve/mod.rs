//! The edges: the only rooms that speak gRPC and HTTP to callers.

mod accept;
mod admin;
mod check;
mod connections;
mod descriptors;
mod feed;
mod finish;
mod grpc;
mod http;
mod listener;
mod management;
mod message_body;
mod peer;
mod questions;
mod source;
mod streams;
mod tls;
mod token;

pub use accept::Entrance;
pub use admin::{AdminState, router as admin_router};
pub use check::{CheckServer, check};
pub use connections::{Connections, Patience};
pub use descriptors::{fit, raise_limit};
pub use feed::serve as serve_feed;
pub use grpc::{CheckEdge, serve as serve_check};
pub use http::{HttpLimits, serve as serve_http};
pub use listener::{Bound, Listener};
pub use management::router as management_router;
pub use message_body::MessageLimits;
pub use source::ForwardedBy;
pub use tls::{Protocols, Tls};
pub use token::router as token_router;
