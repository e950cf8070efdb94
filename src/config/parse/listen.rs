use std::net::SocketAddr;

use crate::config::reader::Reader;
use crate::config::{Listen, ListenAddress, ListenOn, ServerTls, SocketAccess, raw};
use crate::yaml::Field;

pub fn parse(reader: &mut Reader, listen: Field<raw::Listen>) -> Option<Listen> {
    let raw::Listen { check, token, admin, feed, management } = listen.value()?;
    let check = check.value().and_then(|on| listen_on(reader, "listen.check", on));
    let token = token.optional(|on| listen_on(reader, "listen.token", on));
    let management = management.optional(|on| listen_on(reader, "listen.management", on));
    let feed =
        feed.optional(|on| listen_on(reader, "listen.feed", on).and_then(|on| local(reader, on)));
    let admin = admin.value().and_then(|text| tcp(reader, "listen.admin", &text));
    let admin = admin.map(ListenOn::plain);
    let all = [
        ("check", check.as_ref()),
        ("token", token.as_ref().and_then(Option::as_ref)),
        ("admin", admin.as_ref()),
        ("feed", feed.as_ref().and_then(Option::as_ref)),
        ("management", management.as_ref().and_then(Option::as_ref)),
    ];
    refuse_shared_addresses(reader, &all);
    Some(Listen {
        check: check?,
        token: token?,
        admin: admin?,
        feed: feed?,
        management: management?,
    })
}

/// Ages and clocks in the feed are those of one machine, and so are the keys in it.
fn local(reader: &mut Reader, on: ListenOn) -> Option<ListenOn> {
    if matches!(on.address, ListenAddress::Unix(..)) && on.tls.is_none() {
        return Some(on);
    }
    reader.problem(
        "listen.feed",
        "is not a plain Unix socket",
        "write it like `unix:/run/tenantgate/feed.sock`, in a folder that only tenantgate writes \
         to",
    );
    None
}

impl ListenOn {
    fn plain(address: SocketAddr) -> Self {
        Self { address: ListenAddress::Tcp(address), tls: None }
    }
}

fn refuse_shared_addresses(reader: &mut Reader, all: &[(&str, Option<&ListenOn>)]) {
    let mut taken: Vec<(&str, &ListenAddress)> = Vec::new();
    for (name, on) in all {
        let Some(ListenOn { address, .. }) = on else { continue };
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

fn listen_on(reader: &mut Reader, field: &str, on: raw::ListenOn) -> Option<ListenOn> {
    let full = match on {
        raw::ListenOn::Address(text) => {
            let address = address(reader, field, &text, SocketAccess::default())?;
            return Some(ListenOn { address, tls: None });
        }
        raw::ListenOn::Full(full) => full,
    };
    let raw::FullListen { address: text, tls, mode, group } = full;
    let access = socket_access(reader, field, mode, group);
    let tls = tls.optional(|tls| server_tls(reader, field, tls));
    let address = address(reader, &format!("{field}.address"), &text.value()?, access?)?;
    if matches!(address, ListenAddress::Tcp(_)) {
        reader.without_effect(field, &["mode", "group"], "without a Unix socket");
    }
    Some(ListenOn { address, tls: tls? })
}

/// The files are read where they are used: they change while this process runs.
fn server_tls(reader: &mut Reader, field: &str, tls: raw::ServerTls) -> Option<ServerTls> {
    let raw::ServerTls { cert_file, key_file, client_ca_file, client_identities } = tls;
    if client_identities.is_given() && client_ca_file.is_absent() {
        reader.problem(
            &format!("{field}.tls.client_identities"),
            "has no effect without `client_ca_file`",
            "name the CA of these clients, too",
        );
        return None;
    }
    let identities = client_identities.optional(|names| {
        let field = format!("{field}.tls.client_identities");
        reader.each(&field, names.into(), |reader, at, name| reader.text(at, name.into()))
    });
    Some(ServerTls {
        cert_file: reader.path(&cert_file.value()?),
        key_file: reader.path(&key_file.value()?),
        client_ca_file: client_ca_file.optional(|file| Some(reader.path(&file)))?,
        client_identities: identities?.unwrap_or_default(),
    })
}

fn socket_access(
    reader: &mut Reader,
    field: &str,
    mode: Field<String>,
    group: Field<String>,
) -> Option<SocketAccess> {
    let mode = mode.optional(|text| {
        let mode = u32::from_str_radix(&text, 8).ok().filter(|mode| *mode <= 0o777);
        if mode.is_none() {
            reader.problem(
                &format!("{field}.mode"),
                "is not the mode of a file",
                "write an octal text such as \"0660\"",
            );
        }
        mode
    });
    let group = group.optional(|text| reader.text(&format!("{field}.group"), text.into()));
    Some(SocketAccess { mode: mode?.unwrap_or(SocketAccess::default().mode), group: group? })
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
