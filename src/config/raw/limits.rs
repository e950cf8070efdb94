use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{DurationText, Field};

#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// The bound of the cache of verified tokens, in bytes.
    #[schemars(range(min = 65_536, max = 1_099_511_627_776_u64))]
    pub token_cache_bytes: Field<u64>,
    /// Connections at once on the check listener. Envoy opens one a worker. Where the process may
    /// open fewer files, the bounds on connections are lowered to fit.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub check_connections: Field<u32>,
    /// The bytes of one check. Envoy sends the request's headers, 60 KiB by default, and bodies
    /// only where its filter has `with_request_body`; then this has to be larger than its
    /// `max_request_bytes`.
    #[schemars(range(min = 16_384, max = 67_108_864))]
    pub check_message_bytes: Field<u32>,
    /// The bytes of all checks that have not arrived whole, together.
    #[schemars(range(min = 65_536, max = 4_294_967_295_u64))]
    pub check_unfinished_bytes: Field<u32>,
    /// Connections at once on the token listener.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub token_connections: Field<u32>,
    /// Failed authentications a minute before one client from one source gets 429; a source as a
    /// whole gets it after ten times as many.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub failures_per_minute: Field<u32>,
    /// How many proxies before the token listener append to `forwarded_header`. 0: the header is
    /// not trusted, and the source is the connection's peer. Behind one Envoy: 1.
    #[schemars(range(min = 0, max = 16))]
    pub trusted_proxies: Field<u32>,
    /// The header that these proxies append to. The other one is not looked at.
    pub forwarded_header: Field<ForwardedHeader>,
    /// Imported (argon2id) secrets that are checked at once.
    #[schemars(range(min = 1, max = 1024))]
    pub slow_hashes: Field<u32>,
    /// When a client that tries foreign tenants is reported.
    pub probing: Field<Probing>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            token_cache_bytes: Field::Value(67_108_864),
            check_connections: Field::Value(1024),
            check_message_bytes: Field::Value(1_048_576),
            check_unfinished_bytes: Field::Value(67_108_864),
            token_connections: Field::Value(512),
            failures_per_minute: Field::Value(30),
            trusted_proxies: Field::Value(0),
            forwarded_header: Field::Value(ForwardedHeader::XForwardedFor),
            slow_hashes: Field::Value(2),
            probing: Field::Value(Probing::default()),
        }
    }
}

#[derive(Clone, Copy, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(inline)]
pub enum ForwardedHeader {
    XForwardedFor,
    Forwarded,
}

#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Probing {
    /// How many different foreign tenants one client may ask for within `window`.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub tenants: Field<u32>,
    /// The window.
    pub window: Field<DurationText>,
    /// Answer 429 until the window has passed, instead of only reporting.
    pub throttle: Field<bool>,
}

impl Default for Probing {
    fn default() -> Self {
        Self {
            tenants: Field::Value(20),
            window: Field::Value("1m".into()),
            throttle: Field::Value(false),
        }
    }
}
