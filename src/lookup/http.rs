use std::sync::Arc;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::header::{
    ACCEPT, AUTHORIZATION, ETAG, HeaderMap, HeaderName, HeaderValue, IF_NONE_MATCH,
};
use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};
use url::Url;

use crate::config::{HttpLookup, LookupMethod, Problem};
use crate::domain::{ClientId, Clock};

use super::answer::{Answer, Grants, usable_etag};
use super::outbound::{read_body, retry_after, transport_failure};
use super::select::Selector;
use super::unavailable::Unavailable;

/// The unreserved characters of RFC 3986 stand for themselves, everything else is encoded: the
/// id stays one segment, or one value of a query.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// One question to the provider's HTTP API, and what its answer means.
pub struct HttpSource {
    client: reqwest::Client,
    method: LookupMethod,
    url: String,
    headers: HeaderMap,
    selector: Selector,
    no_grants_status: Vec<u16>,
    max_body: usize,
    clock: Arc<dyn Clock>,
}

impl HttpSource {
    pub fn new(
        config: &HttpLookup,
        client: reqwest::Client,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, Problem> {
        let mut headers =
            HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static("application/json"))]);
        for (name, value) in &config.headers {
            let problem = |message: &str| Problem {
                field: format!("tenants.lookup.headers.{name}"),
                message: message.to_owned(),
            };
            let header = HeaderName::from_bytes(name.as_bytes())
                .map_err(|_| problem("is no HTTP header name; use letters, digits and `-`"))?;
            let mut value = HeaderValue::from_str(value.0.expose()).map_err(|_| {
                problem("its value cannot stand in a header; use visible ASCII characters")
            })?;
            value.set_sensitive(true);
            headers.insert(header, value);
        }
        Ok(Self {
            client,
            method: config.method,
            url: config.url.0.clone(),
            headers,
            selector: Selector::new(&config.select, &config.claims),
            no_grants_status: config.no_grants_status.clone(),
            max_body: config.max_body,
            clock,
        })
    }

    /// The URL for `client`, without user and query: those may hold secrets.
    pub fn shown_url(&self, client: &ClientId) -> String {
        match self.url_for(client) {
            Ok(mut url) => {
                let has_query = url.query().is_some();
                url.set_query(None);
                let _ = url.set_username("");
                let _ = url.set_password(None);
                if has_query { format!("{url}?…") } else { url.to_string() }
            }
            Err(_) => "(not a URL)".to_owned(),
        }
    }

    fn url_for(&self, client: &ClientId) -> Result<Url, url::ParseError> {
        let id = utf8_percent_encode(client.as_str(), SEGMENT).to_string();
        Url::parse(&self.url.replace("{client_id}", &id))
    }

    pub async fn ask(
        &self,
        client: &ClientId,
        etag: Option<&str>,
        authorization: Option<&HeaderValue>,
    ) -> Result<Answer, Unavailable> {
        let url = self.url_for(client).map_err(|error| Unavailable::Connect(error.to_string()))?;
        let mut headers = self.headers.clone();
        if let Some(value) = authorization {
            headers.insert(AUTHORIZATION, value.clone());
        }
        let request = match self.method {
            LookupMethod::Get => {
                if let Some(value) = etag.and_then(|etag| HeaderValue::from_str(etag).ok()) {
                    headers.insert(IF_NONE_MATCH, value);
                }
                self.client.request(Method::GET, url).headers(headers)
            }
            LookupMethod::Post => self
                .client
                .request(Method::POST, url)
                .headers(headers)
                .json(&json!({ "client_id": client.as_str() })),
        };
        let sent_at = self.clock.now();
        let response = request.send().await.map_err(transport_failure)?;
        let status = response.status().as_str().to_owned();
        let grants = self.understand(response, etag.is_some()).await?;
        Ok(Answer { grants, sent_at, status })
    }

    async fn understand(
        &self,
        response: Response,
        conditional: bool,
    ) -> Result<Grants, Unavailable> {
        let status = response.status();
        let code = status.as_u16();
        let etag = response.headers().get(ETAG).and_then(validator);
        if self.no_grants_status.contains(&code) {
            return Ok(Grants::none());
        }
        match status {
            StatusCode::OK => {}
            StatusCode::NOT_MODIFIED if conditional => return Ok(Grants::Unchanged { etag }),
            StatusCode::UNAUTHORIZED => return Err(Unavailable::Unauthorized("401")),
            StatusCode::FORBIDDEN => return Err(Unavailable::Unauthorized("403")),
            _ if status.is_redirection() => return Err(Unavailable::Redirect(code)),
            _ => {
                let retry_after = retry_after(response.headers(), self.clock.now());
                return Err(Unavailable::Status { status: code, retry_after });
            }
        }
        let body = read_body(response, self.max_body).await?;
        let body: Value = serde_json::from_slice(&body).map_err(|_| Unavailable::NotJson)?;
        let listed = self.selector.select(&body)?;
        Ok(Grants::Listed { listed, etag })
    }
}

fn validator(value: &HeaderValue) -> Option<String> {
    value.to_str().ok().and_then(usable_etag)
}
