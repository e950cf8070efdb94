use crate::domain::{DenyReason, Secret};

/// What a request carries under one header name.
#[derive(Clone, Copy)]
pub enum HeaderValue<'a> {
    /// The header is absent.
    Missing,
    /// The only value, as raw bytes.
    One(&'a [u8]),
    /// The header was sent more than once.
    Several,
}

/// The headers that Envoy passed on. Names are given in lower case.
pub trait Headers {
    /// A repeated header is [`HeaderValue::Several`], never just its first value.
    fn get(&self, name: &str) -> HeaderValue<'_>;
}

/// The headers of a request with a bearer token and nothing else, or with nothing. For `explain`.
pub struct BearerHeader(Option<Secret>);

impl BearerHeader {
    /// `None`: no credential at all. White space around the token is dropped.
    pub fn new(token: Option<&Secret>) -> Self {
        Self(token.map(|token| Secret::new(format!("Bearer {}", token.expose().trim()))))
    }
}

impl Headers for BearerHeader {
    fn get(&self, name: &str) -> HeaderValue<'_> {
        match &self.0 {
            Some(value) if name == "authorization" => HeaderValue::One(value.expose().as_bytes()),
            _ => HeaderValue::Missing,
        }
    }
}

/// What an `Authorization` header carries after the scheme `Bearer`, in any case. Unchecked: good
/// only for recognising a token that has been verified before.
pub fn after_scheme(value: &[u8]) -> Option<&[u8]> {
    let (scheme, rest) = value.split_at_checked(b"bearer".len())?;
    (scheme.eq_ignore_ascii_case(b"bearer") && rest.starts_with(b" "))
        .then(|| rest.trim_ascii())
        .filter(|token| !token.is_empty())
}

/// The token of an `Authorization` header (RFC 6750, section 2.1): the scheme, then token68
/// characters. A comma means that several values were joined on the way.
pub fn token(value: &[u8]) -> Result<&str, DenyReason> {
    if value.contains(&b',') {
        return Err(DenyReason::SeveralCredentials);
    }
    let token = after_scheme(value).ok_or(DenyReason::NoCredential)?;
    if !token.iter().all(|byte| is_token68(*byte)) {
        return Err(DenyReason::TokenMalformed);
    }
    str::from_utf8(token).map_err(|_| DenyReason::TokenMalformed)
}

fn is_token68(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_one_bearer_token_in_any_case_of_the_scheme() {
        for value in ["Bearer abc.def", "bearer abc.def", "BEARER   abc.def "] {
            assert_eq!(token(value.as_bytes()), Ok("abc.def"), "{value}");
        }
    }

    #[test]
    fn token68_is_what_rfc_6750_says() {
        for byte in 0..=u8::MAX {
            let expected = byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte);
            assert_eq!(is_token68(byte), expected, "{byte}");
        }
    }

    #[test]
    fn refuses_everything_else_by_name() {
        for (value, reason) in [
            ("Bearer a,Bearer b", DenyReason::SeveralCredentials),
            ("Bearer a, b", DenyReason::SeveralCredentials),
            ("Basic abc", DenyReason::NoCredential),
            ("Bearer", DenyReason::NoCredential),
            ("Bearer  ", DenyReason::NoCredential),
            ("", DenyReason::NoCredential),
            ("Bearera.b.c", DenyReason::NoCredential),
            ("Bearer\ta.b.c", DenyReason::NoCredential),
            ("Bearer a b", DenyReason::TokenMalformed),
            ("Bearer a!b", DenyReason::TokenMalformed),
            ("Bearer a\u{e9}", DenyReason::TokenMalformed),
        ] {
            assert_eq!(token(value.as_bytes()), Err(reason), "{value}");
        }
    }
}
