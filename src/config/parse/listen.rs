use std::net::SocketAddr;

use crate::config::reader::Reader;
use crate::config::{Listen, ListenAddress, raw};

pub fn parse(reader: &mut Reader, listen: Option<raw::Listen>) -> Option<Listen> {
    let raw::Listen { check, token, admin } = listen?;
    let check = check.map(|text| address(reader, "listen.check", &text));
    let token = token.map(|text| tcp(reader, "listen.token", &text));
    let admin = admin.map(|text| tcp(reader, "listen.admin", &text));

    let tcp_check = match &check {
        Some(Some(ListenAddress::Tcp(address))) => Some(*address),
        _ => None,
    };
    let mut taken: Vec<(&str, SocketAddr)> = Vec::new();
    let all = [("check", tcp_check), ("token", token.flatten()), ("admin", admin.flatten())];
    for (name, address) in all.into_iter().filter_map(|(name, address)| Some((name, address?))) {
        match taken.iter().find(|(_, other)| overlap(*other, address)) {
            Some((other, _)) => reader.problem(
                &format!("listen.{name}"),
                format!("is the same address as `listen.{other}`"),
                "give each its own port",
            ),
            None => taken.push((name, address)),
        }
    }

    Some(Listen {
        check: check??,
        token: match token {
            Some(token) => Some(ListenAddress::Tcp(token?)),
            None => None,
        },
        admin: ListenAddress::Tcp(admin??),
    })
}

fn overlap(a: SocketAddr, b: SocketAddr) -> bool {
    let any = a.ip().is_unspecified() || b.ip().is_unspecified();
    a.port() != 0 && a.port() == b.port() && (any || a.ip() == b.ip())
}

fn address(reader: &mut Reader, field: &str, text: &str) -> Option<ListenAddress> {
    match text.strip_prefix("unix:") {
        Some("") => {
            reader.problem(
                field,
                "names no socket",
                "write it like `unix:/run/tenantgate/check.sock`",
            );
            None
        }
        Some(path) => Some(ListenAddress::Unix(reader.path(&raw::FileText::from(path)))),
        None => tcp(reader, field, text).map(ListenAddress::Tcp),
    }
}

fn tcp(reader: &mut Reader, field: &str, text: &str) -> Option<SocketAddr> {
    if text.starts_with("unix:") {
        reader.problem(
            field,
            "cannot be a Unix socket",
            "write an address like `127.0.0.1:9193`; only `listen.check` can be a socket",
        );
        return None;
    }
    let numbers = text.strip_prefix("localhost:").map(|port| format!("127.0.0.1:{port}"));
    let address = numbers.as_deref().unwrap_or(text).parse().ok();
    if address.is_none() {
        reader.problem(field, "is not an address with a port", "write it like `127.0.0.1:9192`");
    }
    address
}
