//! Calls about registered clients.

use std::collections::BinaryHeap;
use std::sync::Arc;

use axum::extract::{Path, Request, State};
use axum::http::header::LOCATION;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};

use super::arrival::{Scope, answer};
use super::documents::{
    About, ClientDocument, ClientList, ClientPatch, Done, NewClient, RevokeSecret, WithSecret,
};
use super::failure::{Failure, Refusals};
use super::registration::{Draft, Known, document};
use super::write::{Action, Row, same_request};
use super::{Management, Shared};
use crate::clients::generate;
use crate::domain::{Client, ClientId, Holder, MAX_ACTIVE_CREDENTIALS, Secret, Target};
use crate::state::{Expect, Key, Record, StateKey};

/// Clients of one answer, unless asked for otherwise, and at most.
const PAGE: usize = 100;
const LARGEST_PAGE: usize = 1000;
/// Others that change the same client at the same time.
const TRIES: usize = 8;

/// The registered clients, by their ids.
#[utoipa::path(
    get, path = "/v1/clients", tag = "clients",
    params(
        ("after" = Option<String>, Query, description = "Clients behind this id."),
        (
            "limit" = Option<u32>, Query, minimum = 1, maximum = 1000,
            description = "100 unless given."
        ),
    ),
    responses(
        (status = 200, description = "A page.", body = ClientList),
        Refusals,
    ),
)]
pub async fn list(State(management): State<Shared>, request: Request) -> Result<Response, Failure> {
    management.admit(&request, Scope::Clients)?;
    let (mut after, mut limit) = (String::new(), PAGE);
    for (name, value) in form_urlencoded::parse(request.uri().query().unwrap_or("").as_bytes()) {
        match &*name {
            "after" => after = value.into_owned(),
            "limit" => {
                let number = value.parse().ok().filter(|limit| (1..=LARGEST_PAGE).contains(limit));
                limit = number
                    .ok_or_else(|| Failure::invalid("limit", "is not a number from 1 to 1000"))?;
            }
            _ => return Err(Failure::Invalid(format!("{name}: is not known here; remove it"))),
        }
    }
    let book = management.engine.clients().unwrap_or_default();
    // The first by id, one more than asked for; the last of them is on top.
    let mut first: BinaryHeap<ById> = BinaryHeap::with_capacity(limit + 2);
    for client in book.iter().filter(|client| client.id.as_str() > after.as_str()) {
        first.push(ById(Arc::clone(client)));
        if first.len() > limit + 1 {
            first.pop();
        }
    }
    let mut clients = first.into_sorted_vec();
    let more = clients.len() > limit;
    clients.truncate(limit);
    let next = clients.last().filter(|_| more).map(|last| last.0.id.to_string());
    let clients = clients.iter().map(|client| management.document(&client.0)).collect();
    Ok(answer(StatusCode::OK, ClientList { clients, next }))
}

/// One client.
#[utoipa::path(
    get, path = "/v1/clients/{client_id}", tag = "clients",
    params(("client_id" = String, Path, description = "The client's id.")),
    responses(
        (status = 200, description = "The client.", body = ClientDocument),
        Refusals,
    ),
)]
pub async fn show(
    State(management): State<Shared>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, Failure> {
    management.admit(&request, Scope::Clients)?;
    let client = management.client(&id)?;
    Ok(answer(StatusCode::OK, management.document(&client)))
}

/// Registers a client. Its secret is shown this once.
#[utoipa::path(
    post, path = "/v1/clients", tag = "clients",
    request_body = NewClient,
    responses(
        (status = 201, description = "Registered.", body = WithSecret),
        Refusals,
    ),
)]
pub async fn create(
    State(management): State<Shared>,
    request: Request,
) -> Result<Response, Failure> {
    let (actor, body) = management.arrive::<NewClient>(request, Scope::Clients).await?;
    let (draft, about) = Draft::new(body)?;
    let action = Action::of("clients:create", actor, about)?;
    let made = management.create(action, draft).await?;
    let place = HeaderValue::from_str(&format!("/v1/clients/{}", made.client.client_id));
    let mut response = answer(StatusCode::CREATED, made);
    response.headers_mut().extend(place.ok().map(|place| (LOCATION, place)));
    Ok(response)
}

