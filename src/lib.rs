//! tenantgate: external authorization for Envoy that makes an API multi-tenant safe, and the
//! OAuth 2.0 token endpoint that goes with it. ARCHITECTURE.md shows the rooms.

pub mod authz;
pub mod domain;
pub mod lifecycle;
pub mod telemetry;
