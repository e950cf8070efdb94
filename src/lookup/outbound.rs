use std::error::Error;
use std::time::Duration;

use reqwest::header::HeaderMap;

use crate::domain::Timestamp;
use crate::outbound::root_cause;

use super::unavailable::{TlsFault, Unavailable};

pub fn transport_failure(error: reqwest::Error) -> Unavailable {
    let error = error.without_url();
    if error.is_connect() || origin::<rustls::Error>(&error).is_some() {
        no_connection(&error)
    } else if error.is_decode() && origin::<hyper::Error>(&error).is_none() {
        // Every body is read through a decoder, also one that breaks off on its way here.
        Unavailable::Packed(root_cause(&error))
    } else {
        Unavailable::Broken(root_cause(&error))
    }
}

/// Why nothing could be asked.
pub fn no_connection(error: &(dyn Error + 'static)) -> Unavailable {
    match origin::<rustls::Error>(error) {
        Some(tls) => Unavailable::Tls { fault: tls_fault(tls), cause: tls.to_string() },
        None => Unavailable::Connect(root_cause(error)),
    }
}

/// The error of this kind that led to `error`. An I/O error holds what it was made of without
/// calling it its source.
fn origin<'a, E: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a E> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        let held = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        next = match held {
            Some(held) => Some(held),
            None => error.source(),
        };
    }
    None
}

fn tls_fault(error: &rustls::Error) -> TlsFault {
    use rustls::{AlertDescription as Alert, CertificateError as Certificate, Error as Tls};
    match error {
        Tls::InvalidCertificate(Certificate::UnknownIssuer | Certificate::BadSignature) => {
            TlsFault::UnknownCa
        }
        Tls::InvalidCertificate(
            Certificate::NotValidForName | Certificate::NotValidForNameContext { .. },
        ) => TlsFault::WrongName,
        Tls::InvalidCertificate(
            Certificate::Expired
            | Certificate::ExpiredContext { .. }
            | Certificate::NotValidYet
            | Certificate::NotValidYetContext { .. },
        ) => TlsFault::Expired,
        Tls::AlertReceived(
            Alert::CertificateRequired
            | Alert::NoCertificate
            | Alert::BadCertificate
            | Alert::CertificateUnknown
            | Alert::UnknownCA
            | Alert::AccessDenied
            | Alert::HandshakeFailure,
        ) => TlsFault::ClientCertificate,
        Tls::InvalidMessage(_) => TlsFault::NotTls,
        _ => TlsFault::Other,
    }
}

/// Reads a body up to `limit`; what is longer is left unread.
pub async fn read_body(
    mut response: reqwest::Response,
    limit: usize,
) -> Result<Vec<u8>, Unavailable> {
    if response.content_length().is_some_and(|length| length > limit as u64) {
        return Err(Unavailable::TooLarge);
    }
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(transport_failure)? {
        if body.len() + chunk.len() > limit {
            return Err(Unavailable::TooLarge);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// A provider's word on when to come back is believed up to this.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(3600);

/// `Retry-After` of RFC 9110: seconds, or a date.
pub fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let text = headers.get(reqwest::header::RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds).min(MAX_RETRY_AFTER));
    }
    let date = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text).ok()?;
    let seconds = u64::try_from(date.as_second()).ok()?;
    Some(Timestamp::from_secs(seconds).since(now).min(MAX_RETRY_AFTER))
}

#[cfg(test)]
mod tests {
    use reqwest::header::{HeaderValue, RETRY_AFTER};

    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = Timestamp::from_secs(784_111_777);
        for (text, expected) in [
            ("3", Some(3)),
            ("999999999999", Some(3600)),
            ("Sun, 06 Nov 1994 08:49:39 GMT", Some(2)),
            ("Sun, 06 Nov 1994 08:49:30 GMT", Some(0)),
            ("soon", None),
            ("-1", None),
        ] {
            let headers =
                HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_str(text).unwrap())]);
            assert_eq!(retry_after(&headers, now), expected.map(Duration::from_secs), "{text}");
        }
        assert_eq!(retry_after(&HeaderMap::new(), now), None);
    }
}
