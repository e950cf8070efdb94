use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::error::TokenError;
use super::form::TokenForm;
use crate::domain::Secret;

/// Who sent a request, for limits on guessing. Not an identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Source(pub IpAddr);

/// A client id and the secret shown with it, by `client_secret_basic` or `client_secret_post` of RFC 6749,
/// section 2.3.1.
#[derive(Debug)]
pub struct Presented {
    pub id: String,
    pub secret: Secret,
}

impl Presented {
    /// Exactly one method: whoever uses two may have had one of them smuggled in.
    pub fn from_request(authorization: &[&[u8]], form: &mut TokenForm) -> Result<Self, TokenError> {
        let several = TokenError::InvalidRequest("more than one way of client authentication");
        let in_header = match authorization {
            [] => None,
            [value] => Some(basic(value).ok_or(TokenError::InvalidClient)?),
            _ => return Err(several),
        };
        let in_form = form.client_secret.take();
        match (in_header, in_form) {
            (Some(_), Some(_)) => Err(several),
            (Some(_), None) if form.other_authentication => Err(several),
            (None, Some(_)) if form.other_authentication => Err(several),
            (Some(presented), None) => match &form.client_id {
                Some(id) if *id != presented.id => Err(TokenError::InvalidRequest(
                    "client_id differs from the Authorization header",
                )),
                _ => Ok(presented),
            },
            (None, Some(secret)) => {
                let id = form.client_id.take().ok_or(TokenError::InvalidClient)?;
                Ok(Self { id, secret })
            }
            (None, None) => Err(TokenError::InvalidClient),
        }
    }
}

fn basic(value: &[u8]) -> Option<Presented> {
    let value = str::from_utf8(value).ok()?;
    let (scheme, encoded) = value.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let pair = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
    let (id, secret) = pair.split_once(':')?;
    Some(Presented { id: form_decode(id), secret: Secret::new(form_decode(secret)) })
}

/// Both halves are form-encoded before they are joined (RFC 6749, appendix B).
fn form_decode(text: &str) -> String {
    let text = text.replace('+', " ");
    percent_encoding::percent_decode_str(&text).decode_utf8_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn present(authorization: &[&str], body: &str) -> Result<Presented, TokenError> {
        let body = format!("grant_type=client_credentials&{body}");
        let mut form = TokenForm::parse(body.as_bytes(), "https://a").unwrap();
        let headers: Vec<&[u8]> = authorization.iter().map(|value| value.as_bytes()).collect();
        Presented::from_request(&headers, &mut form)
    }

    fn encode(pair: &str) -> String {
        format!("bAsIc {}", STANDARD.encode(pair))
    }

    #[test]
    fn takes_either_method() {
        let basic = present(&[&encode("a%3Ac:s+%25")], "").unwrap();
        assert_eq!((basic.id.as_str(), basic.secret.expose()), ("a:c", "s %"));
        let post = present(&[], "client_id=a&client_secret=s").unwrap();
        assert_eq!((post.id.as_str(), post.secret.expose()), ("a", "s"));
        assert!(present(&[&encode("a:s")], "client_id=a").is_ok());
    }

    #[test]
    fn refuses_two_methods_and_none() {
        let header = encode("a:s");
        for (headers, body, code) in [
            (vec![header.as_str()], "client_id=a&client_secret=s", "invalid_request"),
            (vec![header.as_str()], "client_assertion=x", "invalid_request"),
            (vec![header.as_str(), header.as_str()], "", "invalid_request"),
            (vec![header.as_str()], "client_id=b", "invalid_request"),
            (vec![], "", "invalid_client"),
            (vec![], "client_id=a", "invalid_client"),
            (vec![], "client_secret=s", "invalid_client"),
            (vec!["Bearer x"], "", "invalid_client"),
            (vec!["Basic !"], "", "invalid_client"),
            (vec!["Basic YQ=="], "", "invalid_client"),
        ] {
            assert_eq!(present(&headers, body).unwrap_err().code(), code, "{headers:?} {body}");
        }
    }
}
