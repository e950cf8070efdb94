//! What of Envoy's `CheckRequest` matters to a decision (`proto/tenantgate/check/v1`): parts of the
//! buffer that it arrived in. A test holds the numbers against the types of `envoy-types`.

use self::v1::{CheckRequest, HttpRequest};
use crate::authz::{HeaderValue, Headers};

pub mod v1 {
    include!(concat!(env!("OUT_DIR"), "/tenantgate.check.v1.rs"));
}

impl CheckRequest {
    /// `None`: Envoy asks about something that is no HTTP request.
    pub fn http(&self) -> Option<&HttpRequest> {
        self.attributes.as_ref()?.request.as_ref()?.http.as_ref()
    }

    /// What the route in Envoy says beside the request.
    pub fn extension(&self, name: &[u8]) -> Option<&[u8]> {
        let entries = &self.attributes.as_ref()?.context_extensions;
        entries.iter().find(|entry| entry.key == name).map(|entry| &*entry.value)
    }
}

impl HttpRequest {
    /// Nobody asked for one.
    pub fn has_body(&self) -> bool {
        !self.body.is_empty() || !self.raw_body.is_empty()
    }
}

impl Headers for HttpRequest {
    fn get(&self, name: &str) -> HeaderValue<'_> {
        let raw = self.header_map.iter().flat_map(|map| &map.headers).map(|header| {
            let value = if header.raw_value.is_empty() { &header.value } else { &header.raw_value };
            (&header.key, value)
        });
        let mut values = self
            .headers
            .iter()
            .map(|entry| (&entry.key, &entry.value))
            .chain(raw)
            .filter(|(key, _)| key.eq_ignore_ascii_case(name.as_bytes()))
            .map(|(_, value)| value);
        match (values.next(), values.next()) {
            (None, _) => HeaderValue::Missing,
            (Some(value), None) => HeaderValue::One(value),
            (Some(_), Some(_)) => HeaderValue::Several,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use bytes::Bytes;
    use envoy_types::pb::envoy::config::core::v3 as core;
    use envoy_types::pb::envoy::service::auth::v3::attribute_context::{
        HttpRequest as FullHttp, Request as FullRequest,
    };
    use envoy_types::pb::envoy::service::auth::v3::{AttributeContext, CheckRequest as FullCheck};
    use prost::Message as _;

    use super::{CheckRequest, HeaderValue, Headers as _, HttpRequest};

    fn encode(http: FullHttp) -> Bytes {
        FullCheck {
            attributes: Some(AttributeContext {
                request: Some(FullRequest { time: None, http: Some(http) }),
                context_extensions: HashMap::from([("tenantgate_api".into(), "oda".into())]),
                ..Default::default()
            }),
        }
        .encode_to_vec()
        .into()
    }

    fn decode(message: Bytes) -> CheckRequest {
        CheckRequest::decode(message).unwrap()
    }

    fn value(http: &HttpRequest, name: &str) -> Option<Vec<u8>> {
        match http.get(name) {
            HeaderValue::One(value) => Some(value.to_vec()),
            HeaderValue::Missing | HeaderValue::Several => None,
        }
    }

    #[test]
    fn reads_what_the_generated_types_write() {
        let bytes = encode(FullHttp {
            id: "42".into(),
            method: "GET".into(),
            path: "/a?b".into(),
            host: "h".into(),
            size: -1,
            headers: HashMap::from([("authorization".into(), "Bearer x".into())]),
            ..Default::default()
        });
        let message = decode(bytes);
        let http = message.http().unwrap();
        assert_eq!(
            (&*http.id, &*http.method, &*http.path),
            (&b"42"[..], &b"GET"[..], &b"/a?b"[..])
        );
        assert_eq!(value(http, "authorization").unwrap(), b"Bearer x");
        assert!(!http.has_body());
        assert_eq!(message.extension(b"tenantgate_api"), Some(&b"oda"[..]));
        assert_eq!(message.extension(b"other"), None);
    }

    #[test]
    fn sees_a_body_in_either_form() {
        let text = FullHttp { body: "{}".into(), ..Default::default() };
        let raw = FullHttp { raw_body: vec![0xff], ..Default::default() };
        for http in [text, raw] {
            assert!(decode(encode(http)).http().unwrap().has_body());
        }
    }

    #[test]
    fn reads_raw_headers_and_sees_repeated_ones() {
        let header = |value: &[u8]| core::HeaderValue {
            key: "Authorization".into(),
            raw_value: value.to_vec(),
            ..Default::default()
        };
        let with = |headers| {
            let header_map = Some(core::HeaderMap { headers });
            decode(encode(FullHttp { header_map, ..Default::default() }))
        };
        let once = with(vec![header(b"Bearer \xff")]);
        assert_eq!(value(once.http().unwrap(), "authorization").unwrap(), b"Bearer \xff");
        let twice = with(vec![header(b"a"), header(b"b")]);
        assert!(matches!(twice.http().unwrap().get("authorization"), HeaderValue::Several));
    }

    /// What is read is not copied.
    #[test]
    fn what_is_read_lies_in_the_message() {
        let bytes = encode(FullHttp { path: "/a/path".into(), ..Default::default() });
        let within = bytes.as_ptr_range();
        let message = decode(bytes);
        assert!(within.contains(&message.http().unwrap().path.as_ptr()));
    }

    #[test]
    fn broken_messages_are_errors_and_never_panics() {
        let bytes = encode(FullHttp { path: "/a".into(), ..Default::default() });
        for end in 1..bytes.len() {
            assert!(CheckRequest::decode(bytes.slice(..end)).is_err(), "cut at {end}");
        }
        let endless = [0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f];
        assert!(CheckRequest::decode(&endless[..]).is_err());
        assert!(decode(Bytes::new()).http().is_none());
    }
}
