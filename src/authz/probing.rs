use std::time::Duration;

use dashmap::DashMap;

use crate::domain::{Holder, Monotonic, TenantDigest};

/// How many different foreign tenants one client may ask for within a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probing {
    /// Up to this many different tenants are not reported; one more is.
    pub tenants: u32,
    /// Starts with a client's first refused tenant; after it the count starts again.
    pub window: Duration,
    /// Answer 429 instead of 403 for the rest of the window. Requests for tenants that the client
    /// holds still pass: probing in its name must not stop its own traffic.
    pub throttle: bool,
}

/// Clients watched at once. More than this probing at a time is one attack, and noticed anyway.
const CLIENTS: usize = 10_000;

/// Remembers which foreign tenants each client recently asked for. Only denials touch it.
#[derive(Default)]
pub struct ProbeWatch(DashMap<(Box<str>, Box<str>), Window>);

struct Window {
    started: Monotonic,
    tenants: Vec<TenantDigest>,
    warned: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probe {
    Few,
    /// The limit was passed just now: worth a log line.
    Noticed,
    Many,
}

impl ProbeWatch {
    /// Counts a refused tenant. When too many clients are watched, a new one is not counted.
    pub fn note(
        &self,
        rule: &Probing,
        who: Holder<'_>,
        tenant: TenantDigest,
        now: Monotonic,
    ) -> Probe {
        // One name at two issuers is two clients.
        let who = (who.issuer.into(), who.client.into());
        if self.0.len() >= CLIENTS && !self.0.contains_key(&who) {
            self.0.retain(|_, window| now.since(window.started) < rule.window);
            if self.0.len() >= CLIENTS {
                return Probe::Few;
            }
        }
        let fresh = || Window { started: now, tenants: Vec::new(), warned: false };
        let mut window = self.0.entry(who).or_insert_with(fresh);
        if now.since(window.started) >= rule.window {
            *window = fresh();
        }
        if window.tenants.len() <= rule.tenants as usize && !window.tenants.contains(&tenant) {
            window.tenants.push(tenant);
        }
        if window.tenants.len() <= rule.tenants as usize {
            return Probe::Few;
        }
        if std::mem::replace(&mut window.warned, true) { Probe::Many } else { Probe::Noticed }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::TenantDigester;

    const RULE: Probing = Probing { tenants: 2, window: Duration::from_secs(60), throttle: true };
    const NOW: Monotonic = Monotonic::from_secs(1_000);

    fn ask(watch: &ProbeWatch, client: &str, code: &str, now: Monotonic) -> Probe {
        let holder = Holder { issuer: "i", client };
        let digest = TenantDigester::new(&[1; 32], None).current(holder, code);
        watch.note(&RULE, holder, digest, now)
    }

    #[test]
    fn different_tenants_within_a_window_are_noticed_once() {
        let watch = ProbeWatch::default();
        for _ in 0..10 {
            assert_eq!(ask(&watch, "a", "T1", NOW), Probe::Few);
        }
        assert_eq!(ask(&watch, "a", "T2", NOW), Probe::Few);
        assert_eq!(ask(&watch, "a", "T3", NOW), Probe::Noticed);
        assert_eq!(ask(&watch, "a", "T4", NOW), Probe::Many);
        assert_eq!(ask(&watch, "a", "T1", NOW), Probe::Many);
        assert_eq!(ask(&watch, "b", "T1", NOW), Probe::Few);
        let later = NOW.plus(RULE.window);
        assert_eq!(ask(&watch, "a", "T4", later), Probe::Few);
    }

    #[test]
    fn no_more_tenants_are_remembered_than_are_needed() {
        let watch = ProbeWatch::default();
        for number in 0..100 {
            ask(&watch, "a", &format!("T{number}"), NOW);
        }
        let remembered = watch.0.iter().map(|window| window.tenants.len()).sum::<usize>();
        assert_eq!(remembered, RULE.tenants as usize + 1);
    }

    #[test]
    fn the_number_of_watched_clients_is_bounded() {
        let watch = ProbeWatch::default();
        for client in 0..CLIENTS + 100 {
            ask(&watch, &format!("c{client}"), "T1", NOW);
        }
        assert_eq!(watch.0.len(), CLIENTS);
        ask(&watch, "later", "T1", NOW.plus(RULE.window));
        assert_eq!(watch.0.len(), 1);
    }
}
