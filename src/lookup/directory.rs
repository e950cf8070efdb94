use std::sync::Arc;

use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use crate::config::{Lookup, LookupLimits};
use crate::domain::{Clock, Problem};
use crate::telemetry::Instruments;

use super::answer::{Answer, Grants};
use super::callout_token::TokenHealth;
use super::inquiry::{Inquiry, Question};
use super::remote::{Auth, Remote};
use super::step::StepObserver;
use super::unavailable::Unavailable;

/// Where the tenants of a client are looked up: the provider's API with its credentials and
/// limits. Replaced when its config changes.
pub struct Directory {
    config: Lookup,
    remote: Option<Remote>,
    clock: Arc<dyn Clock>,
}

impl Directory {
    /// `field` names the section in a problem.
    pub fn new(config: &Lookup, instruments: Instruments) -> Result<Arc<Self>, Problem> {
        let remote = match config {
            Lookup::Static => None,
            Lookup::Http(http) => Some(Remote::http(http, &instruments)?),
            Lookup::Grpc(grpc) => Some(Remote::grpc(grpc, &instruments)?),
        };
        Ok(Arc::new(Self { config: config.clone(), remote, clock: instruments.clock }))
    }

    /// The section that it was made from.
    pub fn config(&self) -> &Lookup {
        &self.config
    }

    /// `None`: there is nobody to ask.
    pub fn limits(&self) -> Option<&LookupLimits> {
        self.remote.as_ref().map(|remote| &remote.limits)
    }

    /// One lookup within its time budget, tries and token included.
    pub async fn look_up(
        &self,
        question: Question<'_>,
        observer: StepObserver<'_>,
    ) -> Result<Answer, Unavailable> {
        match &self.remote {
            // Clients with static grants are never looked up, so this one has none.
            None => Ok(Answer {
                grants: Grants::none(),
                sent_at: self.clock.monotonic(),
                status: "static".to_owned(),
            }),
            Some(remote) => {
                let deadline = Instant::now() + remote.limits.timeout;
                let clock = &*self.clock;
                let inquiry = Inquiry { remote, question, observer, clock, deadline };
                let answer = inquiry.run().await?;
                if let Grants::Listed { listed, .. } = &answer.grants {
                    remote.report_dropped(question.client, listed);
                    listed.understood()?;
                }
                Ok(answer)
            }
        }
    }

    /// How the lookup's own token is doing, where it has one by OAuth.
    pub fn token_health(&self) -> Option<TokenHealth> {
        match &self.remote.as_ref()?.auth {
            Auth::OAuth2(token) => Some(token.health()),
            Auth::None | Auth::Fixed(_) => None,
        }
    }

    /// Renews the lookup's own token if it is time.
    pub fn renew_token(&self) {
        if let Some(Remote { auth: Auth::OAuth2(token), .. }) = &self.remote {
            token.renew_if_due();
        }
    }

    /// How many lookups in the background may be under way. `None`: there is nobody to ask.
    pub fn background_places(&self) -> Option<usize> {
        self.remote.as_ref().map(|remote| remote.background_places)
    }

    /// A place among the background lookups.
    pub async fn background_permit(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.remote.as_ref()?.background).acquire_owned().await.ok()
    }
}
