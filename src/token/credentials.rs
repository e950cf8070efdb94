use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::error::TokenError;
use super::form::TokenForm;
use crate::clients::Presented;
use crate::domain::Secret;

/// A colon in an id makes it unclear where the secret begins; this many places are tried.
const MAX_COLONS: usize = 3;

/// The credentials that a request carries by `client_secret_basic` or `client_secret_post` (RFC
/// 6749, section 2.3.1), in every way they can be read; never an empty list.
pub fn presented(
    authorization: &[&[u8]],
    form: &mut TokenForm,
) -> Result<Vec<Presented>, TokenError> {
    // Exactly one method: of two, one may have been smuggled in.
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
        (Some(mut readings), None) => {
            if let Some(id) = &form.client_id {
                readings.retain(|reading| reading.id == *id);
            }
            if readings.is_empty() {
                let differs = "client_id differs from the Authorization header";
                return Err(TokenError::InvalidRequest(differs));
            }
            Ok(readings)
        }
        (None, Some(secret)) => {
            let id = form.client_id.take().ok_or(TokenError::InvalidClient)?;
            Ok(vec![Presented { id, secret }])
        }
        (None, None) => Err(TokenError::InvalidClient),
    }
}

/// Clients must form-encode both halves before joining them (RFC 6749, appendix B). Not every
/// client does, so they are also read as they were sent.
fn basic(value: &[u8]) -> Option<Vec<Presented>> {
    let value = str::from_utf8(value).ok()?;
    let (scheme, encoded) = value.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let pair = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
    let (id, secret) = pair.split_once(':')?;
    let decoded = (form_decode(id), form_decode(secret));
    let is_encoded = (decoded.0.as_str(), decoded.1.as_str()) != (id, secret);
    let mut readings = vec![reading(decoded.0, decoded.1)];
    let as_sent = pair.match_indices(':').take(MAX_COLONS);
    // Where nothing was encoded, the first one has been read already.
    for (at, _) in as_sent.skip(usize::from(!is_encoded)) {
        readings.push(reading(pair[..at].to_owned(), pair[at + 1..].to_owned()));
    }
    Some(readings)
}

fn reading(id: String, secret: String) -> Presented {
    Presented { id, secret: Secret::new(secret) }
}

fn form_decode(text: &str) -> String {
    let text = text.replace('+', " ");
    percent_encoding::percent_decode_str(&text).decode_utf8_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn present(authorization: &[&str], body: &str) -> Result<Vec<Presented>, TokenError> {
        let body = format!("grant_type=client_credentials&{body}");
        let mut form = TokenForm::parse(body.as_bytes(), "https://a").unwrap();
        let headers: Vec<&[u8]> = authorization.iter().map(|value| value.as_bytes()).collect();
        presented(&headers, &mut form)
    }

    fn encode(pair: &str) -> String {
        format!("bAsIc  {}", STANDARD.encode(pair))
    }

    fn readings(authorization: &[&str], body: &str) -> Vec<(String, String)> {
        let readings = present(authorization, body).unwrap();
        readings.into_iter().map(|r| (r.id, r.secret.expose().to_owned())).collect()
    }

    fn pair(id: &str, secret: &str) -> (String, String) {
        (id.to_owned(), secret.to_owned())
    }

    #[test]
    fn takes_either_method() {
        assert_eq!(readings(&[], "client_id=a&client_secret=s"), [pair("a", "s")]);
        assert_eq!(readings(&[&encode("a:s")], "client_id=a"), [pair("a", "s")]);
    }

    #[test]
    fn reads_basic_as_encoded_and_as_sent() {
        let encoded = readings(&[&encode("a%3Ac:s+%25")], "");
        assert_eq!(encoded, [pair("a:c", "s %"), pair("a%3Ac", "s+%25")]);
        let plain = readings(&[&encode("a:s/+=")], "");
        assert_eq!(plain, [pair("a", "s/ ="), pair("a", "s/+=")]);
        let colons = readings(&[&encode("a:b:c")], "");
        assert_eq!(colons, [pair("a", "b:c"), pair("a:b", "c")]);
        assert_eq!(readings(&[&encode("a:b:c")], "client_id=a%3Ab"), [pair("a:b", "c")]);
        assert!(readings(&[&encode(&"x:".repeat(50))], "").len() <= 1 + MAX_COLONS);
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
