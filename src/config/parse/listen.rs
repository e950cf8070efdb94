use std::net::SocketAddr;

use crate::config::reader::Reader;
use crate::config::{Listen, ListenAddress, SocketAccess, raw};

pub fn parse(reader: &mut Reader, listen: Option<raw::Listen>) -> Option<Listen> {
    let raw::Listen { check, token, admin } = listen?;
    let check = check.map(|on| listen_on(reader, "listen.check", on));
    let token = token.map(|on| listen_on(reader, "listen.token", on));
    let admin = admin.map(|text| tcp(reader, "listen.admin", &text));
    let admin = admin.map(|address| address.map(ListenAddress::Tcp));
    let all = [("check", &check), ("token", &token), ("admin", &admin)];
    refuse_shared_addresses(reader, &all);
    Some(Listen {
        check: check??,
        token: match token {
            Some(token) => Some(token?),
            None => None,
        },
        admin: admin??,
    })
}

fn refuse_shared_addresses(reader: &mut Reader, all: &[(&str, &Option<Option<ListenAddress>>)]) {
    let mut taken: Vec<(&str, &ListenAddress)> = Vec::new();
    for (name, address) in all {
        let Some(Some(address)) = address else { continue };
        match taken.iter().find(|(_, other)| overlap(other, address)) {
            Some((other, _)) => reader.problem(
                &format!("listen.{name}"),
                format!("is the same address as `listen.{other}`"),
                "give each its own port or socket",
            ),
            None => taken.push((name, address)),
        }
    }
}

fn overlap(a: &ListenAddress, b: &ListenAddress) -> bool {
    match (a, b) {
        (ListenAddress::Tcp(a), ListenAddress::Tcp(b)) => {
            let any = a.ip().is_unspecified() || b.ip().is_unspecified();
            a.port() != 0 && a.port() == b.port() && (any || a.ip() == b.ip())
        }
        (ListenAddress::Unix(a, _), ListenAddress::Unix(b, _)) => a == b,
        _ => false,
    }
}

fn listen_on(reader: &mut Reader, field: &str, on: raw::ListenOn) -> Option<ListenAddress> {
    let full = match on {
        raw::ListenOn::Address(text) => {
            return address(reader, field, &text, SocketAccess::default());
        }
        raw::ListenOn::Full(full) => full,
    };
    let raw::FullListen { address: text, mode, group } = full;
    let field = &format!("{field}.address");
    let access = socket_access(reader, field, mode, group);
    let address = address(reader, field, &text?, access?)?;
    if matches!(address, ListenAddress::Tcp(_)) {
        let at = field.trim_end_matches(".address");
        reader.without_effect(at, &["mode", "group"], "without a Unix socket");
    }
    Some(address)
}

fn socket_access(
    reader: &mut Reader,
    field: &str,
    mode: Option<String>,
    group: Option<String>,
) -> Option<SocketAccess> {
    let at = field.trim_end_matches(".address");
    let mode = match mode {
        None => Some(SocketAccess::default().mode),
        Some(text) => {
            let mode = u32::from_str_radix(&text, 8).ok().filter(|mode| *mode <= 0o777);
            if mode.is_none() {
                reader.problem(
                    &format!("{at}.mode"),
                    "is not the mode of a file",
                    "write an octal text such as \"0660\"",
                );
            }
            mode
        }
    };
    let group = match group {
        None => Some(None),
        Some(text) => reader.text(&format!("{at}.group"), Some(text)).map(Some),
    };
    Some(SocketAccess { mode: mode?, group: group? })
}

fn address(
    reader: &mut Reader,
    field: &str,
    text: &str,
    access: SocketAccess,
) -> Option<ListenAddress> {
    match text.strip_prefix("unix:") {
        Some("") => {
            reader.problem(
                field,
                "names no socket",
                "write it like `unix:/run/tenantgate/check.sock`",
            );
            None
        }
        Some(path) => Some(ListenAddress::Unix(reader.path(&raw::FileText::from(path)), access)),
        None => tcp(reader, field, text).map(ListenAddress::Tcp),
    }
}

fn tcp(reader: &mut Reader, field: &str, text: &str) -> Option<SocketAddr> {
    if text.starts_with("unix:") {
        reader.problem(field, "cannot be a Unix socket", "write an address like `127.0.0.1:9193`");
        return None;
    }
    let numbers = text.strip_prefix("localhost:").map(|port| format!("127.0.0.1:{port}"));
    let address = numbers.as_deref().unwrap_or(text).parse().ok();
    if address.is_none() {
        reader.problem(field, "is not an address with a port", "write it like `127.0.0.1:9192`");
    }
    address
}
