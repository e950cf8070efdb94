//! tenantgate: external authorization for Envoy that makes an API multi-tenant safe, and the
//! OAuth 2.0 token endpoint that goes with it. ARCHITECTURE.md shows the rooms.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

// tests/support/ is written for whoever uses the crate.
#[cfg(test)]
extern crate self as tenantgate;

#[cfg(feature = "cli")]
mod admin;
#[cfg(feature = "server")]
pub mod app;
pub mod authz;
#[cfg(feature = "cli")]
#[expect(clippy::print_stdout, clippy::print_stderr, reason = "commands print their results")]
pub mod cli;
#[cfg(feature = "lookup")]
#[cfg_attr(
    not(feature = "cli"),
    expect(dead_code, unused_imports, reason = "the module reads a registry, it edits none")
)]
mod clients;
pub mod config;
pub mod domain;
#[cfg(feature = "lookup")]
pub mod engine;
pub mod feed;
#[cfg_attr(not(feature = "cli"), expect(dead_code, reason = "the module writes no files"))]
mod files;
pub mod gate;
#[cfg(feature = "lookup")]
mod grants;
#[cfg(feature = "lookup")]
pub mod keys;
pub mod lifecycle;
#[cfg(feature = "cli")]
mod lint;
#[cfg(feature = "lookup")]
pub mod lookup;
#[cfg(feature = "lookup")]
mod outbound;
#[cfg(feature = "server")]
pub mod serve;
#[cfg(feature = "lookup")]
mod sources;
#[cfg(feature = "lookup")]
#[cfg_attr(not(feature = "state"), expect(dead_code, reason = "nothing is stored"))]
pub mod state;
pub mod telemetry;
#[cfg(feature = "mint")]
pub mod token;
mod yaml;
