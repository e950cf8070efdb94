use std::net::{IpAddr, Ipv4Addr};
use std::sync::Mutex;
use std::sync::mpsc;

use super::*;
use crate::domain::{ClientId, Credential};

const NOW: Timestamp = Timestamp::from_secs(1_000);
const COST: &str = "$argon2id$v=19$m=8,t=1,p=1";
const OTHER_COST: &str = "$argon2id$v=19$m=64,t=1,p=1";

/// "Hashes" by comparing the secret with the salt field, and notes what it was asked.
#[derive(Default)]
struct Counting(Mutex<Vec<String>>);

impl SlowHasher for Counting {
    fn matches(&self, secret: &Secret, phc: &str) -> bool {
        self.0.lock().unwrap().push(argon2id_cost(phc).to_owned());
        phc.rsplit('$').nth(1) == Some(secret.expose())
    }
}

const CALLER: Caller = Caller(IpAddr::V4(Ipv4Addr::LOCALHOST));

fn presented(id: &str, secret: &str) -> Presented {
    Presented { id: id.into(), secret: Secret::new(secret) }
}

async fn try_once(
    authenticator: &Authenticator,
    book: &ClientBook,
    (id, secret): (&str, &str),
    now: Timestamp,
) -> Authentication {
    let readings = [presented(id, secret)];
    let attempt = Attempt { readings: &readings, caller: CALLER, now };
    authenticator.authenticate(book, attempt, || Ok(())).await
}

fn imported(cost: &str, secret: &str) -> Credential {
    let digest = CredentialDigest::Argon2id(format!("{cost}${secret}$hash"));
    Credential { digest, active: true, expires_at: None }
}

fn generated(secret: &str) -> Credential {
    let digest = CredentialDigest::Sha256(CredentialDigest::sha256_of(secret));
    Credential { digest, active: true, expires_at: None }
}

fn revoked(credential: Credential) -> Credential {
    Credential { active: false, ..credential }
}

fn expired(credential: Credential) -> Credential {
    Credential { expires_at: Some(NOW), ..credential }
}

fn client(id: &str, credentials: Vec<Credential>) -> Client {
    Client { approved: true, credentials, ..Client::new(ClientId::parse(id).unwrap()) }
}

fn book(clients: impl IntoIterator<Item = Client>) -> ClientBook {
    clients.into_iter().collect()
}

fn mixed() -> ClientBook {
    book([
        client("generated", vec![generated("g1"), generated("g2")]),
        client("generated-dead", vec![revoked(generated("old")), expired(generated("late"))]),
        client("imported", vec![imported(COST, "i1")]),
        client("imported-two", vec![imported(COST, "i1"), imported(COST, "i2")]),
        client(
            "imported-dead",
            vec![revoked(imported(COST, "old")), expired(imported(COST, "late"))],
        ),
        client("imported-other", vec![imported(OTHER_COST, "o1"), generated("o2")]),
        client("bare", vec![]),
    ])
}

/// The answer, and the cost of every slow hash that was computed for it.
async fn attempt(book: &ClientBook, id: &str, secret: &str) -> (Option<String>, Vec<String>) {
    let counting = Arc::new(Counting::default());
    let authenticator = Authenticator::with_hasher(1, counting.clone());
    let answer = try_once(&authenticator, book, (id, secret), NOW).await;
    let verified = match answer {
        Authentication::Verified(client) => Some(client.id.to_string()),
        Authentication::Refused(_) | Authentication::Throttled(_) => None,
        Authentication::Busy => panic!("busy"),
    };
    let mut work = counting.0.lock().unwrap().clone();
    work.sort();
    (verified, work)
}

#[tokio::test]
async fn every_failure_does_the_same_work() {
    let book = mixed();
    for (id, secret) in [
        ("unknown", "g1"),
        ("", ""),
        ("generated", "wrong"),
        ("generated", "i1"),
        ("generated-dead", "old"),
        ("generated-dead", "late"),
        ("imported", "wrong"),
        ("imported", "g1"),
        ("imported-two", "wrong"),
        ("imported-dead", "old"),
        ("imported-dead", "late"),
        ("imported-other", "wrong"),
        ("bare", "wrong"),
        ("bare", ""),
    ] {
        let (verified, work) = attempt(&book, id, secret).await;
        assert_eq!(verified, None, "{id} {secret}");
        assert_eq!(work, [OTHER_COST, COST, COST], "{id} {secret}");
    }
}

#[tokio::test]
async fn every_usable_credential_passes_and_generated_ones_never_wait_for_slow_hashes() {
    let book = mixed();
    for (id, secret, most_work) in [
        ("generated", "g1", 0),
        ("generated", "g2", 0),
        ("imported-other", "o2", 0),
        ("imported", "i1", 1),
        ("imported-two", "i1", 1),
        ("imported-two", "i2", 2),
        ("imported-other", "o1", 1),
    ] {
        let (verified, work) = attempt(&book, id, secret).await;
        assert_eq!(verified.as_deref(), Some(id));
        assert_eq!(work.len(), most_work, "{id} {secret}");
    }
}

#[tokio::test]
async fn a_registry_without_imported_credentials_never_hashes_slowly() {
    let book = book([client("a", vec![generated("g")])]);
    for id in ["a", "unknown"] {
        assert_eq!(attempt(&book, id, "wrong").await, (None, vec![]));
    }
}

