use std::sync::Arc;
use std::time::Duration;

use prost::Message as _;

use super::stage::Stage;
use super::v1::from_sidecar::Message;
use super::{Fed, FeedError, put, v1};
use crate::authz::tests::{NOW, Sent, World, api, bearer, book, client};
use crate::authz::{Apis, CheckInput};
use crate::domain::{
    ClientId, Clock as _, Floor, GrantSet, Holder, ManualClock, Quota, QuotaUnit, Target,
    TenantCode, TenantRefs, TokenRef, Withdrawals, WithdrawnHolder,
};
use crate::gate::{Answer, Request};

const FEED_MAX_AGE: Duration = Duration::from_secs(5);
const SECOND: Duration = Duration::from_secs(1);

fn holder() -> WithdrawnHolder {
    ("https://issuer.test".into(), "acme".into())
}

/// A world with something in every place.
fn full() -> World {
    let mut world = World::typical();
    let refs = TenantRefs::new(&[9; 32]);
    let own = Holder { issuer: "https://issuer.test", client: "static" };
    let codes = vec![TenantCode::parse("T7").unwrap()];
    let grants = Arc::new(GrantSet::of(codes, &world.snapshot.digester, own));
    let mut listed = client("static");
    listed.static_grants = Some(grants);
    listed.quota = Some(Quota { requests_per_unit: 5, unit: QuotaUnit::Hour });
    listed.apis = Some(vec!["oda".to_owned()]);
    listed.tokens_not_before = Some(NOW);
    listed.credentials.clear();
    world.snapshot.clients = book([client("acme"), listed]);
    world.snapshot.apis = Arc::new(Apis::new(vec![api("oda"), api("other")]));
    let all = Withdrawals::new(TenantRefs::new(&[9; 32]));
    all.set_known();
    all.set_ahead(-7);
    let floor = |end| Some(Floor { not_before: NOW.minus(SECOND), expires_at: end });
    for (target, end) in [
        (Target::Grant(refs.of("T9")), None),
        (Target::Token(TokenRef::of("other")), Some(NOW.plus(SECOND))),
        (Target::Tokens, None),
    ] {
        all.set(Holder { issuer: &holder().0, client: &holder().1 }, target, floor(end));
    }
    world.snapshot.withdrawals = Some(Arc::new(all));
    world
}

/// All that is told of a world at the beginning.
fn told(world: &World) -> Vec<Message> {
    let snapshot = &world.snapshot;
    let now = ManualClock::at(NOW).monotonic();
    let mut told = vec![
        Message::Rules(put::rules(snapshot, FEED_MAX_AGE)),
        Message::Keys(put::keys(&snapshot.trust, now)),
    ];
    if let Some(book) = &snapshot.clients {
        let mut put: Vec<_> = book.iter().map(|client| put::client(client)).collect();
        put.sort_by(|a, b| a.id.cmp(&b.id));
        told.push(Message::Clients(v1::Clients { put, removed: Vec::new() }));
    }
    if let Some(all) = &snapshot.withdrawals {
        let from = all.all().iter().map(|(holder, own)| put::withdrawn(holder, own)).collect();
        let (known, ahead_nanos) = (all.is_known(), all.ahead());
        told.push(Message::Withdrawals(v1::Withdrawals { known, ahead_nanos, from }));
    }
    told
}

fn take(fed: &Fed, messages: Vec<Message>, first: bool) -> Result<(), FeedError> {
    take_sent(fed, messages, first, NOW.nanos())
}

fn take_sent(
    fed: &Fed,
    messages: Vec<Message>,
    first: bool,
    sent_at_nanos: u64,
) -> Result<(), FeedError> {
    let mut stage = Stage::default();
    for message in messages {
        assert!(stage.take(v1::FromSidecar { message: Some(message) }, 1)?.is_none());
    }
    fed.commit(stage, v1::Commit { sent_at_nanos }, first)
}

fn grants_of(world: &World, codes: &[&str]) -> v1::Grants {
    world.grant(codes, NOW);
    let cell = crate::domain::GrantBook::cell(&*world.cells, &ClientId::parse("acme").unwrap());
    let now = ManualClock::at(NOW).monotonic();
    v1::Grants { of: vec![put::grants("acme", cell.current().as_ref().unwrap(), true, now)] }
}

fn at_now() -> (Arc<ManualClock>, Fed) {
    let clock = Arc::new(ManualClock::at(NOW));
    let fed = Fed::new(Arc::clone(&clock) as _, 1 << 20);
    (clock, fed)
}

fn status(fed: &Fed, headers: &Sent) -> u16 {
    let target = b"/api/T1/report";
    let input = CheckInput { profile: Some("oda"), method: "GET", target, headers };
    fed.answer(&Request { input, id: b"", trace: None, metadata: true }, |answer| match answer {
        Answer::Allow(_) => 200,
        Answer::Deny(deny) => deny.status,
    })
}

#[test]
fn what_was_told_is_the_same_when_it_is_told_on() {
    let world = full();
    let (_clock, fed) = at_now();
    take(&fed, told(&world), true).unwrap();
    let again = World { snapshot: (*fed.snapshot()).clone(), ..World::typical() };
    assert_eq!(told(&world), told(&again));
}

#[test]
fn nothing_passes_before_the_beginning_nor_when_the_feed_is_old() {
    let (clock, fed) = at_now();
    let world = World::typical();
    let headers = bearer(&world.token());
    assert_eq!(status(&fed, &headers), 503);
    take(&fed, told(&world), true).unwrap();
    assert_eq!(status(&fed, &headers), 200);
    clock.advance(FEED_MAX_AGE);
    assert_eq!(status(&fed, &headers), 200);
    clock.advance(SECOND);
    assert_eq!(status(&fed, &headers), 503);
    // A heartbeat that was written long ago is none.
    take_sent(&fed, Vec::new(), false, NOW.nanos()).unwrap();
    assert_eq!(status(&fed, &headers), 503);
    take_sent(&fed, Vec::new(), false, clock.now().nanos()).unwrap();
    assert_eq!(status(&fed, &headers), 200);
}