/// Changes a client (RFC 7396).
#[utoipa::path(
    patch, path = "/v1/clients/{client_id}", tag = "clients",
    params(("client_id" = String, Path, description = "The client's id.")),
    request_body = ClientPatch,
    responses(
        (status = 200, description = "As it is now.", body = ClientDocument),
        Refusals,
    ),
)]
pub async fn patch(
    State(management): State<Shared>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, Failure> {
    let (actor, mut body) = management.arrive::<ClientPatch>(request, Scope::Clients).await?;
    let about = About { request_id: body.request_id.take(), reason: body.reason.take() };
    let action = Action::of("clients:patch", actor, about)?;
    let edit = |draft: &mut Draft| {
        draft.patch(body.clone());
        Ok(())
    };
    management.edit(action, &id, edit).await?;
    Ok(answer(StatusCode::OK, management.document(&*management.client(&id)?)))
}

/// Takes a client out of the registry; its tokens end too.
#[utoipa::path(
    delete, path = "/v1/clients/{client_id}", tag = "clients",
    params(("client_id" = String, Path, description = "The client's id.")),
    request_body = Option<About>,
    responses(
        (status = 204, description = "Gone."),
        Refusals,
    ),
)]
pub async fn delete(
    State(management): State<Shared>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, Failure> {
    let (actor, about) = management.arrive::<About>(request, Scope::Clients).await?;
    management.delete(Action::of("clients:delete", actor, about)?, &id).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// `POST /v1/clients/{id}:{verb}`. An id may have colons, so that the last one counts.
pub async fn act(
    State(management): State<Shared>,
    Path(target): Path<String>,
    request: Request,
) -> Result<Response, Failure> {
    let (id, verb) = target.rsplit_once(':').unwrap_or((&target, ""));
    match verb {
        "block" => block(&management, id, request).await,
        "unblock" => unblock(&management, id, request).await,
        "revoke-tokens" => revoke_tokens(&management, id, request).await,
        "rotate-secret" => rotate_secret(&management, id, request).await,
        "revoke-secret" => revoke_secret(&management, id, request).await,
        _ => {
            management.admit(&request, Scope::Clients)?;
            Err(Failure::NotFound("there is no such action"))
        }
    }
}

/// Stops a client and its tokens until it is unblocked, whatever the source.
#[utoipa::path(
    post, path = "/v1/clients/{client_id}:block", tag = "clients",
    params(("client_id" = String, Path, description = "The client's id.")),
    request_body = Option<About>,
    responses(
        (status = 200, description = "Blocked.", body = Done),
        Refusals,
    ),
)]
pub async fn block(
    management: &Management,
    id: &str,
    request: Request,
) -> Result<Response, Failure> {
    let (actor, about) = management.arrive::<About>(request, Scope::Clients).await?;
    let client = management.client(id)?;
    let row = Row::of(management.key(&client.id, Target::Client));
    let action = Action::of("clients:block", actor, about)?;
    Ok(answer(StatusCode::OK, management.withdraw(action, row).await?))
}

/// Lets a blocked client go on.
#[utoipa::path(
    post, path = "/v1/clients/{client_id}:unblock", tag = "clients",
    params(("client_id" = String, Path, description = "The client's id.")),
    request_body = Option<About>,
    responses(
        (status = 200, description = "Unblocked.", body = Done),
        Refusals,
    ),
)]
pub async fn unblock(
    management: &Management,
    id: &str,
    request: Request,
) -> Result<Response, Failure> {
    let (actor, about) = management.arrive::<About>(request, Scope::Clients).await?;
    let client = management.client(id)?;
    let row = Row { lift: true, ..Row::of(management.key(&client.id, Target::Client)) };
    let action = Action::of("clients:unblock", actor, about)?;
    Ok(answer(StatusCode::OK, management.withdraw(action, row).await?))
}

/// Refuses the tokens that a client got until now, whatever the source.
#[utoipa::path(
    post, path = "/v1/clients/{client_id}:revoke-tokens", tag = "clients",
    params(("client_id" = String, Path, description = "The client's id.")),
    request_body = Option<About>,
    responses(
        (status = 200, description = "Revoked.", body = Done),
        Refusals,
    ),
)]
pub async fn revoke_tokens(
    management: &Management,
    id: &str,
    request: Request,
) -> Result<Response, Failure> {
    let (actor, about) = management.arrive::<About>(request, Scope::Clients).await?;
    let client = management.client(id)?;
    let keep = Some(management.longest());
    let row = Row { keep, ..Row::of(management.key(&client.id, Target::Tokens)) };
    let action = Action::of("clients:revoke-tokens", actor, about)?;
    Ok(answer(StatusCode::OK, management.withdraw(action, row).await?))
}

