//! tenantgate: external authorization for Envoy that makes an API multi-tenant safe, and the
//! OAuth 2.0 token endpoint that goes with it. ARCHITECTURE.md shows the rooms.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

// tests/support/ is written for whoever uses the crate.
#[cfg(test)]
extern crate self as tenantgate;

#[cfg(feature = "server")]
mod admin;
#[cfg(feature = "server")]
pub mod app;
pub mod authz;
#[cfg(feature = "server")]
#[expect(clippy::print_stdout, clippy::print_stderr, reason = "commands print their results")]
pub mod cli;
#[cfg_attr(
    not(feature = "server"),
    expect(dead_code, unused_imports, reason = "the module reads a registry, it edits none")
)]
mod clients;
pub mod config;
pub mod domain;
pub mod engine;
pub mod feed;
#[cfg_attr(not(feature = "server"), expect(dead_code, reason = "the module writes no files"))]
mod files;
pub mod gate;
mod grants;
pub mod keys;
pub mod lifecycle;
#[cfg(feature = "server")]
mod lint;
pub mod lookup;
mod outbound;
#[cfg(feature = "server")]
pub mod serve;
mod sources;
pub mod state;
pub mod telemetry;
pub mod token;
mod yaml;
