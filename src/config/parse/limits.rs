use std::num::NonZeroU32;

use crate::authz::Probing;
use crate::config::reader::Reader;
use crate::config::{ForwardedHeader, Limits, raw};

pub fn parse(reader: &mut Reader, limits: Option<raw::Limits>) -> Option<Limits> {
    let limits = limits?;
    let probing = limits.probing.and_then(|probing| {
        let window = reader.positive_duration("limits.probing.window", probing.window);
        Some(Probing { tenants: probing.tenants?, window: window?, throttle: probing.throttle? })
    });
    Some(Limits {
        token_cache_bytes: limits.token_cache_bytes?,
        check_connections: usize::try_from(limits.check_connections?).ok()?,
        check_message_bytes: usize::try_from(limits.check_message_bytes?).ok()?,
        check_unfinished_bytes: usize::try_from(limits.check_unfinished_bytes?).ok()?,
        token_connections: usize::try_from(limits.token_connections?).ok()?,
        failures_per_minute: NonZeroU32::new(limits.failures_per_minute?)?,
        trusted_proxies: usize::try_from(limits.trusted_proxies?).ok()?,
        forwarded_header: match limits.forwarded_header? {
            raw::ForwardedHeader::XForwardedFor => ForwardedHeader::XForwardedFor,
            raw::ForwardedHeader::Forwarded => ForwardedHeader::Forwarded,
        },
        slow_hashes: usize::try_from(limits.slow_hashes?).ok()?,
        probing: probing?,
    })
}
