//! An HTTP client that goes where the config says and nowhere else.

use std::error::Error;
use std::time::Duration;

use reqwest::{Certificate, Client, ClientBuilder, Identity, Proxy, redirect};
use url::Url;

use crate::config::ClientTls;
use crate::domain::Problem;

pub const USER_AGENT: &str = concat!("tenantgate/", env!("CARGO_PKG_VERSION"));

/// How a server is reached.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reach {
    pub tls: ClientTls,
    pub proxy: Option<Url>,
}

impl Reach {
    /// No redirect is followed unless the caller adds that, and no proxy is taken from the
    /// environment. `field` is the section of `tls` and `proxy`; `urls` are those that are asked.
    pub fn builder(&self, field: &str, urls: &[&str]) -> Result<ClientBuilder, Problem> {
        let problem = |key: &str, error: &reqwest::Error, cure: &str| Problem {
            field: format!("{field}.{key}"),
            message: format!("{}; {cure}", root_cause(error)),
        };
        let mut builder = Client::builder()
            .user_agent(USER_AGENT)
            .redirect(redirect::Policy::none())
            .referer(false)
            .no_proxy()
            .tcp_keepalive(Duration::from_secs(30))
            .pool_idle_timeout(Duration::from_secs(60));
        if let Some(url) = &self.proxy {
            let proxy = Proxy::all(url.as_str())
                .map_err(|error| problem("proxy", &error, "give the URL of an HTTP proxy"))?;
            builder = builder.proxy(proxy);
        }
        if let Some(pem) = &self.tls.ca_pem {
            let certificates = Certificate::from_pem_bundle(pem.as_bytes())
                .map_err(|error| problem("tls.ca_file", &error, "give PEM certificates"))?;
            builder = builder.tls_certs_only(certificates);
        } else if !urls.iter().any(|url| url.starts_with("https:")) {
            // The system's roots are not needed, and a small image may have none.
            builder = builder.tls_certs_only([]);
        }
        if let Some(pem) = &self.tls.identity_pem {
            let cure = "give a PEM certificate chain and its key";
            let identity = Identity::from_pem(pem.0.expose().as_bytes())
                .map_err(|error| problem("tls", &error, cure))?;
            builder = builder.identity(identity);
        }
        Ok(builder)
    }

    pub fn client(&self, field: &str, urls: &[&str]) -> Result<Client, Problem> {
        built(self.builder(field, urls)?, field)
    }
}

pub fn built(builder: ClientBuilder, field: &str) -> Result<Client, Problem> {
    builder.build().map_err(|error| Problem {
        field: format!("{field}.tls"),
        message: format!("{}; check certificates and key", root_cause(&error)),
    })
}

/// The innermost cause: the outer ones repeat the URL.
pub fn root_cause(error: &(dyn Error + 'static)) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}
