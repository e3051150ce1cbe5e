//! A proxy before an S3 server that lets requests through, or does to them what networks and stores do: errors, broken
//! connections, bodies cut short, contents altered, long waits, narrow lines. One request per connection, so that each is
//! decided on.

use neo4j_backup_agent::base::clock::wait_until;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Longest head of a message.
const HEAD_MAX: usize = 64 << 10;
/// Bytes that are passed on at once.
const PIECE: usize = 16 << 10;
/// A body of a request that is answered without the server is read up to here, so that the answer is heard.
const DRAINED: u64 = 64 << 20;

/// What happens to a request.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// Nothing.
    None,
    /// This answer instead of the server's.
    Answer(u16, &'static str),
    /// The connection is closed without a word.
    Refused,
    /// The connection breaks after so many bytes of the request's body.
    RequestCut(u64),
    /// The connection breaks after so many bytes of the answer's body.
    AnswerCut(u64),
    /// The answer names another checksum than the content's.
    WrongChecksum,
    /// A bit of the answer's body is another one.
    Flipped,
    /// The request waits, and then moves at so many bytes a second (0 = as fast as it can).
    Slow(Duration, u64),
}

/// A request, as far as it is decided on.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    /// `GET`, `PUT`.
    pub(crate) method: String,
    /// Path and query.
    pub(crate) path: String,
    /// How many came before it.
    pub(crate) number: u64,
}

impl Asked {
    /// Whether it is a part of an upload.
    pub(crate) fn is_part(&self) -> bool {
        self.method == "PUT" && self.path.contains("partNumber=")
    }
}

type Decide = Box<dyn FnMut(&Asked) -> Fault + Send>;

struct Shared {
    upstream: u16,
    decide: Mutex<Decide>,
    asked: AtomicU64,
    faults: AtomicU64,
    ended: AtomicBool,
}

/// See the module. It ends with the value.
pub(crate) struct Proxy {
    port: u16,
    shared: Arc<Shared>,
}

impl Proxy {
    /// A proxy before the server that listens on `upstream`; it does nothing to requests.
    pub(crate) fn before(upstream: u16) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("its address").port();
        let shared = Arc::new(Shared {
            upstream,
            decide: Mutex::new(Box::new(|_| Fault::None)),
            asked: AtomicU64::new(0),
            faults: AtomicU64::new(0),
            ended: AtomicBool::new(false),
        });
        let serving = shared.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if serving.ended.load(Ordering::SeqCst) {
                    return;
                }
                let shared = serving.clone();
                // A connection that breaks is what this is for.
                std::thread::spawn(move || serve(client, &shared).ok());
            }
        });
        Proxy { port, shared }
    }

    /// Where it answers.
    pub(crate) fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Decides on requests from now on; the counts begin anew.
    pub(crate) fn decide(&self, decide: impl FnMut(&Asked) -> Fault + Send + 'static) {
        let mut kept = self.shared.decide.lock().unwrap_or_else(PoisonError::into_inner);
        self.shared.asked.store(0, Ordering::SeqCst);
        self.shared.faults.store(0, Ordering::SeqCst);
        *kept = Box::new(decide);
    }

    /// Requests since then, and those to which something was done.
    pub(crate) fn counts(&self) -> (u64, u64) {
        (self.shared.asked.load(Ordering::SeqCst), self.shared.faults.load(Ordering::SeqCst))
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

/// The beginning of a message up to its empty line, and what came with it.
struct Head {
    lines: Vec<String>,
    rest: Vec<u8>,
}

impl Head {
    fn read(stream: &mut TcpStream) -> std::io::Result<Option<Head>> {
        let (mut bytes, mut piece) = (Vec::new(), [0; 4096]);
        loop {
            if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
                let text = String::from_utf8_lossy(&bytes[..end]).into_owned();
                let lines = text.split("\r\n").map(str::to_owned).collect();
                return Ok(Some(Head { lines, rest: bytes[end + 4..].to_vec() }));
            }
            let count = stream.read(&mut piece)?;
            if count == 0 || bytes.len() > HEAD_MAX {
                return Ok(None);
            }
            bytes.extend_from_slice(&piece[..count]);
        }
    }

    fn value(&self, name: &str) -> Option<&str> {
        let named = self.lines.iter().filter_map(|line| line.split_once(':'));
        named.filter(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim()).next()
    }

    fn set(&mut self, name: &str, value: &str) {
        self.lines.retain(|line| !line.split_once(':').is_some_and(|(found, _)| found.eq_ignore_ascii_case(name)));
        self.lines.push(format!("{name}: {value}"));
    }

    fn length(&self) -> u64 {
        self.value("content-length").and_then(|length| length.parse().ok()).unwrap_or(0)
    }

    fn bytes(&self) -> Vec<u8> {
        format!("{}\r\n\r\n", self.lines.join("\r\n")).into_bytes()
    }
}

