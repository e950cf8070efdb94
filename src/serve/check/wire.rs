//! What of Envoy's `CheckRequest` matters to a decision, borrowed from the message's own bytes.
//!
//! The generated type would copy every header of every request into a map of strings, which costs
//! as much as the rest of the check. Field numbers are those of
//! `envoy/service/auth/v3/attribute_context.proto`; a test holds them against the generated types.

use bytes::Buf as _;
use prost::DecodeError;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};

use crate::authz::{HeaderValue, Headers};

#[derive(Default)]
pub struct CheckMessage<'a> {
    pub http: Option<HttpRequest<'a>>,
    /// `context_extensions`.
    pub extensions: Vec<(&'a [u8], &'a [u8])>,
}

#[derive(Default)]
pub struct HttpRequest<'a> {
    pub id: &'a [u8],
    pub method: &'a [u8],
    pub path: &'a [u8],
    /// Nobody asked for it.
    pub has_body: bool,
    pub(super) headers: Vec<(&'a [u8], &'a [u8])>,
}

impl Headers for HttpRequest<'_> {
    fn get(&self, name: &str) -> HeaderValue<'_> {
        let mut values = self
            .headers
            .iter()
            .filter(|(key, _)| key.eq_ignore_ascii_case(name.as_bytes()))
            .map(|(_, value)| *value);
        match (values.next(), values.next()) {
            (None, _) => HeaderValue::Missing,
            (Some(value), None) => HeaderValue::One(value),
            (Some(_), Some(_)) => HeaderValue::Several,
        }
    }
}

impl<'a> CheckMessage<'a> {
    pub fn decode(message: &'a [u8]) -> Result<Self, DecodeError> {
        let mut decoded = Self::default();
        for field in Fields(message) {
            if let (1, attributes) = field? {
                decoded.attributes(attributes)?;
            }
        }
        Ok(decoded)
    }

    fn attributes(&mut self, message: &'a [u8]) -> Result<(), DecodeError> {
        for field in Fields(message) {
            match field? {
                (4, request) => self.request(request)?,
                (10, entry) => self.extensions.push(map_entry(entry)?),
                _ => {}
            }
        }
        Ok(())
    }

    fn request(&mut self, message: &'a [u8]) -> Result<(), DecodeError> {
        for field in Fields(message) {
            if let (2, http) = field? {
                self.http.get_or_insert_default().merge(http)?;
            }
        }
        Ok(())
    }
}

impl<'a> HttpRequest<'a> {
    fn merge(&mut self, message: &'a [u8]) -> Result<(), DecodeError> {
        for field in Fields(message) {
            match field? {
                (1, id) => self.id = id,
                (2, method) => self.method = method,
                (3, entry) => self.headers.push(map_entry(entry)?),
                (4, path) => self.path = path,
                (11 | 12, body) => self.has_body |= !body.is_empty(),
                (13, map) => self.header_map(map)?,
                _ => {}
            }
        }
        Ok(())
    }

    /// Filled instead of `headers` where Envoy is told to `encode_raw_headers`.
    fn header_map(&mut self, message: &'a [u8]) -> Result<(), DecodeError> {
        for field in Fields(message) {
            if let (1, header) = field? {
                let (mut key, mut value, mut raw) = (&[][..], &[][..], &[][..]);
                for field in Fields(header) {
                    match field? {
                        (1, text) => key = text,
                        (2, text) => value = text,
                        (3, bytes) => raw = bytes,
                        _ => {}
                    }
                }
                self.headers.push((key, if raw.is_empty() { value } else { raw }));
            }
        }
        Ok(())
    }
}

fn map_entry(message: &[u8]) -> Result<(&[u8], &[u8]), DecodeError> {
    let (mut key, mut value) = (&[][..], &[][..]);
    for field in Fields(message) {
        match field? {
            (1, text) => key = text,
            (2, text) => value = text,
            _ => {}
        }
    }
    Ok((key, value))
}

/// The length-delimited fields of a message; the others are skipped.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn read(&mut self) -> Result<Option<(u32, &'a [u8])>, DecodeError> {
        while !self.0.is_empty() {
            let (tag, wire_type) = decode_key(&mut self.0)?;
            if wire_type != WireType::LengthDelimited {
                skip_field(wire_type, tag, &mut self.0, DecodeContext::default())?;
                continue;
            }
            let length = decode_varint(&mut self.0)?;
            let length = usize::try_from(length).ok().filter(|length| *length <= self.0.len());
            let Some(length) = length else {
                // Lets the library word the error: the buffer ends before the field does.
                let mut exhausted: &[u8] = &[];
                return decode_varint(&mut exhausted).map(|_| None);
            };
            let field = &self.0[..length];
            self.0.advance(length);
            return Ok(Some((tag, field)));
        }
        Ok(None)
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u32, &'a [u8]), DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        let field = self.read().transpose();
        if matches!(field, Some(Err(_))) {
            self.0 = &[];
        }
        field
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use envoy_types::pb::envoy::config::core::v3 as core;
    use envoy_types::pb::envoy::service::auth::v3::attribute_context::{
        HttpRequest as FullHttp, Request as FullRequest,
    };
    use envoy_types::pb::envoy::service::auth::v3::{AttributeContext, CheckRequest};
    use prost::Message as _;

    use super::*;

    fn encode(http: FullHttp) -> Vec<u8> {
        CheckRequest {
            attributes: Some(AttributeContext {
                request: Some(FullRequest { time: None, http: Some(http) }),
                context_extensions: HashMap::from([("tenantgate_api".into(), "oda".into())]),
                ..Default::default()
            }),
        }
        .encode_to_vec()
    }

    fn value(http: &HttpRequest<'_>, name: &str) -> Option<Vec<u8>> {
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
        let message = CheckMessage::decode(&bytes).unwrap();
        let http = message.http.unwrap();
        assert_eq!((http.id, http.method, http.path), (&b"42"[..], &b"GET"[..], &b"/a?b"[..]));
        assert_eq!(value(&http, "authorization").unwrap(), b"Bearer x");
        assert_eq!(message.extensions, [(&b"tenantgate_api"[..], &b"oda"[..])]);
    }

    #[test]
    fn reads_raw_headers_and_sees_repeated_ones() {
        let header = |value: &[u8]| core::HeaderValue {
            key: "Authorization".into(),
            raw_value: value.to_vec(),
            ..Default::default()
        };
        let once = encode(FullHttp {
            header_map: Some(core::HeaderMap { headers: vec![header(b"Bearer \xff")] }),
            ..Default::default()
        });
        let message = CheckMessage::decode(&once).unwrap();
        assert_eq!(value(&message.http.unwrap(), "authorization").unwrap(), b"Bearer \xff");

        let twice = encode(FullHttp {
            header_map: Some(core::HeaderMap { headers: vec![header(b"a"), header(b"b")] }),
            ..Default::default()
        });
        let http = CheckMessage::decode(&twice).unwrap().http.unwrap();
        assert!(matches!(http.get("authorization"), HeaderValue::Several));
    }

    #[test]
    fn broken_messages_are_errors_and_never_panics() {
        let bytes = encode(FullHttp { path: "/a".into(), ..Default::default() });
        for end in 1..bytes.len() {
            assert!(CheckMessage::decode(&bytes[..end]).is_err(), "cut at {end}");
        }
        assert!(CheckMessage::decode(&[0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]).is_err());
        assert!(CheckMessage::decode(&[]).unwrap().http.is_none());
    }
}
