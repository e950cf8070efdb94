use std::num::NonZeroU32;

use crate::authz::Probing;
use crate::config::reader::Reader;
use crate::config::{ForwardedHeader, Limits, raw};
use crate::yaml::Field;

pub fn parse(reader: &mut Reader, limits: Field<raw::Limits>) -> Option<Limits> {
    let limits = limits.value()?;
    let probing = limits.probing.value().and_then(|probing| {
        let window = reader.positive_duration("limits.probing.window", probing.window);
        Some(Probing {
            tenants: probing.tenants.value()?,
            window: window?,
            throttle: probing.throttle.value()?,
        })
    });
    Some(Limits {
        token_cache_bytes: limits.token_cache_bytes.value()?,
        check_connections: usize::try_from(limits.check_connections.value()?).ok()?,
        check_message_bytes: usize::try_from(limits.check_message_bytes.value()?).ok()?,
        check_unfinished_bytes: usize::try_from(limits.check_unfinished_bytes.value()?).ok()?,
        token_connections: usize::try_from(limits.token_connections.value()?).ok()?,
        failures_per_minute: NonZeroU32::new(limits.failures_per_minute.value()?)?,
        trusted_proxies: usize::try_from(limits.trusted_proxies.value()?).ok()?,
        forwarded_header: match limits.forwarded_header.value()? {
            raw::ForwardedHeader::XForwardedFor => ForwardedHeader::XForwardedFor,
            raw::ForwardedHeader::Forwarded => ForwardedHeader::Forwarded,
        },
        slow_hashes: usize::try_from(limits.slow_hashes.value()?).ok()?,
        probing: probing?,
    })
}
