//! (c) The token endpoint against the bare signature, and (e) a token never seen before against the
//! bare verification.

use std::hint::black_box;
use std::time::{Duration, Instant};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _,
    ParsedPublicKey,
};
use bytes::Bytes;
use tenantgate::serve::check;

use super::checks::{Tenantgate, micros};
use super::load::{Expect, Load, Requests};
use super::process::printed_beside_a_busy_core;
use super::report::{Table, median, median_ratio};
use crate::common::{CLIENT, Installation, PATH, SECRET, TENANTS, check_request};

const ROUNDS: usize = 7;
const BATCH: usize = 8;
const SIGNATURES: usize = 4_000;
const MINTING: Duration = Duration::from_millis(1000);
/// As many as the bench's provider grants.
const MINTED_TENANTS: usize = 10;
/// Below the token listener's bound of streams a connection.
const UNDER_WAY: usize = 32;
const COLD_TOKENS: usize = 1_000;

/// ES256 without anything around it, from the same library.
struct Bare {
    pair: EcdsaKeyPair,
    public: ParsedPublicKey,
    random: SystemRandom,
    message: Vec<u8>,
}

impl Bare {
    /// Signs as many bytes as a token of ours has before its signature.
    fn new(message: &str) -> Self {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key");
        let point = pair.public_key().as_ref();
        let public = ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).expect("its public key");
        let message = message.rsplit_once('.').expect("a token").0.into();
        Self { pair, public, random: SystemRandom::new(), message }
    }

    fn sign(&self) -> Vec<u8> {
        self.pair.sign(&self.random, &self.message).expect("a signature").as_ref().to_vec()
    }

    fn verify(&self, signature: &[u8]) {
        self.public.verify_sig(black_box(&self.message), signature).expect("a good signature");
    }
}

/// Microseconds of one call: the median of small batches, so that what else the machine does falls
/// out.
pub fn each(count: usize, mut call: impl FnMut()) -> f64 {
    let batch = |_| {
        let started = Instant::now();
        (0..BATCH).for_each(|_| call());
        micros(started.elapsed()) / BATCH as f64
    };
    median((0..count / BATCH).map(batch).collect())
}

/// Microseconds of the signature alone, of as many bytes as a token like this has.
pub fn bare_signature(token: &str) -> f64 {
    let bare = Bare::new(token);
    each(SIGNATURES, || drop(black_box(bare.sign())))
}

pub fn mints() {
    let tenantgate = Tenantgate::start("");
    let token = tenantgate.installation.token(0, MINTED_TENANTS);
    let form = format!("grant_type=client_credentials&client_id={CLIENT}&client_secret={SECRET}");
    let headers = [("content-type", "application/x-www-form-urlencoded")];
    let requests = Requests::post("/oauth2/token", &headers, vec![form.into_bytes()]);
    let expect = Expect::Start(br#"{"access_token":"ey"#);
    let mint = Load { address: tenantgate.token, requests: &requests, expect };
    let metadata = Requests::get("/.well-known/oauth-authorization-server", &[]);
    let http = Load { address: tenantgate.token, requests: &metadata, expect: Expect::Ok };
    let measure = |load: &Load<'_>| {
        let before = tenantgate.server.cpu();
        let done = load.closed_loop(UNDER_WAY, usize::MAX, MINTING).expect("a round");
        let cpu = micros(tenantgate.server.cpu() - before) / done.completed as f64;
        (done.per_second(), cpu)
    };
    measure(&mint);

    let (mut per_second, mut minting, mut answering) = (Vec::new(), Vec::new(), Vec::new());
    let (mut signing, mut without_http) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let signature = printed_beside_a_busy_core(&[super::BARE_SIGNATURE, &token]);
        signing.push(signature.trim().parse::<f64>().expect("a figure"));
        let (minted, cpu) = measure(&mint);
        let (_, http) = measure(&http);
        per_second.push(minted);
        minting.push(cpu);
        answering.push(http);
        without_http.push(cpu - http);
    }
    let to_signature = |figures: &[f64]| Some(median_ratio(figures, &signing));
    let mut table = Table::new("token", "Token endpoint", &["per s", "CPU us", "to the signature"]);
    table.row("bare ES256 signature", &[None, Some(median(signing.clone())), Some(1.0)]);
    table.row(
        "mint",
        &[Some(median(per_second)), Some(median(minting.clone())), to_signature(&minting)],
    );
    table.row(
        "the same listener, a constant document",
        &[None, Some(median(answering.clone())), to_signature(&answering)],
    );
    table.row(
        "mint, less what the document takes",
        &[None, Some(median(without_http.clone())), to_signature(&without_http)],
    );
    table.note(format!(
        "Medians of {ROUNDS} interleaved rounds, ratios those within a round; cached grants of \
         {MINTED_TENANTS} \
         tenants, a generated secret, HTTP/2, {UNDER_WAY} requests under way. The signature runs \
         on the server's core \
         while the generator's is as busy as it is during a round."
    ));
    table.publish();
}

pub fn cold() {
    let installation = Installation::new("127.0.0.1:9", "");
    let bare = Bare::new(&installation.token(0, TENANTS));
    let signature = bare.sign();
    let (mut cold, mut verification) = (Vec::new(), Vec::new());
    // One for all rounds: what is new is the token, not the memory that it comes to lie in.
    let gate = installation.typical_gate();
    for round in 0..ROUNDS {
        let message =
            |at| check_request(PATH, &installation.token(round * COLD_TOKENS + at, TENANTS));
        let messages: Vec<_> = (0..COLD_TOKENS).map(message).map(Bytes::from).collect();
        let mut messages = messages.into_iter();
        cold.push(each(COLD_TOKENS, || {
            let message = messages.next().expect("one for each call");
            black_box(check(&gate, message));
        }));
        let seen = (round + 1) * COLD_TOKENS;
        assert_eq!(gate.cache.len(), seen, "every token was new and good");
        verification.push(each(COLD_TOKENS, || bare.verify(black_box(&signature))));
    }
    let mut table = Table::new("cold", "A token never seen before", &["CPU us"]);
    table.row("bare ES256 verification", &[Some(median(verification.clone()))]);
    table.row("cold check", &[Some(median(cold.clone()))]);
    table.row("ratio", &[Some(median_ratio(&cold, &verification))]);
    table.note(format!(
        "In process, without gRPC; medians of {ROUNDS} interleaved rounds of {COLD_TOKENS} tokens."
    ));
    table.publish();
}
