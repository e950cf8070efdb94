//! Grants that stay fresh while tokens live.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::config::{Freshness, Lookup, MassAction};
use crate::domain::{Clock as _, GrantBook as _, Moment};

use super::super::refresh::LoadWatch;
use super::super::testing::*;
use super::SECOND;

/// Runs the background work of `bench` until dropped.
struct Running(CancellationToken);

impl Running {
    fn start(bench: &Bench) -> Self {
        let shutdown = CancellationToken::new();
        tokio::spawn(Arc::clone(&bench.tenants).run(shutdown.clone()));
        Self(shutdown)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

impl Bench {
    fn check(&self, id: &str) {
        self.tenants.cell(&client(id)).touch(self.clock.monotonic());
    }

    fn known(&self, id: &str) -> Option<usize> {
        self.tenants.cell(&client(id)).current().as_ref().map(|set| set.codes.len())
    }
}

/// Long enough for a scan of an instance whose `refresh` is short.
const SOON: Duration = Duration::from_millis(400);

const MAX_AGE: Duration = Duration::from_secs(300);

fn bench(provider: &Provider) -> Bench {
    let freshness = Freshness::Lookup { refresh: SECOND, max_age: MAX_AGE };
    Bench::with(&Lookup::Http(Box::new(http_lookup(provider))), freshness)
}

#[tokio::test]
async fn an_active_client_is_looked_up_again_and_an_idle_one_is_not() {
    let provider = Provider::start(|_, nth| match nth {
        0 => tenants(&["T1", "T2"]),
        1 => tenants(&["T1"]),
        _ => tenants(&[]),
    })
    .await;
    let bench = bench(&provider);
    // A mint counts: the token may be used at any time, and be withdrawn before.
    bench.tenants.grants(&client("acme")).await;
    let _running = Running::start(&bench);
    bench.clock.advance(Duration::from_millis(890));
    tokio::time::sleep(SOON).await;
    assert_eq!(bench.known("acme"), Some(2), "not due before nine tenths of `refresh`");
    bench.clock.advance(Duration::from_millis(220));
    until("the refresh", || bench.known("acme") == Some(1)).await;
    bench.clock.advance(MAX_AGE - 2 * SECOND);
    until("a denial, long after the mint", || bench.known("acme") == Some(0)).await;

    // Unused for `max_age` it falls idle, and wakes up with the next check.
    bench.clock.advance(10 * SECOND);
    tokio::time::sleep(SOON).await;
    assert_eq!(provider.lookups_of("acme"), 3);
    bench.check("acme");
    until("the lookup after waking up", || provider.lookups_of("acme") == 4).await;
}

#[tokio::test]
async fn a_failing_provider_leaves_the_set_alone_and_its_recovery_is_noticed() {
    let down = Arc::new(AtomicBool::new(false));
    let switch = Arc::clone(&down);
    let provider = Provider::start(move |_, _| match switch.load(Ordering::SeqCst) {
        true => answer(400, &[], ""),
        false => tenants(&["T1"]),
    })
    .await;
    let bench = bench(&provider);
    bench.tenants.grants(&client("acme")).await;
    let _running = Running::start(&bench);
    down.store(true, Ordering::SeqCst);
    for failures in 1..=8 {
        bench.clock.advance(4 * SECOND);
        bench.check("acme");
        until("a failed refresh", || bench.lookups("unexpected_status") == failures).await;
    }
    tokio::time::sleep(SOON).await;
    assert_eq!(bench.lookups("unexpected_status"), 8, "backs off");
    let cell = bench.tenants.cell(&client("acme"));
    let looked_up_at = || cell.current().as_ref().map(|set| set.looked_up_at);
    assert_eq!(looked_up_at(), Some(Moment::of(START).monotonic));
    down.store(false, Ordering::SeqCst);
    bench.clock.advance(4 * SECOND);
    bench.check("acme");
    until("the recovery", || looked_up_at() == Some(bench.clock.monotonic())).await;
}

#[tokio::test]
async fn a_provider_that_is_down_is_only_probed_and_its_recovery_is_noticed() {
    let down = Arc::new(AtomicBool::new(true));
    let switch = Arc::clone(&down);
    let provider = Provider::start(move |_, _| match switch.load(Ordering::SeqCst) {
        true => answer(500, &[], ""),
        false => tenants(&["T1"]),
    })
    .await;
    let mut lookup = http_lookup(&provider);
    lookup.limits.max_tries = 1;
    let bench = Bench::new(lookup);
    for n in 0..20 {
        bench.check(&format!("c{n}"));
    }
    for n in 0..3 {
        bench.tenants.grants(&client(&format!("c{n}"))).await;
    }
    play(&bench, 1, async || ()).await;
    assert_eq!(bench.lookups("server_error"), 3 + 2);
    down.store(false, Ordering::SeqCst);
    play(&bench, 2, async || ()).await;
    let known = (0..20).filter(|n| bench.known(&format!("c{n}")).is_some()).count();
    assert!(known >= 15, "all whose own backoff is over: {known}");
}

#[tokio::test]
async fn a_failing_client_s_mints_obey_its_backoff_and_take_no_retries() {
    let down = Arc::new(AtomicBool::new(true));
    let switch = Arc::clone(&down);
    let provider = Provider::start(move |seen, nth| match seen.target == path_of("bad") {
        true if switch.load(Ordering::SeqCst) => answer(500, &[], ""),
        // All other clients need a retry now and then.
        false if nth == 0 => answer(500, &[], ""),
        _ => tenants(&["T1"]),
    })
    .await;
    let bench = Bench::new(http_lookup(&provider));
    for n in 0..25 {
        mint_all_the_time(&bench, "bad");
        let good = bench.tenants.grants(&client(&format!("c{n}"))).await;
        assert_eq!(good.as_str(), "granted", "client {n}");
        bench.clock.advance(SECOND);
    }
    // Three tries of the first lookup, then one a backoff of 2 to 4 s.
    let asked = provider.lookups_of("bad");
    assert!((5..=20).contains(&asked), "{asked}");
    down.store(false, Ordering::SeqCst);
    bench.clock.advance(4 * SECOND);
    assert_eq!(bench.tenants.grants(&client("bad")).await.as_str(), "granted");
}

#[tokio::test]
async fn a_mint_waits_for_the_end_of_a_short_backoff() {
    let provider = Provider::start(|_, nth| match nth {
        0 => answer(410, &[], ""),
        _ => tenants(&["T1"]),
    })
    .await;
    let bench = Bench::new(http_lookup(&provider));
    let acme = client("acme");
    assert_eq!(bench.tenants.grants(&acme).await.as_str(), "unexpected_status");
    let clock = Arc::clone(&bench.clock);
    tokio::spawn(async move {
        tokio::time::sleep(SECOND / 10).await;
        clock.advance(SECOND / 2);
    });
    assert_eq!(bench.tenants.grants(&acme).await.as_str(), "granted");
}

#[tokio::test]
async fn more_active_clients_than_can_be_kept_fresh_are_told_before() {
    let provider = Provider::start(|_, _| slow(SECOND / 20, tenants(&["T1"]))).await;
    let mut lookup = http_lookup(&provider);
    lookup.limits.concurrency = 2;
    let freshness = Freshness::Lookup { refresh: SECOND, max_age: MAX_AGE };
    let bench = Bench::with(&Lookup::Http(Box::new(lookup)), freshness);
    let (settings, mut watch) = (bench.tenants.core.settings.load_full(), LoadWatch::default());
    bench.tenants.grants(&client("c0")).await;
    bench.tenants.watch_load(&settings, &mut watch);
    let load = bench.metrics.refresh_load.get();
    assert!((0.05..0.2).contains(&load), "{load}");
    assert!(!watch.has_warned());
    for n in 1..30 {
        bench.check(&format!("c{n}"));
    }
    bench.clock.advance(10 * SECOND);
    bench.tenants.watch_load(&settings, &mut watch);
    assert_eq!(bench.metrics.active_clients.get(), 30);
    assert!(bench.metrics.refresh_load.get() >= 1.0);
    assert!(watch.has_warned());
}

#[tokio::test]
async fn a_hint_looks_an_unknown_client_up_once() {
    let provider = Provider::start(|_, _| slow(SECOND / 5, tenants(&["T1"]))).await;
    let bench = Bench::new(http_lookup(&provider));
    let _running = Running::start(&bench);
    for _ in 0..100 {
        bench.tenants.hint(&client("acme"));
    }
    until("the lookup", || bench.known("acme") == Some(1)).await;
    bench.tenants.hint(&client("acme"));
    tokio::time::sleep(SOON).await;
    assert_eq!(provider.lookups_of("acme"), 1, "it is fresh");
}

#[tokio::test]
async fn a_hint_that_a_mint_has_answered_meanwhile_costs_nothing() {
    let provider = Provider::start(|_, _| tenants(&["T1"])).await;
    let bench = Bench::new(http_lookup(&provider));
    let acme = client("acme");
    bench.tenants.hint(&acme);
    bench.clock.advance(SECOND);
    bench.tenants.grants(&acme).await;
    let _running = Running::start(&bench);
    tokio::time::sleep(SOON).await;
    assert_eq!(provider.lookups_of("acme"), 1);
    bench.tenants.hint_miss(&acme);
    until("the next hint", || provider.lookups_of("acme") == 2).await;
}

#[tokio::test]
async fn hints_during_an_outage_do_not_become_a_storm() {
    let provider = Provider::start(|_, _| answer(400, &[], "")).await;
    let bench = Bench::new(http_lookup(&provider));
    let _running = Running::start(&bench);
    for _ in 0..20 {
        bench.tenants.hint(&client("acme"));
        tokio::time::sleep(SECOND / 50).await;
    }
    assert_eq!(provider.lookups_of("acme"), 1);
    bench.clock.advance(SECOND);
    bench.tenants.hint(&client("acme"));
    until("the next try", || provider.lookups_of("acme") == 2).await;
}

#[tokio::test]
async fn misses_cause_one_lookup_within_their_budget() {
    let provider = Provider::start(|_, nth| match nth {
        0 => tenants(&["T1"]),
        _ => tenants(&["T1", "T2"]),
    })
    .await;
    let bench = Bench::new(http_lookup(&provider));
    let acme = client("acme");
    bench.tenants.grants(&acme).await;
    let _running = Running::start(&bench);
    bench.clock.advance(SECOND);
    for _ in 0..50 {
        bench.tenants.hint_miss(&acme);
    }
    until("the lookup", || bench.known("acme") == Some(2)).await;
    bench.tenants.hint_miss(&acme);
    tokio::time::sleep(SOON).await;
    assert_eq!(provider.lookups_of("acme"), 2);
    bench.clock.advance(5 * SECOND);
    bench.tenants.hint_miss(&acme);
    until("the next lookup", || provider.lookups_of("acme") == 3).await;
}

#[tokio::test]
async fn without_freshness_hints_do_nothing() {
    let provider = Provider::start(|_, _| tenants(&["T1"])).await;
    let config = Lookup::Http(Box::new(http_lookup(&provider)));
    let bench = Bench::with(&config, Freshness::Token);
    let _running = Running::start(&bench);
    bench.check("acme");
    bench.tenants.hint(&client("acme"));
    bench.tenants.hint_miss(&client("acme"));
    tokio::time::sleep(SOON).await;
    assert_eq!(provider.lookups_of("acme"), 0);
    assert_eq!(bench.tenants.grants(&client("acme")).await.as_str(), "granted");
}

#[tokio::test]
async fn the_cache_is_bounded_and_never_forgets_a_cell_in_use() {
    let provider = Provider::start(|_, _| tenants(&["T1"])).await;
    let bench = Bench::new(http_lookup(&provider));
    let held = bench.tenants.cell(&client("held"));
    for n in 0..10 {
        bench.clock.advance(SECOND);
        bench.tenants.grants(&client(&format!("c{n}"))).await;
    }
    // The tasks of the lookups may still be about to let go of their entries.
    until("the eviction", || {
        bench.tenants.evict(4);
        bench.tenants.entries.len() == 4
    })
    .await;
    assert!(Arc::ptr_eq(&held, &bench.tenants.cell(&client("held"))));
    for n in 7..10 {
        bench.tenants.grants(&client(&format!("c{n}"))).await;
        assert_eq!(provider.lookups_of(&format!("c{n}")), 1, "used last, so kept");
    }
    assert_eq!(bench.metrics.cache_entries.with_label_values(&["grants"]).get(), 4);
}

#[tokio::test]
async fn the_background_work_ends_promptly() {
    let provider = Provider::start(|_, _| slow(30 * SECOND, Vec::new())).await;
    let bench = Bench::new(http_lookup(&provider));
    let shutdown = CancellationToken::new();
    let run = tokio::spawn(Arc::clone(&bench.tenants).run(shutdown.clone()));
    bench.tenants.hint(&client("acme"));
    until("a lookup under way", || provider.lookups_of("acme") == 1).await;
    shutdown.cancel();
    tokio::time::timeout(SECOND, run).await.unwrap().unwrap();
}

/// Plays so many seconds of refreshes, one scan per second; `meanwhile` runs before each. The clock
/// is the manual one.
async fn play(bench: &Bench, seconds: u32, mut meanwhile: impl AsyncFnMut()) {
    for _ in 0..seconds {
        bench.clock.advance(SECOND);
        meanwhile().await;
        bench.tenants.refresh_due(REFRESH, MAX_AGE).await;
        let flying = || bench.tenants.entries.iter().any(|entry| entry.flight.is_running());
        while flying() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

#[tokio::test]
async fn a_clock_that_is_set_back_or_forward_holds_no_lookup_up() {
    for set_to in [START.minus(3600 * SECOND), START.plus(3600 * SECOND)] {
        let provider = Provider::start(|_, _| tenants(&["T1"])).await;
        let bench = Bench::new(http_lookup(&provider));
        let acme = client("acme");
        bench.tenants.grants(&acme).await;
        bench.clock.set(set_to);
        play(&bench, 30, async || ()).await;
        bench.tenants.grants(&acme).await;
        assert_eq!(provider.lookups_of("acme"), 1, "neither sooner");
        play(&bench, 37, async || ()).await;
        assert_eq!(provider.lookups_of("acme"), 2, "nor later");
        bench.clock.advance(REFRESH);
        bench.tenants.grants(&acme).await;
        assert_eq!(provider.lookups_of("acme"), 3, "what a mint remembers grows old too");
    }
}

/// Twenty active clients with grants, none of which has any from `switch` on.
async fn about_to_lose_everything(action: MassAction) -> (Bench, Arc<AtomicBool>) {
    let broken = Arc::new(AtomicBool::new(false));
    let switch = Arc::clone(&broken);
    let provider = Provider::start(move |_, _| match switch.load(Ordering::SeqCst) {
        true => tenants(&[]),
        false => tenants(&["T1"]),
    })
    .await;
    let bench = Bench::new(http_lookup(&provider));
    let current = bench.tenants.core.settings.load_full();
    let mut settings = settings(Arc::clone(&current.directory), current.freshness, 1);
    settings.mass_withdrawal.action = action;
    bench.tenants.reconfigure(settings);
    for n in 0..20 {
        bench.tenants.grants(&client(&format!("c{n}"))).await;
    }
    let settings = bench.tenants.core.settings.load_full();
    bench.tenants.watch_load(&settings, &mut LoadWatch::default());
    (bench, broken)
}

fn granted(bench: &Bench) -> usize {
    (0..20).filter(|n| bench.known(&format!("c{n}")) == Some(1)).count()
}

#[tokio::test]
async fn many_that_lose_everything_at_once_are_told_as_what_it_is() {
    let (bench, broken) = about_to_lose_everything(MassAction::Apply).await;
    broken.store(true, Ordering::SeqCst);
    play(&bench, 67, async || ()).await;
    assert_eq!(granted(&bench), 0, "withdrawals win");
    assert_eq!(bench.metrics.grants_emptied.get(), 20);
    assert_eq!(bench.metrics.grants_lost.get(), 20);
    assert_eq!(bench.metrics.mass_withdrawals.get(), 1, "told once");
}

#[tokio::test]
async fn what_is_held_back_waits_for_a_second_answer_and_gets_no_token() {
    let (bench, broken) = about_to_lose_everything(MassAction::Hold).await;
    broken.store(true, Ordering::SeqCst);
    play(&bench, 67, async || ()).await;
    assert_eq!(granted(&bench), 20);
    let acme = client("c0");
    for _ in 0..3 {
        bench.clock.advance(6 * SECOND);
        assert_eq!(bench.tenants.grants(&acme).await.as_str(), "denied");
        assert_eq!(bench.known("c0"), Some(1), "asked again at once it is no second answer");
    }
    let cell = bench.tenants.cell(&acme);
    let looked_up_at = cell.current().as_ref().unwrap().looked_up_at;
    assert_eq!(looked_up_at, Moment::of(START).monotonic, "it vouches no longer for that");
    play(&bench, 67, async || ()).await;
    assert_eq!(granted(&bench), 0, "the answer was repeated");
    assert_eq!(bench.metrics.mass_withdrawals.get(), 1);
}

#[tokio::test]
async fn what_was_held_back_by_mistake_was_never_gone() {
    let (bench, broken) = about_to_lose_everything(MassAction::Hold).await;
    broken.store(true, Ordering::SeqCst);
    play(&bench, 67, async || ()).await;
    broken.store(false, Ordering::SeqCst);
    play(&bench, 67, async || ()).await;
    assert_eq!(granted(&bench), 20);
    assert_eq!(bench.tenants.grants(&client("c0")).await.as_str(), "granted");
}

#[tokio::test]
async fn a_few_that_lose_everything_are_believed() {
    let provider = Provider::start(|seen, nth| match (seen.target.contains("c1"), nth) {
        (true, 1..) => tenants(&[]),
        _ => tenants(&["T1", "T2"]),
    })
    .await;
    let bench = Bench::new(http_lookup(&provider));
    for n in 0..20 {
        bench.tenants.grants(&client(&format!("c{n}"))).await;
    }
    play(&bench, 67, async || ()).await;
    assert_eq!(bench.metrics.grants_emptied.get(), 11, "c1 and c10 to c19");
    assert_eq!(bench.metrics.grants_lost.get(), 22);
    assert_eq!(bench.metrics.mass_withdrawals.get(), 0, "nobody has counted yet");
}

/// Forty mints of one client, which nothing waits for.
fn mint_all_the_time(bench: &Bench, id: &str) {
    for _ in 0..40 {
        let (tenants, client) = (Arc::clone(&bench.tenants), client(id));
        tokio::spawn(async move { tenants.grants(&client).await });
    }
}

#[tokio::test]
async fn one_client_that_fails_and_mints_all_the_time_holds_nobody_else_back() {
    const ACTIVE: usize = 400;
    let withdrawn = Arc::new(AtomicBool::new(false));
    let switch = Arc::clone(&withdrawn);
    let provider = Provider::start(move |seen, _| {
        if seen.target == path_of("bad") {
            return answer(410, &[], "");
        }
        if switch.load(Ordering::SeqCst) { tenants(&["T1"]) } else { tenants(&["T1", "T2"]) }
    })
    .await;
    let bench = Bench::new(http_lookup(&provider));
    for n in 0..ACTIVE {
        bench.tenants.grants(&client(&format!("c{n}"))).await;
    }
    withdrawn.store(true, Ordering::SeqCst);
    play(&bench, 70, async || mint_all_the_time(&bench, "bad")).await;
    let left = (0..ACTIVE).filter(|n| bench.known(&format!("c{n}")) != Some(1)).count();
    assert_eq!(left, 0, "clients that still hold what was withdrawn");
}
