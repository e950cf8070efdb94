//! The provider's lookup, answering at once: every client may read T0 to T299... as many as it
//! says.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;

use crate::common::codes;

/// More than any bench puts into a token, and at most what a token may carry.
const TENANTS: usize = 10;

/// Answers until the process ends.
pub fn start() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("a bound socket");
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || answer(stream));
        }
    });
    address
}

fn answer(stream: TcpStream) {
    let tenants: Vec<_> =
        codes(TENANTS).map(|code| serde_json::json!({ "code": code.expose() })).collect();
    let body = serde_json::json!({ "tenants": tenants }).to_string();
    let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: ";
    let Ok(mut out) = stream.try_clone() else { return };
    // A request ends with an empty line: there is no body.
    for line in BufReader::new(stream).lines().map_while(Result::ok) {
        if line.is_empty() && write!(out, "{head}{}\r\n\r\n{body}", body.len()).is_err() {
            return;
        }
    }
}