#[tokio::test]
async fn a_success_is_remembered_until_the_credential_changes_or_ends() {
    let counting = Arc::new(Counting::default());
    let authenticator = Authenticator::with_hasher(1, counting.clone());
    let at = |book: ClientBook, secret: &'static str, now| {
        let authenticator = &authenticator;
        async move {
            let secret = Secret::new(secret);
            let answer = try_once(authenticator, &book, ("a", secret.expose()), now).await;
            matches!(answer, Authentication::Verified(_))
        }
    };
    let computed = || counting.0.lock().unwrap().len();
    let ending = || Credential { expires_at: Some(NOW), ..imported(COST, "s") };
    let before = Timestamp::from_secs(999);

    assert!(at(book([client("a", vec![ending()])]), "s", before).await);
    assert!(at(book([client("a", vec![ending()])]), "s", before).await);
    assert_eq!(computed(), 1);
    assert!(!at(book([client("a", vec![ending()])]), "wrong", before).await);
    assert_eq!(computed(), 2);
    assert!(!at(book([client("a", vec![ending()])]), "s", NOW).await, "expired");
    assert!(!at(book([client("a", vec![revoked(ending())])]), "s", before).await, "revoked");
    assert!(!at(book([client("a", vec![imported(COST, "t")])]), "s", before).await, "replaced");
}

#[tokio::test]
async fn slow_hashes_take_turns_and_generated_credentials_wait_for_none() {
    struct Waiting(Mutex<mpsc::Receiver<()>>);
    impl SlowHasher for Waiting {
        fn matches(&self, _: &Secret, _: &str) -> bool {
            self.0.lock().unwrap().recv().is_ok()
        }
    }
    let (release, wait) = mpsc::channel();
    let authenticator =
        Arc::new(Authenticator::with_hasher(1, Arc::new(Waiting(Mutex::new(wait)))));
    let book = Arc::new(mixed());
    let start = |id: &'static str, secret: &'static str| {
        let (authenticator, book) = (authenticator.clone(), book.clone());
        tokio::spawn(async move { try_once(&authenticator, &book, (id, secret), NOW).await })
    };

    let hung_up = start("imported", "i1");
    while authenticator.slots.free() > 0 {
        tokio::task::yield_now().await;
    }
    hung_up.abort();
    assert!(hung_up.await.is_err());
    let waiting = start("imported", "i1");
    let answer = start("generated", "g1").await.unwrap();
    assert!(matches!(answer, Authentication::Verified(_)));
    assert!(!waiting.is_finished());
    release.send(()).unwrap();
    release.send(()).unwrap();
    assert!(matches!(waiting.await.unwrap(), Authentication::Verified(_)));
}

#[tokio::test]
async fn a_refusal_knows_its_cause_and_any_reading_may_be_right() {
    let revoked_one = Credential { active: false, ..generated("revoked") };
    let expired = Credential { expires_at: Some(NOW), ..generated("expired") };
    let book = book([
        client("a", vec![generated("right"), revoked_one, expired]),
        client("dead", vec![revoked(imported(COST, "x"))]),
    ]);
    let authenticator = Authenticator::new(1);
    let refused =
        async |id: &str, secret: &str| match try_once(&authenticator, &book, (id, secret), NOW)
            .await
        {
            Authentication::Refused(cause) => Some(cause),
            _ => None,
        };
    assert_eq!(refused("nobody", "right").await, Some(Refused::Unknown));
    assert_eq!(refused("a", "wrong").await, Some(Refused::SecretWrong));
    assert_eq!(refused("a", "revoked").await, Some(Refused::Revoked));
    assert_eq!(refused("a", "expired").await, Some(Refused::Expired));
    assert_eq!(refused("dead", "x").await, Some(Refused::Revoked));
    let readings = [presented("nobody", "right"), presented("a", "right")];
    let attempt = Attempt { readings: &readings, caller: CALLER, now: NOW };
    let answer = authenticator.authenticate(&book, attempt, || Ok(())).await;
    assert!(matches!(answer, Authentication::Verified(_)));
}

#[tokio::test]
async fn argon2id_itself_with_a_decoy_for_the_unknown() {
    let phc = crate::clients::digest_imported(&Secret::new("correct horse"));
    let digest = CredentialDigest::Argon2id(phc);
    let book = book([client("a", vec![Credential { digest, active: true, expires_at: None }])]);
    let authenticator = Authenticator::new(1);
    for (id, secret, right) in
        [("a", "correct horse", true), ("a", "wrong", false), ("b", "correct horse", false)]
    {
        let answer = try_once(&authenticator, &book, (id, secret), NOW).await;
        assert_eq!(matches!(answer, Authentication::Verified(_)), right, "{id} {secret}");
    }
}

#[tokio::test]
async fn a_throttled_attempt_computes_nothing_and_a_right_generated_secret_is_never_held_up() {
    let mut own = client("imported", vec![imported(COST, "right")]);
    own.credentials.push(generated("generated"));
    let book: ClientBook = [own].into_iter().collect();
    let counting = Arc::new(Counting::default());
    let authenticator = Authenticator::with_hasher(1, counting.clone());
    let try_throttled = async |secret: &str| {
        let readings = [presented("imported", secret)];
        let attempt = Attempt { readings: &readings, caller: CALLER, now: NOW };
        let wait = Duration::from_secs(7);
        authenticator.authenticate(&book, attempt, || Err(wait)).await
    };
    let Authentication::Throttled(wait) = try_throttled("right").await else {
        panic!("not throttled")
    };
    assert_eq!(wait, Duration::from_secs(7));
    assert!(counting.0.lock().unwrap().is_empty());
    assert!(matches!(try_throttled("generated").await, Authentication::Verified(_)));
    // Right once, remembered from then on: the guesses of others no longer matter.
    let answer = try_once(&authenticator, &book, ("imported", "right"), NOW).await;
    assert!(matches!(answer, Authentication::Verified(_)));
    assert!(matches!(try_throttled("right").await, Authentication::Verified(_)));
}