fn serve(mut client: TcpStream, shared: &Shared) -> std::io::Result<()> {
    let Some(mut head) = Head::read(&mut client)? else { return Ok(()) };
    let mut words = head.lines[0].split(' ').map(str::to_owned);
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let asked = Asked { method, path, number: shared.asked.fetch_add(1, Ordering::SeqCst) };
    let fault = (shared.decide.lock().unwrap_or_else(PoisonError::into_inner))(&asked);
    if !matches!(fault, Fault::None) {
        shared.faults.fetch_add(1, Ordering::SeqCst);
    }
    match fault {
        Fault::Refused => return Ok(()),
        Fault::Answer(status, code) => return answer(&mut client, &head, status, code),
        _ => {}
    }
    if let Fault::Slow(wait, _) = fault {
        pause(wait);
    }
    let mut server = TcpStream::connect(("127.0.0.1", shared.upstream))?;
    // The next request is decided on by itself.
    head.set("Connection", "close");
    server.write_all(&head.bytes())?;
    let (mut from, mut to) = (client.try_clone()?, server.try_clone()?);
    let (cut, rate) = (matches!(fault, Fault::RequestCut(_)), rate(&fault));
    let allowed = if let Fault::RequestCut(bytes) = fault { bytes } else { u64::MAX };
    let rest = std::mem::take(&mut head.rest);
    let sending = std::thread::spawn(move || {
        let _ = to.write_all(&rest[..rest.len().min(allowed as usize)]);
        let passed = pass(&mut from, &mut to, allowed.saturating_sub(rest.len() as u64), rate, false);
        if cut && passed.is_ok_and(|whole| !whole) {
            let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
        }
    });
    let passed = pass_answer(&mut server, &mut client, &fault, rate);
    let _ = (client.shutdown(Shutdown::Both), server.shutdown(Shutdown::Both));
    let _ = sending.join();
    passed
}

/// What this proxy is for: nothing comes that could be waited for.
fn pause(span: Duration) {
    wait_until(span, span, || false);
}

fn rate(fault: &Fault) -> u64 {
    if let Fault::Slow(_, rate) = fault { *rate } else { 0 }
}

fn pass_answer(server: &mut TcpStream, client: &mut TcpStream, fault: &Fault, rate: u64) -> std::io::Result<()> {
    loop {
        let Some(mut head) = Head::read(server)? else { return Ok(()) };
        let interim = head.lines[0].contains(" 100 ");
        if let (Fault::WrongChecksum, Some(_)) = (fault, head.value("etag")) {
            head.set("ETag", "\"00000000000000000000000000000000\"");
        }
        client.write_all(&head.bytes())?;
        if interim {
            // What came with it is the beginning of the real answer: servers send the two apart.
            assert!(head.rest.is_empty(), "an interim answer with something behind it");
            continue;
        }
        if let (Fault::Flipped, Some(first)) = (fault, head.rest.first_mut()) {
            *first ^= 1;
        }
        let allowed = if let Fault::AnswerCut(bytes) = fault { *bytes } else { u64::MAX };
        client.write_all(&head.rest[..head.rest.len().min(allowed as usize)])?;
        let flip = matches!(fault, Fault::Flipped) && head.rest.is_empty();
        return pass(server, client, allowed.saturating_sub(head.rest.len() as u64), rate, flip).map(|_| ());
    }
}

/// Passes bytes on; `false` if the limit ended it.
fn pass(
    from: &mut TcpStream,
    to: &mut TcpStream,
    mut allowed: u64,
    rate: u64,
    mut flip: bool,
) -> std::io::Result<bool> {
    let mut piece = [0; PIECE];
    loop {
        let count = from.read(&mut piece)?;
        if count == 0 {
            return Ok(true);
        }
        if std::mem::take(&mut flip) {
            piece[0] ^= 1;
        }
        let part = (count as u64).min(allowed);
        to.write_all(&piece[..part as usize])?;
        allowed -= part;
        if part < count as u64 {
            return Ok(false);
        }
        if rate > 0 {
            pause(Duration::from_secs_f64(count as f64 / rate as f64));
        }
    }
}

/// An answer of the proxy's own, as stores give it.
fn answer(client: &mut TcpStream, head: &Head, status: u16, code: &str) -> std::io::Result<()> {
    let body = match head.lines[0].starts_with("HEAD ") {
        true => String::new(),
        false => format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>bad weather</Message></Error>"),
    };
    if head.value("expect").is_none() {
        let left = head.length().saturating_sub(head.rest.len() as u64).min(DRAINED);
        std::io::copy(&mut Read::by_ref(client).take(left), &mut std::io::sink())?;
    }
    let length = body.len();
    let answer = format!(
        "HTTP/1.1 {status} Weather\r\nContent-Type: application/xml\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    );
    client.write_all(answer.as_bytes())?;
    client.shutdown(Shutdown::Write)?;
    std::io::copy(client, &mut std::io::sink()).map(|_| ())
}