/// Gives a client a second secret, shown this once. The older one goes on.
#[utoipa::path(
    post, path = "/v1/clients/{client_id}:rotate-secret", tag = "clients",
    params(("client_id" = String, Path, description = "The client's id.")),
    request_body = Option<About>,
    responses(
        (status = 200, description = "With the new secret.", body = WithSecret),
        Refusals,
    ),
)]
pub async fn rotate_secret(
    management: &Management,
    id: &str,
    request: Request,
) -> Result<Response, Failure> {
    let (actor, about) = management.arrive::<About>(request, Scope::Clients).await?;
    let action = Action::of("clients:rotate-secret", actor, about)?;
    let secret = management.new_secret(&action, id)?;
    let edit = |draft: &mut Draft| {
        if draft.active() >= MAX_ACTIVE_CREDENTIALS {
            let text = "two secrets are active; revoke the older one first, by `:revoke-secret`";
            return Err(Failure::Conflict(text.to_owned()));
        }
        draft.add_secret(&secret, management.now_micros());
        Ok(())
    };
    management.edit(action, id, edit).await?;
    Ok(answer(StatusCode::OK, management.with_secret(id, &secret)?))
}

/// Refuses one of a client's secrets from now on.
#[utoipa::path(
    post, path = "/v1/clients/{client_id}:revoke-secret", tag = "clients",
    params(("client_id" = String, Path, description = "The client's id.")),
    request_body = RevokeSecret,
    responses(
        (status = 200, description = "As it is now.", body = ClientDocument),
        Refusals,
    ),
)]
pub async fn revoke_secret(
    management: &Management,
    id: &str,
    request: Request,
) -> Result<Response, Failure> {
    let (actor, body) = management.arrive::<RevokeSecret>(request, Scope::Clients).await?;
    let about = About { request_id: body.request_id, reason: body.reason };
    let action = Action::of("clients:revoke-secret", actor, about)?;
    let edit = |draft: &mut Draft| draft.revoke_secret(&body.credential_id);
    management.edit(action, id, edit).await?;
    Ok(answer(StatusCode::OK, management.document(&*management.client(id)?)))
}

impl Management {
    async fn create(&self, action: Action, mut draft: Draft) -> Result<WithSecret, Failure> {
        let id = draft.id.clone();
        if self.engine.in_clients_file(id.as_str()) {
            return Err(Failure::in_file());
        }
        let secret = self.new_secret(&action, id.as_str())?;
        draft.add_secret(&secret, self.now_micros());
        self.write_client(action, &draft, Expect::Absent).await?;
        self.with_secret(id.as_str(), &secret)
    }

    /// Changes a stored client. Somebody else who changes it at the same time is not overwritten.
    async fn edit(
        &self,
        action: Action,
        id: &str,
        edit: impl Fn(&mut Draft) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let mut outcome = Err(Failure::Conflict("changes all the time; try again".to_owned()));
        for _ in 0..TRIES {
            let record = self.stored(id).await?;
            let mut draft = Draft::read(&record, &self.state_key()?.sealer())?;
            if self.repeated(&action, id).await? {
                return Ok(());
            }
            edit(&mut draft)?;
            let expect = Expect::Version(record.seq);
            outcome = self.write_client(action.clone(), &draft, expect).await;
            match &outcome {
                Err(Failure::Conflict(_)) => self.state()?.follow().await?,
                Ok(()) | Err(_) => return outcome,
            }
        }
        outcome
    }

    async fn delete(&self, action: Action, id: &str) -> Result<(), Failure> {
        let id = ClientId::parse(id).ok_or_else(Failure::no_client)?;
        if self.repeated(&action, id.as_str()).await? {
            return Ok(());
        }
        self.stored(id.as_str()).await?;
        // First its tokens: they stay refused should a client of this name be registered again.
        let keep = Some(self.longest());
        let floor = Row { keep, ..Row::of(self.key(&id, Target::Tokens)) };
        self.withdraw(action.first_part(), floor).await?;
        let row = Row { lift: true, ..Row::of(self.client_key(id.as_str())) };
        self.withdraw(action, row).await?;
        Ok(())
    }

