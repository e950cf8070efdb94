//! Where a request came from, through the proxies before us.

use std::net::{IpAddr, SocketAddr};

use axum::http::header::{FORWARDED, HeaderName};
use axum::http::{HeaderMap, HeaderValue};

use super::peer::Peer;
use crate::config::{ForwardedHeader, Limits};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The proxies before a listener, and the header that each appends to.
#[derive(Clone)]
pub struct ForwardedBy {
    proxies: usize,
    header: HeaderName,
}

impl ForwardedBy {
    /// By the header and the proxies of the config.
    pub fn of(limits: &Limits) -> Self {
        let header = match limits.forwarded_header {
            ForwardedHeader::XForwardedFor => X_FORWARDED_FOR,
            ForwardedHeader::Forwarded => FORWARDED,
        };
        Self { proxies: limits.trusted_proxies, header }
    }

    /// The address that the outermost trusted proxy saw. What stands further left in the header was
    /// written by the caller.
    pub fn source(&self, peer: Peer, headers: &HeaderMap) -> IpAddr {
        if self.proxies == 0 {
            return peer.ip();
        }
        let values = headers.get_all(&self.header).iter().map(HeaderValue::to_str);
        let elements: Vec<&str> =
            values.flat_map(|value| elements(value.unwrap_or_default())).collect();
        let outermost = elements.len().checked_sub(self.proxies).map(|at| elements[at]);
        let node = match self.header == FORWARDED {
            true => outermost.and_then(for_parameter),
            false => outermost,
        };
        node.and_then(address).unwrap_or(peer.ip())
    }
}

/// Splits at commas, but not within quotes.
fn elements(value: &str) -> impl Iterator<Item = &str> {
    let mut quoted = false;
    value.split(move |c| {
        quoted ^= c == '"';
        c == ',' && !quoted
    })
}

/// The `for` of an element of `Forwarded` (RFC 7239, section 4).
fn for_parameter(element: &str) -> Option<&str> {
    element.split(';').find_map(|pair| {
        let (name, value) = pair.split_once('=')?;
        name.trim().eq_ignore_ascii_case("for").then_some(value)
    })
}

/// An address as proxies write it: in quotes or not, with a port or not, IPv6 in brackets or not.
fn address(text: &str) -> Option<IpAddr> {
    let text = text.trim().trim_matches('"');
    let bracketed = text.strip_prefix('[').and_then(|rest| rest.split_once(']'));
    let address = match bracketed {
        Some((address, _)) => address.parse().ok(),
        None => text.parse().ok().or_else(|| Some(text.parse::<SocketAddr>().ok()?.ip())),
    };
    address.map(|address: IpAddr| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(header: &HeaderName, values: &[&str], proxies: usize) -> String {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(header, HeaderValue::from_str(value).unwrap());
        }
        let forwarded = ForwardedBy { proxies, header: header.clone() };
        forwarded.source(Peer(None), &headers).to_string()
    }

    #[test]
    fn a_caller_cannot_choose_its_source() {
        let seen = |values: &[&str], proxies| seen(&X_FORWARDED_FOR, values, proxies);
        assert_eq!(seen(&["6.6.6.6"], 0), "127.0.0.1");
        assert_eq!(seen(&["6.6.6.6, 192.0.2.1"], 1), "192.0.2.1");
        assert_eq!(seen(&["6.6.6.6", "192.0.2.1, 10.0.0.1"], 2), "192.0.2.1");
        assert_eq!(seen(&["10.0.0.1"], 2), "127.0.0.1");
        assert_eq!(seen(&["nonsense"], 1), "127.0.0.1");
    }

    #[test]
    fn ports_quotes_and_brackets_are_understood() {
        for (written, address) in [
            ("192.0.2.1:5678", "192.0.2.1"),
            ("\"192.0.2.1:5678\"", "192.0.2.1"),
            ("2001:db8::1", "2001:db8::1"),
            ("[2001:db8::1]", "2001:db8::1"),
            ("\"[2001:db8::1]:1234\"", "2001:db8::1"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
        ] {
            assert_eq!(seen(&X_FORWARDED_FOR, &["6.6.6.6", written], 1), address, "{written}");
        }
    }

    #[test]
    fn the_standard_header_is_read_where_the_config_says_so() {
        let seen = |value: &str, proxies| seen(&FORWARDED, &[value], proxies);
        assert_eq!(seen("for=6.6.6.6, For=\"[2001:db8::1]:1234\";proto=https", 1), "2001:db8::1");
        assert_eq!(seen("for=192.0.2.1;by=10.0.0.1, for=10.0.0.2", 2), "192.0.2.1");
        assert_eq!(seen("for=\"a,b\", for=192.0.2.1", 1), "192.0.2.1");
        assert_eq!(seen("for=unknown", 1), "127.0.0.1");
        assert_eq!(seen("proto=https", 1), "127.0.0.1");
    }
}
