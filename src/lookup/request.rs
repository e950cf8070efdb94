use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::header::{
    ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, IF_NONE_MATCH,
};
use url::Url;

use crate::config::{BodyTemplate, HttpLookup, LookupHeader};
use crate::domain::{ClientId, Problem};
use crate::telemetry::traces::{TRACEPARENT, outgoing};

use super::pages::Page;

/// The unreserved characters of RFC 3986 stand for themselves, everything else is encoded: the
/// id stays one segment, or one value of a query.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
const CLIENT_ID: &str = "{client_id}";
const CURSOR: &str = "{cursor}";
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// The request for a client's grants, with places for what differs from client to client.
pub struct RequestTemplate {
    url: String,
    /// The same for every client.
    headers: HeaderMap,
    per_client: Vec<(HeaderName, LookupHeader)>,
    body: Option<BodyTemplate>,
}

/// The request about one client.
pub struct ClientRequest<'a> {
    pub url: Url,
    headers: HeaderMap,
    body: Option<&'a BodyTemplate>,
    /// As the content of a JSON string.
    client: String,
}

impl RequestTemplate {
    pub fn new(config: &HttpLookup) -> Result<Self, Problem> {
        let mut headers = HeaderMap::from_iter([(ACCEPT, JSON)]);
        if config.body.is_some() {
            headers.insert(CONTENT_TYPE, JSON);
        }
        let mut per_client = Vec::new();
        for header in &config.headers {
            let problem = |message: &str| Problem {
                field: format!("tenants.lookup.headers.{}", header.name),
                message: message.to_owned(),
            };
            let name = HeaderName::from_bytes(header.name.as_bytes())
                .map_err(|_| problem("is not an HTTP header name; use letters, digits and `-`"))?;
            let value = sensitive(header.value.0.expose()).ok_or_else(|| {
                problem("its value cannot be sent in a header; use visible ASCII characters")
            })?;
            if header.per_client {
                per_client.push((name, header.clone()));
            } else {
                headers.insert(name, value);
            }
        }
        Ok(Self { url: config.url.0.clone(), headers, per_client, body: config.body.clone() })
    }

    /// The URL for `client`, without user and query: those may hold secrets.
    pub fn shown_url(&self, client: &ClientId) -> String {
        match self.url_for(client) {
            Some(mut url) => {
                let has_query = url.query().is_some();
                url.set_query(None);
                let _ = url.set_username("");
                let _ = url.set_password(None);
                if has_query { format!("{url}?…") } else { url.to_string() }
            }
            None => "(not a URL)".to_owned(),
        }
    }

    fn url_for(&self, client: &ClientId) -> Option<Url> {
        let id = utf8_percent_encode(client.as_str(), SEGMENT).to_string();
        Url::parse(&self.url.replace(CLIENT_ID, &id)).ok()
    }

    /// `None`: the id cannot stand where the config wants it.
    pub fn about(
        &self,
        client: &ClientId,
        authorization: Option<&HeaderValue>,
    ) -> Option<ClientRequest<'_>> {
        let mut headers = self.headers.clone();
        for (name, header) in &self.per_client {
            let value = header.value.0.expose().replace(CLIENT_ID, client.as_str());
            headers.insert(name, sensitive(&value)?);
        }
        if let Some(value) = authorization {
            headers.insert(AUTHORIZATION, value.clone());
        }
        let client_in_json = json_content(client.as_str());
        let url = self.url_for(client)?;
        Some(ClientRequest { url, headers, body: self.body.as_ref(), client: client_in_json })
    }
}

impl ClientRequest<'_> {
    /// Only a GET is conditional. Whether it is now.
    pub fn if_none_match(&mut self, etag: &str) -> bool {
        match HeaderValue::from_str(etag) {
            Ok(value) if self.body.is_none() => {
                self.headers.insert(IF_NONE_MATCH, value);
                true
            }
            _ => false,
        }
    }

    pub fn unconditionally(&mut self) {
        self.headers.remove(IF_NONE_MATCH);
    }

    pub fn request(&self, http: &reqwest::Client, page: Page) -> reqwest::RequestBuilder {
        let Page { url, cursor } = page;
        let request = match self.body {
            None => http.get(url).headers(self.headers.clone()),
            Some(template) => {
                let template = if cursor.is_empty() { &template.first } else { &template.further };
                // The id first: it has no braces, while a cursor is anything.
                let body = template.replace(CLIENT_ID, &self.client);
                let body = body.replace(CURSOR, &json_content(&cursor));
                http.post(url).headers(self.headers.clone()).body(body)
            }
        };
        match outgoing() {
            Some(trace) => request.header(TRACEPARENT, trace),
            None => request,
        }
    }
}

/// A text as it stands between the quotes of a JSON string.
fn json_content(text: &str) -> String {
    let quoted = serde_json::Value::from(text).to_string();
    quoted[1..quoted.len() - 1].to_owned()
}

fn sensitive(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}