    /// A client that was registered by a call. Another replica may have done that a moment ago.
    async fn stored(&self, id: &str) -> Result<Arc<Record>, Failure> {
        if self.engine.in_clients_file(id) {
            return Err(Failure::in_file());
        }
        let (state, key) = (self.state()?, self.client_key(id));
        let found = || state.record(&key).filter(|record| !record.is_lifted());
        if let Some(record) = found() {
            return Ok(record);
        }
        state.follow().await?;
        found().ok_or_else(Failure::no_client)
    }

    /// Whether this very request has been carried out before. For those that would not fit any
    /// more.
    async fn repeated(&self, action: &Action, id: &str) -> Result<bool, Failure> {
        if !action.is_named {
            return Ok(false);
        }
        let before = self.state()?.store().request(action.request_id.to_string()).await?;
        let Some(before) = before else { return Ok(false) };
        same_request(&before, action.name, &self.client_key(id))?;
        self.state()?.follow().await?;
        Ok(true)
    }

    async fn write_client(
        &self,
        action: Action,
        draft: &Draft,
        expect: Expect,
    ) -> Result<(), Failure> {
        let wrong = self.engine.wrong_with(draft.to_raw());
        if !wrong.is_empty() {
            let lines = wrong.iter().map(|problem| {
                let field = match problem.field.as_str() {
                    "id" => "client_id",
                    field if field.starts_with("scopes") => "scope",
                    field => field,
                };
                format!("{field}: {}", problem.message)
            });
            return Err(Failure::Invalid(lines.collect::<Vec<_>>().join("\n")));
        }
        let body = draft.to_body(&self.state_key()?.sealer(), self.now_micros());
        let body = body.ok_or_else(|| Failure::Invalid("it cannot be stored".to_owned()))?;
        let key = self.client_key(draft.id.as_str());
        self.withdraw(action, Row { body, expect, ..Row::of(key) }).await?;
        Ok(())
    }

    /// The same for the same request, so that a call whose answer was lost can be made again.
    fn new_secret(&self, action: &Action, id: &str) -> Result<Secret, Failure> {
        Ok(match action.is_named {
            true => self.state_key()?.secret_of(&action.request_id.to_string(), id),
            false => generate(),
        })
    }

    fn with_secret(&self, id: &str, secret: &Secret) -> Result<WithSecret, Failure> {
        let record = self.state()?.record(&self.client_key(id)).ok_or_else(Failure::no_client)?;
        let draft = Draft::read(&record, &self.state_key()?.sealer())?;
        let credential_id = draft.credential_of(secret).ok_or_else(|| {
            let text = "this request was carried out before, and its secret is no longer in use";
            Failure::Conflict(text.to_owned())
        })?;
        let client = self.document(&*self.client(id)?);
        Ok(WithSecret { client_secret: secret.expose().to_owned(), credential_id, client })
    }

    fn document(&self, client: &Client) -> ClientDocument {
        let key = self.client_key(client.id.as_str());
        let in_file = self.engine.in_clients_file(client.id.as_str());
        let record = self.engine.state().filter(|_| !in_file).and_then(|state| state.record(&key));
        let withdrawals = self.engine.withdrawals();
        let known = Known {
            record: record.as_deref(),
            holder: key.holder(),
            withdrawals: withdrawals.as_deref(),
            digester: &self.engine.gate.snapshot.load().digester,
            now: self.engine.clock.now(),
        };
        document(client, &known)
    }

    fn state_key(&self) -> Result<&StateKey, Failure> {
        self.engine.state_key().ok_or_else(Failure::no_state)
    }

    fn now_micros(&self) -> i64 {
        let now = self.engine.clock.now().nanos() / 1_000;
        i64::try_from(now).unwrap_or(i64::MAX)
    }

    fn client_key(&self, id: &str) -> Key {
        Key::client(Holder { issuer: &self.own_issuer(), client: id })
    }
}

struct ById(Arc<Client>);

impl PartialEq for ById {
    fn eq(&self, other: &Self) -> bool {
        self.0.id == other.0.id
    }
}

impl Eq for ById {}

impl PartialOrd for ById {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for ById {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.id.cmp(&other.0.id)
    }
}
