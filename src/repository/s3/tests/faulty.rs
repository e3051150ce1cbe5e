//! A small S3 server in memory whose answers a test can spoil.

use openssl::hash::{MessageDigest, hash};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};

/// A request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) method: String,
    /// Without the bucket.
    pub(crate) key: String,
    pub(crate) query: String,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Vec<u8>,
}

impl Request {
    /// `PUT a/b`, with the query where it says what is done.
    pub(crate) fn name(&self) -> String {
        let query = self.query.split('&').filter(|part| !part.starts_with("x-id=")).collect::<Vec<_>>().join("&");
        let mark = if query.is_empty() { "" } else { "?" };
        format!("{} {}{mark}{query}", self.method, self.key)
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }
}

/// What is sent back.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// Bytes of the body that really come before the connection ends.
    pub(crate) cut: Option<usize>,
}

/// What a test does with a request.
pub(crate) enum Fault {
    /// Nothing.
    None,
    /// Another answer; the request is not carried out.
    Instead(Reply),
    /// The connection ends without an answer; the request is not carried out.
    Lost,
    /// The request is carried out, and its answer is lost.
    Deaf,
    /// The request is carried out, and its answer altered.
    Altered(fn(&mut Reply)),
    /// Nothing comes until the client gives up.
    Silent,
}

impl Reply {
    pub(crate) fn new(status: u16, headers: &[(&str, &str)], body: &[u8]) -> Reply {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Reply { status, headers, body: body.to_vec(), cut: None }
    }

    /// An error as S3 says it.
    pub(crate) fn error(status: u16, code: &str) -> Reply {
        let body = format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>so it is</Message></Error>");
        Reply::new(status, &[("content-type", "application/xml")], body.as_bytes())
    }

    pub(crate) fn set(&mut self, name: &str, value: &str) {
        self.headers.retain(|(other, _)| other != name);
        self.headers.push((name.to_owned(), value.to_owned()));
    }
}

/// An object, or a part of one.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    pub(crate) content: Vec<u8>,
    etag: String,
    pub(crate) metadata: Vec<(String, String)>,
}

/// An upload under way.
#[derive(Clone, Debug, Default)]
pub(crate) struct Begun {
    pub(crate) key: String,
    metadata: Vec<(String, String)>,
    parts: BTreeMap<u32, Held>,
}

impl Begun {
    pub(crate) fn of(key: &str) -> Begun {
        Begun { key: key.to_owned(), ..Begun::default() }
    }
}

/// What the server holds, and what it was asked.
#[derive(Debug, Default)]
pub(crate) struct Contents {
    pub(crate) objects: BTreeMap<String, Held>,
    pub(crate) uploads: BTreeMap<String, Begun>,
    pub(crate) requests: Vec<Request>,
    /// When uploads say that they began.
    pub(crate) initiated: String,
    /// Whether conditions are ignored, as some stores do.
    pub(crate) unconditional: bool,
}

/// See the module. It ends with the process.
#[derive(Clone)]
pub(crate) struct Faulty {
    pub(crate) port: u16,
    contents: Arc<Mutex<Contents>>,
}

type Spoil = dyn FnMut(&Request) -> Fault + Send;

impl Faulty {
    /// A server that asks `spoil` about every request.
    pub(crate) fn start(spoil: impl FnMut(&Request) -> Fault + Send + 'static) -> Faulty {
        let listener = TcpListener::bind("127.0.0.1:0").expect("listening");
        let port = listener.local_addr().expect("address").port();
        let server = Faulty { port, contents: Arc::default() };
        let (contents, spoil): (_, Arc<Mutex<Box<Spoil>>>) =
            (server.contents.clone(), Arc::new(Mutex::new(Box::new(spoil))));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (contents, spoil) = (contents.clone(), spoil.clone());
                std::thread::spawn(move || serve(stream, &contents, &spoil));
            }
        });
        server
    }

    pub(crate) fn contents(&self) -> MutexGuard<'_, Contents> {
        self.contents.lock().expect("lock")
    }

    /// What was asked, in order.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.contents().requests.iter().map(Request::name).collect()
    }
}

