//! A load generator over raw HTTP/2: frames are prepared once, so that it costs far less than any
//! server under test and one core is enough for it. Loopback only; one thread; it spins instead of
//! sleeping, so that a request leaves at its time.

use std::collections::HashMap;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;
const FRAME_HEAD: usize = 9;
/// `:status: 200` in HPACK's static table.
const STATUS_200: u8 = 0x88;

/// What is sent, again and again.
pub struct Requests {
    headers: Vec<(String, String)>,
    /// In turn. An empty one is a request without a body.
    bodies: Vec<Vec<u8>>,
}

impl Requests {
    pub fn get(path: &str, further: &[(&str, &str)]) -> Self {
        Self::new("GET", path, further, vec![Vec::new()])
    }

    pub fn post(path: &str, further: &[(&str, &str)], bodies: Vec<Vec<u8>>) -> Self {
        Self::new("POST", path, further, bodies)
    }

    /// Unary gRPC calls with these messages.
    pub fn grpc(path: &str, messages: &[Vec<u8>]) -> Self {
        let framed = |message: &Vec<u8>| {
            let length = u32::try_from(message.len()).expect("a short message");
            [&[0], &length.to_be_bytes()[..], message].concat()
        };
        let headers = [("content-type", "application/grpc"), ("te", "trailers")];
        Self::post(path, &headers, messages.iter().map(framed).collect())
    }

    fn new(method: &str, path: &str, further: &[(&str, &str)], bodies: Vec<Vec<u8>>) -> Self {
        let pseudo =
            [(":method", method), (":scheme", "http"), (":path", path), (":authority", "api.test")];
        let pair = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        Self { headers: pseudo.iter().chain(further).map(pair).collect(), bodies }
    }

    /// The header block of a connection's first request, which fills the peer's HPACK table, and
    /// that of all later ones, which point into it: what Envoy sends too.
    fn header_blocks(&self) -> (Vec<u8>, Vec<u8>) {
        let (mut first, mut later) = (Vec::new(), Vec::new());
        for (at, (name, value)) in self.headers.iter().enumerate() {
            first.push(0x40);
            for text in [name, value] {
                hpack_integer(&mut first, 0x7f, 0, text.len());
                first.extend_from_slice(text.as_bytes());
            }
            // The static table has 61 entries; the newest dynamic one follows it.
            hpack_integer(&mut later, 0x7f, 0x80, 61 + self.headers.len() - at);
        }
        (first, later)
    }
}

fn hpack_integer(out: &mut Vec<u8>, prefix: u8, pattern: u8, value: usize) {
    match u8::try_from(value) {
        Ok(small) if small < prefix => out.push(pattern | small),
        _ => {
            out.push(pattern | prefix);
            let mut rest = value - usize::from(prefix);
            while rest >= 0x80 {
                out.push((rest & 0x7f) as u8 | 0x80);
                rest >>= 7;
            }
            out.push(rest as u8);
        }
    }
}

/// Which answers are right; the first wrong one ends the run.
#[derive(Clone)]
pub enum Expect {
    /// These very bytes.
    Body(Vec<u8>),
    /// A body that starts so.
    Start(&'static [u8]),
    /// `200`, whatever the body.
    Ok,
}

impl Expect {
    fn accepts(&self, body: &[u8]) -> bool {
        match self {
            Self::Body(expected) => body == expected.as_slice(),
            Self::Start(expected) => body.starts_with(expected),
            Self::Ok => true,
        }
    }
}

pub struct Load<'a> {
    pub address: SocketAddr,
    pub requests: &'a Requests,
    pub expect: Expect,
}

/// Of a closed loop.
pub struct Throughput {
    pub completed: usize,
    pub took: Duration,
}

impl Throughput {
    pub fn per_second(&self) -> f64 {
        self.completed as f64 / self.took.as_secs_f64()
    }
}

