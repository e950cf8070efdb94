//! tenantgate inside Envoy: the decision of the sidecar as a dynamic module, with no call in
//! between. Envoy's side is in `abi`, which holds all that is `unsafe`; the rest is safe code
//! around one [`engine`].

mod abi;
mod config;
mod engine;
mod filter;
mod logs;
