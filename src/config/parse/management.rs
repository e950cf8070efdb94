use super::Given;
use crate::config::reader::Reader;
use crate::config::{Listen, Management, SecretText, raw};

/// A shorter one could be guessed.
const SHORT_TOKEN: usize = 32;

pub fn parse(
    reader: &mut Reader,
    management: raw::Management,
    listen: Option<&Listen>,
    given: Given,
) -> Option<Management> {
    let raw::Management { token_file, client_certificates } = management;
    let client_certificates = client_certificates.value().unwrap_or(false);
    if client_certificates {
        certificates_are_asked_for(reader, listen);
    }
    let token = token_file.optional(|file| token(reader, file, given))?;
    Some(Management { token, client_certificates })
}

/// Without a CA nobody is asked for a certificate.
fn certificates_are_asked_for(reader: &mut Reader, listen: Option<&Listen>) {
    let Some(listen) = listen else { return };
    let field = "management.client_certificates";
    let tls = listen.management.as_ref().and_then(|on| on.tls.as_ref());
    match tls.filter(|tls| tls.client_ca_file.is_some()) {
        None => reader.problem(
            field,
            "has no effect without `listen.management.tls.client_ca_file`",
            "name the CA of the certificates there, or remove it",
        ),
        // The CA of a mesh gives every workload a certificate.
        Some(tls) if tls.client_identities.is_empty() => reader.warning(
            field,
            "lets every certificate of that CA do everything",
            "name the callers in `listen.management.tls.client_identities`",
        ),
        Some(_) => {}
    }
}

fn token(reader: &mut Reader, file: raw::FileText, given: Given) -> Option<SecretText> {
    let field = "management.token_file";
    if !given.management {
        let wrong = "has no effect without `listen.management`";
        reader.problem(field, wrong, "add that, or remove `management`");
    }
    let token = reader.guarded_secret_file(field, file.into())?;
    let text = token.0.expose();
    let cure = "write a random one, as `openssl rand -hex 32` makes it";
    if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        reader.problem(field, "names a file with other than visible ASCII characters", cure);
        return None;
    }
    if text.len() < SHORT_TOKEN {
        reader.warning(field, "names a file with less than 32 characters: guessable", cure);
    }
    Some(token)
}