impl Load<'_> {
    /// The body of the answer to one request.
    pub fn answer(&self) -> io::Result<Vec<u8>> {
        let mut connection = Connection::open(self)?;
        connection.send(Instant::now())?;
        while connection.completed == 0 {
            connection.turn(&mut |_| {})?;
        }
        Ok(connection.last_body)
    }

    /// As fast as the server answers, with this many requests under way all the time. Stops after
    /// `limit` requests or `time`, whichever comes first.
    pub fn closed_loop(
        &self,
        under_way: usize,
        limit: usize,
        time: Duration,
    ) -> io::Result<Throughput> {
        let mut connection = Connection::open(self)?;
        let started = Instant::now();
        while connection.completed < limit && started.elapsed() < time {
            while connection.sent - connection.completed < under_way && connection.sent < limit {
                if !connection.send(Instant::now())? {
                    break;
                }
            }
            connection.turn(&mut |_| {})?;
        }
        let throughput = Throughput { completed: connection.completed, took: started.elapsed() };
        connection.finish(&mut |_| {})?;
        Ok(throughput)
    }

    /// Evenly spaced requests, whether or not earlier ones are answered. Latency counts from the
    /// time at which a request was due, so a server that stalls cannot hide it.
    pub fn open_loop(&self, per_second: f64, time: Duration) -> io::Result<Vec<Duration>> {
        let mut connection = Connection::open(self)?;
        let step = Duration::from_secs_f64(1.0 / per_second);
        let total = (time.as_secs_f64() * per_second) as usize;
        let mut latencies = Vec::with_capacity(total);
        let started = Instant::now();
        while connection.sent < total {
            let due = started + step * u32::try_from(connection.sent).expect("a short run");
            // What finds the peer's window full leaves later, and its latency shows that.
            if Instant::now() >= due {
                connection.send(due)?;
            }
            if started.elapsed() > 3 * time {
                return Err(io::Error::other("the server does not keep up with half load"));
            }
            connection.turn(&mut |latency| latencies.push(latency))?;
        }
        connection.finish(&mut |latency| latencies.push(latency))?;
        Ok(latencies)
    }
}

struct Connection<'a> {
    load: &'a Load<'a>,
    stream: TcpStream,
    first_block: Vec<u8>,
    later_block: Vec<u8>,
    outgoing: Vec<u8>,
    incoming: Vec<u8>,
    /// When each request was due; its stream is twice its place plus one.
    due: Vec<Instant>,
    /// Of each answer under way whose head has come, its body so far.
    answers: HashMap<u32, Vec<u8>>,
    last_body: Vec<u8>,
    sent: usize,
    completed: usize,
    /// What the peer lets us send on the connection.
    window: i64,
    /// What we received and have not given back yet.
    unreturned: usize,
}

impl<'a> Connection<'a> {
    fn open(load: &'a Load<'a>) -> io::Result<Self> {
        let stream = TcpStream::connect(load.address)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        let (first_block, later_block) = load.requests.header_blocks();
        let mut connection = Self {
            load,
            stream,
            first_block,
            later_block,
            outgoing: b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
            incoming: Vec::with_capacity(1 << 16),
            due: Vec::new(),
            answers: HashMap::new(),
            last_body: Vec::new(),
            sent: 0,
            completed: 0,
            window: 65_535,
            unreturned: 0,
        };
        connection.frame(SETTINGS, 0, 0, &[]);
        connection.frame(WINDOW_UPDATE, 0, 0, &(1u32 << 30).to_be_bytes());
        Ok(connection)
    }

    fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let length = u32::try_from(payload.len()).expect("a short frame").to_be_bytes();
        self.outgoing.extend_from_slice(&length[1..]);
        self.outgoing.extend_from_slice(&[kind, flags]);
        self.outgoing.extend_from_slice(&stream.to_be_bytes());
        self.outgoing.extend_from_slice(payload);
    }

    /// False: the peer's window is full.
    fn send(&mut self, due: Instant) -> io::Result<bool> {
        let load = self.load;
        let body = &load.requests.bodies[self.sent % load.requests.bodies.len()];
        if self.window < body.len() as i64 {
            return Ok(false);
        }
        self.window -= body.len() as i64;
        let stream = u32::try_from(self.sent * 2 + 1).expect("a short run");
        let end = if body.is_empty() { END_STREAM } else { 0 };
        let later = std::mem::take(&mut self.later_block);
        let first = std::mem::take(&mut self.first_block);
        let block = if self.sent == 0 { &first } else { &later };
        self.frame(HEADERS, END_HEADERS | end, stream, block);
        (self.later_block, self.first_block) = (later, first);
        if !body.is_empty() {
            self.frame(DATA, END_STREAM, stream, body);
        }
        self.due.push(due);
        self.sent += 1;
        Ok(true)
    }

    /// Waits for the answers still missing, so that no round disturbs the next one.
    fn finish(mut self, answered: &mut impl FnMut(Duration)) -> io::Result<()> {
        let started = Instant::now();
        while self.completed < self.sent {
            self.turn(answered)?;
            if started.elapsed() > Duration::from_secs(5) {
                return Err(io::Error::other("answers are missing"));
            }
        }
        Ok(())
    }

    /// Writes and reads what is possible without waiting.
    fn turn(&mut self, answered: &mut impl FnMut(Duration)) -> io::Result<()> {
        if !self.outgoing.is_empty() {
            match self.stream.write(&self.outgoing) {
                Ok(written) => {
                    self.outgoing.drain(..written);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        let mut buffer = [0; 1 << 15];
        match self.stream.read(&mut buffer) {
            Ok(0) => return Err(io::Error::other("the server closed the connection")),
            Ok(read) => self.incoming.extend_from_slice(&buffer[..read]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        }
        let incoming = std::mem::take(&mut self.incoming);
        let mut rest = &incoming[..];
        while let Some((head, after)) = rest.split_at_checked(FRAME_HEAD) {
            let length =
                usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
            let Some((payload, after)) = after.split_at_checked(length) else { break };
            let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
            self.receive((head[3], head[4], stream), payload, answered)?;
            rest = after;
        }
        self.incoming = rest.to_vec();
        Ok(())
    }

    fn receive(
        &mut self,
        (kind, flags, stream): (u8, u8, u32),
        payload: &[u8],
        answered: &mut impl FnMut(Duration),
    ) -> io::Result<()> {
        match kind {
            DATA => {
                self.answers.entry(stream).or_default().extend_from_slice(payload);
                self.unreturned += payload.len();
                if self.unreturned > 1 << 20 {
                    let returned = u32::try_from(self.unreturned).expect("below the window");
                    self.unreturned = 0;
                    self.frame(WINDOW_UPDATE, 0, 0, &returned.to_be_bytes());
                }
            }
            // Trailers come later, and without a status.
            HEADERS if !self.answers.contains_key(&stream) => {
                let table_size = payload.iter().take_while(|byte| **byte & 0xe0 == 0x20).count();
                if payload.get(table_size) != Some(&STATUS_200) {
                    return Err(io::Error::other("an answer is not 200"));
                }
                self.answers.insert(stream, Vec::new());
            }
            SETTINGS if flags & ACK == 0 => self.frame(SETTINGS, ACK, 0, &[]),
            PING if flags & ACK == 0 => self.frame(PING, ACK, 0, payload),
            WINDOW_UPDATE if stream == 0 => {
                let bytes = payload.try_into().map_err(|_| io::Error::other("a broken frame"))?;
                self.window += i64::from(u32::from_be_bytes(bytes));
            }
            RST_STREAM | GOAWAY => return Err(io::Error::other("the server refused a request")),
            _ => {}
        }
        if matches!(kind, DATA | HEADERS) && flags & END_STREAM != 0 {
            let body = self.answers.remove(&stream).unwrap_or_default();
            if !self.load.expect.accepts(&body) {
                let text = String::from_utf8_lossy(&body);
                return Err(io::Error::other(format!("an unexpected answer: {text:?}")));
            }
            self.last_body = body;
            self.completed += 1;
            answered(self.due[(stream / 2) as usize].elapsed());
        }
        Ok(())
    }
}
