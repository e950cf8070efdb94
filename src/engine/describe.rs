//! What `/readyz?verbose` shows of the lookup, the signing keys and the APIs.

use std::fmt::Write as _;
use std::time::Duration;

use super::Engine;

impl Engine {
    pub(super) fn describe_lookup(&self, text: &mut String) {
        let Some((lookup, token)) = self.tenants.lookup_health() else {
            text.push_str("lookup: none, the registry lists the tenants\n");
            return;
        };
        let now = self.clock.monotonic();
        let good = match lookup.last_good {
            Some(at) => format!("last good answer {} s ago", now.since(at).as_secs()),
            None => "no good answer yet".to_owned(),
        };
        let _ = match &lookup.last_failure {
            None => writeln!(
                text,
                "lookup: {}{good}",
                if lookup.last_good.is_some() { "ok, " } else { "" }
            ),
            Some(reason) => {
                let failures = lookup.failures;
                writeln!(
                    text,
                    "lookup: failures in a row: {failures}, {good}; the last one: {reason}"
                )
            }
        };
        let Some(token) = token else { return };
        let state = match (token.fetched, token.remaining) {
            (false, _) => "none yet".to_owned(),
            (true, Duration::ZERO) => "expired".to_owned(),
            (true, left) => format!("good for {} s", left.as_secs()),
        };
        let _ = match token.last_error {
            None => writeln!(text, "token for the lookup: {state}"),
            Some(error) => writeln!(text, "token for the lookup: {state}; no newer one: {error}"),
        };
    }

    pub(super) fn describe_keys(&self, text: &mut String) {
        let Some(mint) = &self.mint else { return };
        let (keys, now) = (&mint.load().keys, self.clock.now());
        let _ = match keys.signer(now) {
            Some(signer) => {
                let (kid, algorithm) = (signer.kid(), signer.algorithm().as_str());
                writeln!(text, "signing key: {kid} ({algorithm}), made {}", signer.created_at())
            }
            None => writeln!(text, "signing key: none is live, so that no token can be minted"),
        };
        for pending in keys.pending(now) {
            let _ =
                writeln!(text, "next signing key: {}, from {}", pending.kid(), pending.activate_at);
        }
    }

    pub(super) fn describe_apis(&self, text: &mut String) {
        for api in self.config_now().apis.iter().filter(|api| api.shadow) {
            let _ = writeln!(text, "shadow mode: API {}: what would be denied passes", api.name);
        }
    }
}
