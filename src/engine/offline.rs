use std::time::Duration;

use super::Engine;
use crate::authz::CheckInput;
use crate::domain::DenyReason;
use crate::grants::LookupOutcome;

/// How long other issuers' keys may take to load.
const KEYS_PATIENCE: Duration = Duration::from_secs(8);

/// For commands that ask one question.
impl Engine {
    /// Makes known what a decision on this input needs: the keys of the token's issuer and the
    /// grants of its client, by a real lookup. Says what it did.
    pub async fn prepare(&self, input: &CheckInput<'_>) -> Option<String> {
        let wait = async {
            loop {
                let snapshot = self.gate.snapshot.load_full();
                let outcome = self.gate.explain(&snapshot, input, &mut ());
                if outcome.denied() != Some(DenyReason::KeysUnavailable) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        // Without keys the decision itself says so.
        let _ = tokio::time::timeout(KEYS_PATIENCE, wait).await;
        let snapshot = self.gate.snapshot.load_full();
        let outcome = self.gate.explain(&snapshot, input, &mut ());
        let client = outcome.looked_up_client(&snapshot)?;
        Some(in_words(&self.tenants.grants(&client).await))
    }
}

/// The outcome of a lookup in a few words, without a code.
pub fn in_words(outcome: &LookupOutcome) -> String {
    match outcome {
        LookupOutcome::Granted(grants) => format!("granted, {} tenants", grants.codes.len()),
        LookupOutcome::Denied(_) => "no tenant has authorised this client".to_owned(),
        LookupOutcome::Unavailable(reason) => format!("unavailable: {reason}"),
    }
}