#[test]
fn what_is_taken_away_counts_with_its_commit() {
    let (_clock, fed) = at_now();
    let world = World::typical();
    let headers = bearer(&world.token());
    take(&fed, told(&world), true).unwrap();
    take(&fed, vec![Message::Grants(grants_of(&world, &["T1"]))], false).unwrap();
    assert_eq!(status(&fed, &headers), 200);
    take(&fed, vec![Message::Grants(grants_of(&world, &["T2"]))], false).unwrap();
    assert_eq!(status(&fed, &headers), 403);
    take(&fed, vec![Message::Grants(grants_of(&world, &["T1", "T2"]))], false).unwrap();
    let removed = vec!["acme".to_owned()];
    let gone = Message::Clients(v1::Clients { put: Vec::new(), removed });
    take(&fed, vec![gone], false).unwrap();
    assert_eq!(status(&fed, &headers), 401);
}

#[test]
fn of_a_commit_with_anything_wrong_nothing_is_taken() {
    let (_clock, fed) = at_now();
    let world = World::typical();
    let headers = bearer(&world.token());
    take(&fed, told(&world), true).unwrap();
    let other = |change: fn(&mut v1::Rules)| {
        let mut rules = put::rules(&world.snapshot, FEED_MAX_AGE);
        rules.apis.clear();
        change(&mut rules);
        Message::Rules(rules)
    };
    let cut = v1::TenantSet { digests: vec![0; 16] };
    let grant = v1::GrantsOf { client: "acme".into(), tenants: Some(cut), ..Default::default() };
    let unknown = v1::GrantsOf { client: "new".into(), ..Default::default() };
    let key = v1::PublicKey { kid: "k".into(), algorithm: "HS256".into(), key: None };
    let set = v1::KeySet { good_for_millis: None, keys: vec![key] };
    let issuer = v1::Issuer { key_set: Some(set), ..Default::default() };
    let floorless = v1::Target { reference: vec![0; 16], floor: None };
    let from = v1::WithdrawnFrom { grants: vec![floorless], ..Default::default() };
    for wrong in [
        vec![other(|rules| rules.digest_keys.clear())],
        vec![other(|rules| rules.digest_keys[0].truncate(31))],
        vec![other(|rules| rules.probing = None)],
        vec![other(|_| ()), Message::Grants(v1::Grants { of: vec![grant] })],
        vec![other(|_| ()), Message::Grants(v1::Grants { of: vec![unknown] })],
        vec![other(|_| ()), Message::Keys(v1::Keys { issuers: vec![issuer] })],
        vec![
            other(|_| ()),
            Message::Withdrawals(v1::Withdrawals { from: vec![from], ..Default::default() }),
        ],
    ] {
        let told = format!("{} messages", wrong.len());
        assert!(matches!(take(&fed, wrong, false), Err(FeedError::Wrong(_))), "{told}");
        assert_eq!(status(&fed, &headers), 200);
    }
    let begin = vec![Message::Rules(put::rules(&world.snapshot, FEED_MAX_AGE))];
    assert!(take(&fed, begin, true).is_err(), "a beginning without keys");
}

#[test]
fn a_new_connection_forgets_clients_but_no_grant_that_can_be_compared() {
    let (_clock, fed) = at_now();
    let mut world = World::typical();
    let headers = bearer(&world.token());
    take(&fed, told(&world), true).unwrap();
    take(&fed, vec![Message::Grants(grants_of(&world, &["T2"]))], false).unwrap();
    assert_eq!(status(&fed, &headers), 403);
    take(&fed, told(&world), true).unwrap();
    assert_eq!(status(&fed, &headers), 403, "what a lookup has taken away stays so");
    world.snapshot.clients = book([client("other")]);
    take(&fed, told(&world), true).unwrap();
    assert_eq!(status(&fed, &headers), 401);
    // Under another key nothing that was told before can be compared.
    let mut world = World::typical();
    world.snapshot.digester = Arc::new(crate::domain::TenantDigester::new(&[8; 32], None));
    let headers = bearer(&world.token());
    take(&fed, told(&world), true).unwrap();
    assert_eq!(status(&fed, &headers), 200);
}

proptest::proptest! {
    #[test]
    fn a_message_with_other_bytes_is_refused_or_taken_and_never_a_fault(
        which: proptest::sample::Index,
        changes: Vec<(proptest::sample::Index, u8)>,
        cut: proptest::sample::Index,
    ) {
        let (_clock, fed) = at_now();
        let world = full();
        let mut told: Vec<_> = told(&world)
            .into_iter()
            .map(|message| v1::FromSidecar { message: Some(message) }.encode_to_vec())
            .collect();
        let changed = which.index(told.len());
        for (at, byte) in changes {
            let at = at.index(told[changed].len());
            told[changed][at] = byte;
        }
        let length = told[changed].len();
        told[changed].truncate(length - cut.index(2));
        let messages: Result<Vec<_>, _> =
            told.iter().map(|bytes| v1::FromSidecar::decode(&bytes[..])).collect();
        if let Ok(messages) = messages {
            let messages = messages.into_iter().filter_map(|message| message.message);
            // A commit or a hello among them ends it.
            let plain =
                |message: &Message| !matches!(message, Message::Commit(_) | Message::Hello(_));
            let messages: Vec<_> = messages.filter(plain).collect();
            let _ = take(&fed, messages, true);
        }
    }
}
