use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Field, UrlText};

#[derive(Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Telemetry {
    /// OpenTelemetry traces. Left out: none.
    pub traces: Field<Traces>,
}

#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["otlp_grpc"]))]
pub struct Traces {
    /// The collector, OTLP over gRPC, such as `http://127.0.0.1:4317`. A check's span continues the
    /// `traceparent` of the call's metadata, a token request's that of its header; both only where
    /// it is sampled.
    pub otlp_grpc: Field<UrlText>,
    /// Accept plain `http://` for it outside loopback.
    pub allow_http: Field<bool>,
}

impl Default for Traces {
    fn default() -> Self {
        Self { otlp_grpc: Field::Absent, allow_http: Field::Value(false) }
    }
}
