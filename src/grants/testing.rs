//! The grants of clients over a lookup that a test scripts.

use std::sync::Arc;
use std::time::Duration;

use crate::config::{Freshness, HttpLookup, Lookup, MassAction, MassWithdrawal};
use crate::domain::{ManualClock, TenantDigester};
use crate::lookup::Directory;
pub use crate::lookup::testing::*;
use crate::telemetry::{Instruments, Metrics};

use super::{Settings, Tenants};

/// The service, with everything that a test sets or reads.
pub struct Bench {
    pub tenants: Arc<Tenants>,
    pub clock: Arc<ManualClock>,
    pub metrics: Arc<Metrics>,
}

/// As a config without the section.
pub const MASS_APPLIED: MassWithdrawal =
    MassWithdrawal { share: 0.5, at_least: 10, action: MassAction::Apply };

pub const REFRESH: Duration = Duration::from_secs(60);

impl Bench {
    pub fn new(lookup: HttpLookup) -> Self {
        let freshness = Freshness::Lookup { refresh: REFRESH, max_age: Duration::from_secs(300) };
        Self::with(&Lookup::Http(Box::new(lookup)), freshness)
    }

    pub fn with(lookup: &Lookup, freshness: Freshness) -> Self {
        let clock = Arc::new(ManualClock::at(START));
        let metrics = Arc::new(Metrics::new());
        let instruments = Instruments { clock: clock.clone(), metrics: metrics.clone() };
        let directory = Directory::new(lookup, instruments.clone()).unwrap();
        let settings = settings(directory, freshness, 1);
        let tenants = Tenants::new(settings, instruments);
        Self { tenants, clock, metrics }
    }

    pub fn lookups(&self, outcome: &str) -> u64 {
        self.metrics.lookups.with_label_values(&[outcome]).get()
    }
}

pub fn settings(directory: Arc<Directory>, freshness: Freshness, key: u8) -> Settings {
    let digester = Arc::new(TenantDigester::new(&[key; 32], None));
    Settings::new(directory, freshness, digester, "https://i".into(), MASS_APPLIED)
}