fn serve(mut stream: TcpStream, contents: &Mutex<Contents>, spoil: &Mutex<Box<Spoil>>) -> Option<()> {
    let request = receive(&mut stream)?;
    contents.lock().expect("lock").requests.push(request.clone());
    let fault = (spoil.lock().expect("lock"))(&request);
    let reply = match fault {
        Fault::Lost => return None,
        Fault::Silent => {
            let _ = stream.read(&mut [0]);
            return None;
        }
        Fault::Instead(reply) => reply,
        Fault::None => carry_out(&mut contents.lock().expect("lock"), &request),
        Fault::Deaf => {
            carry_out(&mut contents.lock().expect("lock"), &request);
            return None;
        }
        Fault::Altered(alter) => {
            let mut reply = carry_out(&mut contents.lock().expect("lock"), &request);
            alter(&mut reply);
            reply
        }
    };
    let length = match reply.headers.iter().any(|(name, _)| name == "content-length") {
        true => String::new(),
        false => format!("content-length: {}\r\n", reply.body.len()),
    };
    let headers: String = reply.headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let head = format!("HTTP/1.1 {} x\r\nconnection: close\r\n{length}{headers}\r\n", reply.status);
    stream.write_all(head.as_bytes()).ok()?;
    let body = if request.method == "HEAD" { &[][..] } else { &reply.body };
    stream.write_all(&body[..reply.cut.unwrap_or(body.len()).min(body.len())]).ok()
}

fn receive(stream: &mut TcpStream) -> Option<Request> {
    let mut lines = BufReader::new(stream.try_clone().ok()?);
    let mut line = String::new();
    lines.read_line(&mut line).ok()?;
    let mut words = line.split_whitespace();
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        lines.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.insert(name.to_lowercase(), value.trim().to_owned());
    }
    if headers.contains_key("expect") {
        stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").ok()?;
    }
    let length = headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    lines.read_exact(&mut body).ok()?;
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let key = path.trim_start_matches("/bucket").trim_start_matches('/').replace("%3D", "=");
    Some(Request { method, key, query: query.to_owned(), headers, body })
}

fn etag(content: &[u8]) -> String {
    hex::encode(hash(MessageDigest::md5(), content).expect("md5"))
}

fn parameter<'a>(request: &'a Request, name: &str) -> Option<&'a str> {
    request.query.split('&').find_map(|part| part.strip_prefix(name)?.strip_prefix('='))
}

/// The objects whose key begins with the prefix that is asked for, in one page.
fn keys(contents: &Contents, request: &Request) -> Reply {
    let prefix = parameter(request, "prefix").unwrap_or_default().replace("%2F", "/").replace("%3D", "=");
    let of = |(key, held): (&String, &Held)| {
        let size = held.content.len();
        format!(
            "<Contents><Key>{key}</Key><Size>{size}</Size><LastModified>2026-11-20T02:00:00Z</LastModified></Contents>"
        )
    };
    let found: String = contents.objects.iter().filter(|(key, _)| key.starts_with(&prefix)).map(of).collect();
    let body = format!("<ListBucketResult><IsTruncated>false</IsTruncated>{found}</ListBucketResult>");
    Reply::new(200, &[], body.as_bytes())
}

