use std::sync::Arc;

use reqwest::StatusCode;
use reqwest::header::{ETAG, HeaderMap, HeaderValue};

use crate::config::{HttpLookup, PageKind, Pages};
use crate::domain::{ClientId, Clock, Problem};

use super::answer::{Answer, Grants, usable_etag};
use super::outbound::{read_body, retry_after, transport_failure};
use super::pages::{Page, Pager};
use super::request::{ClientRequest, RequestTemplate};
use super::select::{Listed, Selector};
use super::shape::Body;
use super::step::{Step, StepObserver};
use super::unavailable::Unavailable;

/// One question to the provider's HTTP API, and what its answer means.
pub struct HttpTransport {
    client: reqwest::Client,
    template: RequestTemplate,
    selector: Selector,
    pages: Option<Pages>,
    no_grants_status: Vec<u16>,
    max_body: usize,
    clock: Arc<dyn Clock>,
}

/// One page as it came.
enum Reply {
    Page {
        headers: HeaderMap,
        body: Vec<u8>,
    },
    /// The validator still holds.
    Unchanged {
        headers: HeaderMap,
    },
    /// A status that means "no grants".
    NoGrants(StatusCode),
}

impl HttpTransport {
    pub fn new(
        config: &HttpLookup,
        client: reqwest::Client,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, Problem> {
        Ok(Self {
            client,
            template: RequestTemplate::new(config)?,
            selector: Selector::new(&config.reading),
            pages: config.pages.clone(),
            no_grants_status: config.no_grants_status.clone(),
            max_body: config.max_body,
            clock,
        })
    }

    /// The URL for `client`, without what may be secret.
    pub fn shown_url(&self, client: &ClientId) -> String {
        self.template.shown_url(client)
    }

    pub async fn ask(
        &self,
        client: &ClientId,
        etag: Option<&str>,
        authorization: Option<&HeaderValue>,
        observer: StepObserver<'_>,
    ) -> Result<Answer, Unavailable> {
        let asked = self.template.about(client, authorization);
        let mut asked = asked.ok_or_else(|| Unavailable::Connect(NO_REQUEST.to_owned()))?;
        let conditional = etag.is_some_and(|etag| asked.if_none_match(etag));
        let sent_at = self.clock.monotonic();
        let mut pager = Pager::new(self.pages.as_ref(), asked.url.clone());
        let page = pager.first();
        let reply = self.fetch(&asked, page, self.max_body, conditional).await?;
        let (mut headers, mut bytes) = match reply {
            Reply::Page { headers, body } => (headers, body),
            Reply::Unchanged { headers } => {
                let grants = Grants::Unchanged { etag: validator(&headers) };
                return Ok(Answer { grants, sent_at, status: "304".to_owned() });
            }
            Reply::NoGrants(status) => {
                let status = status.as_str().to_owned();
                return Ok(Answer { grants: Grants::none(), sent_at, status });
            }
        };
        asked.unconditionally();
        let etag = validator(&headers);
        let (mut listed, mut left) = (Listed::default(), self.max_body);
        loop {
            left = left.saturating_sub(bytes.len());
            let body = self.selector.parse(&bytes)?;
            observer(Step::Read { page: pager.read(), body: Body(&body) });
            self.selector.read(&body, &mut listed)?;
            let Some(page) = pager.next(&headers, &body)? else {
                self.selector.finish(&body, &mut listed)?;
                break;
            };
            // What a status means for the whole answer it does not mean for a part of it.
            match self.fetch(&asked, page, left, false).await? {
                Reply::Page { headers: next, body } => (headers, bytes) = (next, body),
                Reply::Unchanged { .. } => return Err(Unavailable::Redirect(304)),
                Reply::NoGrants(status) => {
                    let status = status.as_u16();
                    return Err(Unavailable::Status { status, retry_after: None });
                }
            }
        }
        // The validator of one page says nothing of the others, nor of a link beside the body.
        let of_links = matches!(&self.pages, Some(Pages { kind: PageKind::LinkHeader, .. }));
        let etag = etag.filter(|_| pager.read() == 1 && !of_links);
        let status = match pager.read() {
            1 => "200".to_owned(),
            pages => format!("200, pages: {pages}"),
        };
        Ok(Answer { grants: Grants::Listed { listed, etag }, sent_at, status })
    }

    async fn fetch(
        &self,
        asked: &ClientRequest<'_>,
        page: Page,
        limit: usize,
        conditional: bool,
    ) -> Result<Reply, Unavailable> {
        let request = asked.request(&self.client, page);
        let mut response = request.send().await.map_err(transport_failure)?;
        let status = response.status();
        let code = status.as_u16();
        if self.no_grants_status.contains(&code) {
            return Ok(Reply::NoGrants(status));
        }
        match status {
            StatusCode::OK => {
                let headers = std::mem::take(response.headers_mut());
                let body = read_body(response, limit).await?;
                Ok(Reply::Page { headers, body })
            }
            StatusCode::NOT_MODIFIED if conditional => {
                Ok(Reply::Unchanged { headers: std::mem::take(response.headers_mut()) })
            }
            StatusCode::UNAUTHORIZED => Err(Unavailable::Unauthorized("401")),
            StatusCode::FORBIDDEN => Err(Unavailable::Unauthorized("403")),
            _ if status.is_redirection() => Err(Unavailable::Redirect(code)),
            _ => {
                let retry_after = retry_after(response.headers(), self.clock.now());
                Err(Unavailable::Status { status: code, retry_after })
            }
        }
    }
}

const NO_REQUEST: &str = "the client's id does not fit into the request";

fn validator(headers: &HeaderMap) -> Option<String> {
    headers.get(ETAG)?.to_str().ok().and_then(usable_etag)
}
