use std::time::Duration;

use super::lookup;
use crate::config::reader::Reader;
use crate::config::{
    Freshness, Lookup, LookupLimits, MassAction, MassWithdrawal, OnMiss, Tenants, raw,
};
use crate::yaml::Field;

pub fn parse(
    reader: &mut Reader,
    tenants: Field<raw::Tenants>,
    tenant_claim: Option<&str>,
) -> Option<Tenants> {
    let tenants = tenants.value()?;
    let freshness = tenants.freshness.value().and_then(|freshness| fresh(reader, freshness));
    let lookup = tenants.lookup.value().and_then(|lookup| match lookup {
        raw::Lookup::Word(raw::StaticWord::Static) => Some(Lookup::Static),
        raw::Lookup::Remote(remote) => lookup::parse(reader, remote, tenant_claim),
    });
    let on_miss = tenants.on_miss.value().map(|on_miss| match on_miss {
        raw::OnMiss::Deny => OnMiss::Deny,
        raw::OnMiss::Lookup => OnMiss::Lookup,
    });
    if on_miss == Some(OnMiss::Lookup) {
        if lookup == Some(Lookup::Static) {
            reader.problem(
                "tenants.on_miss",
                "`lookup` has no effect with `lookup: static`",
                "remove it, or configure a lookup",
            );
        }
        if freshness == Some(Freshness::Token) {
            reader.problem(
                "tenants.on_miss",
                "`lookup` has no effect with `freshness: token`",
                "remove it, or let grants be kept fresh",
            );
        }
    }
    let mass_withdrawal = tenants.mass_withdrawal.value().and_then(mass_withdrawal);
    let (freshness, mut lookup) = (freshness?, lookup?);
    if let Freshness::Lookup { max_age, .. } = freshness {
        match &mut lookup {
            Lookup::Static => {}
            Lookup::Http(http) => cap(reader, &mut http.limits, max_age),
            Lookup::Grpc(grpc) => cap(reader, &mut grpc.limits, max_age),
        }
    }
    let (on_miss, mass_withdrawal) = (on_miss?, mass_withdrawal?);
    // What the state makes of it is known later.
    Some(Tenants { freshness, lookup, on_miss, shared: false, mass_withdrawal })
}

fn mass_withdrawal(rule: raw::MassWithdrawal) -> Option<MassWithdrawal> {
    Some(MassWithdrawal {
        share: rule.share.value()?,
        at_least: usize::try_from(rule.at_least.value()?).ok()?,
        action: match rule.action.value()? {
            raw::MassAction::Apply => MassAction::Apply,
            raw::MassAction::Hold => MassAction::Hold,
        },
    })
}

/// A mint with an older answer would vouch for grants longer than `max_age` allows.
fn cap(reader: &mut Reader, limits: &mut LookupLimits, max_age: Duration) {
    if limits.stale_while_revalidate > max_age {
        reader.problem(
            "tenants.lookup.stale_while_revalidate",
            "is longer than `tenants.freshness.max_age`",
            "shorten it",
        );
    }
    limits.cache_ttl = limits.cache_ttl.min(max_age);
    limits.stale_while_revalidate = limits.stale_while_revalidate.min(max_age - limits.cache_ttl);
}

fn fresh(reader: &mut Reader, freshness: raw::Freshness) -> Option<Freshness> {
    let raw::Fresh { refresh, max_age } = match freshness {
        raw::Freshness::Word(raw::TokenWord::Token) => return Some(Freshness::Token),
        raw::Freshness::Lookup(fresh) => fresh,
    };
    let refresh = reader.positive_duration("tenants.freshness.refresh", refresh);
    let max_age = reader.positive_duration("tenants.freshness.max_age", max_age);
    let (refresh, max_age) = (refresh?, max_age?);
    if refresh >= max_age {
        reader.problem(
            "tenants.freshness.refresh",
            "is not shorter than \
                                                     `tenants.freshness.max_age`: grants would go \
                                                     stale between two lookups",
            "shorten it, or raise `max_age`",
        );
        return None;
    }
    Some(Freshness::Lookup { refresh, max_age })
}