fn carry_out(contents: &mut Contents, request: &Request) -> Reply {
    let metadata = request.headers.iter().filter(|(name, _)| name.starts_with("x-amz-meta-"));
    let metadata: Vec<_> = metadata.map(|(name, value)| (name.clone(), value.clone())).collect();
    let upload = parameter(request, "uploadId").map(str::to_owned);
    let taken = contents.objects.contains_key(&request.key)
        && request.header("if-none-match").is_some()
        && !contents.unconditional;
    match (request.method.as_str(), upload) {
        ("HEAD" | "GET", None) if request.query.starts_with("uploads") => listing(contents),
        ("GET", None) if request.query.contains("list-type=2") => keys(contents, request),
        ("HEAD" | "GET", _) => fetch(contents, request),
        ("PUT" | "POST", _) if taken => Reply::error(412, "PreconditionFailed"),
        ("PUT", None) => {
            let held = Held { etag: etag(&request.body), content: request.body.clone(), metadata };
            let reply = Reply::new(200, &[("etag", &format!("\"{}\"", held.etag))], b"");
            contents.objects.insert(request.key.clone(), held);
            reply
        }
        ("POST", None) => {
            let id = format!("upload-{}", contents.requests.len());
            contents.uploads.insert(id.clone(), Begun { key: request.key.clone(), metadata, ..Begun::default() });
            let body =
                format!("<InitiateMultipartUploadResult><UploadId>{id}</UploadId></InitiateMultipartUploadResult>");
            Reply::new(200, &[], body.as_bytes())
        }
        ("DELETE", None) => {
            contents.objects.remove(&request.key);
            Reply::new(204, &[], b"")
        }
        (method, Some(id)) => of_upload(contents, request, method, &id),
        _ => Reply::error(400, "InvalidRequest"),
    }
}

fn of_upload(contents: &mut Contents, request: &Request, method: &str, id: &str) -> Reply {
    let Some(begun) = contents.uploads.get_mut(id) else { return Reply::error(404, "NoSuchUpload") };
    match method {
        "PUT" => {
            let number = parameter(request, "partNumber").and_then(|number| number.parse().ok()).expect("number");
            let held = Held { etag: etag(&request.body), content: request.body.clone(), metadata: Vec::new() };
            let reply = Reply::new(200, &[("etag", &format!("\"{}\"", held.etag))], b"");
            begun.parts.insert(number, held);
            reply
        }
        "POST" => {
            let begun = contents.uploads.remove(id).expect("looked up");
            let content = begun.parts.values().flat_map(|part| part.content.clone()).collect::<Vec<u8>>();
            let sums: Vec<u8> = begun.parts.values().flat_map(|part| hex::decode(&part.etag).expect("hex")).collect();
            let etag = format!("{}-{}", etag(&sums), begun.parts.len());
            let body =
                format!("<CompleteMultipartUploadResult><ETag>\"{etag}\"</ETag></CompleteMultipartUploadResult>");
            contents.objects.insert(begun.key, Held { content, etag, metadata: begun.metadata });
            Reply::new(200, &[], body.as_bytes())
        }
        _ => {
            contents.uploads.remove(id);
            Reply::new(204, &[], b"")
        }
    }
}

fn fetch(contents: &Contents, request: &Request) -> Reply {
    let Some(held) = contents.objects.get(&request.key) else {
        return Reply::error(404, "NoSuchKey");
    };
    let etag = format!("\"{}\"", held.etag);
    if request.header("if-match").is_some_and(|wanted| wanted != etag) {
        return Reply::error(412, "PreconditionFailed");
    }
    let size = held.content.len();
    let wanted = request.header("range").and_then(|range| {
        let (start, end) = range.strip_prefix("bytes=")?.split_once('-')?;
        Some((start.parse::<usize>().ok()?, end.parse::<usize>().ok()? + 1))
    });
    let (start, end) = wanted.unwrap_or((0, size));
    let mut reply = Reply::new(200, &[("etag", &etag)], &held.content[start..end.min(size)]);
    if wanted.is_some() {
        reply.status = 206;
        reply.set("content-range", &format!("bytes {start}-{}/{size}", end - 1));
    }
    reply.set("last-modified", "Fri, 20 Nov 2026 02:00:00 GMT");
    reply.headers.extend(held.metadata.clone());
    reply
}

fn listing(contents: &Contents) -> Reply {
    let uploads: String = contents
        .uploads
        .iter()
        .map(|(id, begun)| {
            let at = &contents.initiated;
            format!("<Upload><Key>{}</Key><UploadId>{id}</UploadId><Initiated>{at}</Initiated></Upload>", begun.key)
        })
        .collect();
    let body =
        format!("<ListMultipartUploadsResult><IsTruncated>false</IsTruncated>{uploads}</ListMultipartUploadsResult>");
    Reply::new(200, &[], body.as_bytes())
}
