//! HTTP for collectors of figures, at `metrics_listen`: `/metrics` and `/health`, and nothing else.
//!
//! One deadline for all that the other side does: one that drips, or never reads, keeps its own thread for two seconds. `/health` has places of its own: it
//! answers also while others have taken all. Read first: RFC 9110, and RFC 9112 §3 on what a request looks like.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::side_door::{Room, SideDoor};
use super::{Shared, StartError, listener, metrics};
use crate::limits;

/// The listening socket, if one is wanted.
///
/// # Errors
/// The address cannot be used.
pub(super) fn listen(address: Option<SocketAddr>) -> Result<Option<TcpListener>, StartError> {
    let Some(address) = address else { return Ok(None) };
    let listener = listener::listen(address).map_err(|error| StartError::Metrics(address, error))?;
    let address = listener.local_addr().map_err(|error| StartError::Metrics(address, error))?;
    log::info!("HTTP on http://{address}/metrics and /health");
    Ok(Some(listener))
}

/// Answers on `listener`.
///
/// # Errors
/// The system has no thread for it.
pub(super) fn open(listener: TcpListener, shared: &Arc<Shared>) -> io::Result<SideDoor<TcpStream>> {
    let room = Room {
        name: "metrics_listen",
        threads: "http",
        places: limits::HTTP_CONNECTIONS + limits::HTTP_HEALTH_CONNECTIONS,
        refuse: |_| log::debug!("metrics_listen: refused, all places are taken"),
        serve: |socket, taken, shared| serve(socket, taken < limits::HTTP_CONNECTIONS, shared),
    };
    SideDoor::open(listener, room, shared)
}

/// Less than this the kernel does not wait: 0 would be for ever.
const SHORTEST: Duration = Duration::from_millis(1);

/// The path that is always answered.
const HEALTH: &str = "/health";

/// What is answered.
struct Answer {
    status: &'static str,
    kind: &'static str,
    body: String,
}

impl Answer {
    fn text(status: &'static str, body: &str) -> Answer {
        Answer { status, kind: "text/plain; charset=utf-8", body: format!("{body}\n") }
    }
}

/// What was asked for.
struct Request {
    is_head: bool,
    path: String,
}

/// One request, one answer. The other side has `limits::HTTP_TIMEOUT`, reading and writing together; who `has_place` is answered whatever it asks.
fn serve(socket: &TcpStream, has_place: bool, shared: &Arc<Shared>) -> io::Result<()> {
    let deadline = Instant::now() + limits::HTTP_TIMEOUT;
    let request = read_request(socket, deadline)?;
    let asked_at = Instant::now();
    let answer = match &request {
        Ok(request) if has_place || request.path == HEALTH => answer(&request.path, shared),
        Ok(_) => Answer::text("503 Service Unavailable", "all places are taken; /health is answered"),
        Err(refusal) => Answer::text(refusal.0, refusal.1),
    };
    // What our disk took is not the other side's time.
    let deadline = deadline + asked_at.elapsed();
    let Answer { status, kind, body } = &answer;
    let allow = if status.starts_with("405") { "Allow: GET, HEAD\r\n" } else { "" };
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nCache-Control: no-store\r\n{allow}Connection: close\r\n\r\n"
    );
    let body = if request.is_ok_and(|request| request.is_head) { "" } else { body };
    write_within(socket, [head.as_bytes(), body.as_bytes()].concat().as_slice(), deadline)?;
    // What it has sent beyond its request would turn our close into a reset, and it would lose the answer.
    socket.shutdown(Shutdown::Write)?;
    let mut sink = [0; 1024];
    while matches!(read_within(socket, &mut sink, deadline), Ok(count) if count > 0) {}
    Ok(())
}

/// The status and the words of a refusal.
struct Refusal(&'static str, &'static str);

fn read_request(socket: &TcpStream, deadline: Instant) -> io::Result<Result<Request, Refusal>> {
    let mut head = Vec::new();
    loop {
        if let Some(request) = parse(&head) {
            return Ok(request);
        }
        let mut bytes = [0; 1024];
        match read_within(socket, &mut bytes, deadline) {
            Ok(0) if head.is_empty() => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(0) => return Ok(Err(Refusal("400 Bad Request", "the request is not complete"))),
            Ok(count) => head.extend_from_slice(&bytes[..count]),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                return Ok(Err(Refusal("408 Request Timeout", "the request took too long")));
            }
            Err(error) => return Err(error),
        }
    }
}

/// Reads once, by the deadline.
fn read_within(mut socket: &TcpStream, bytes: &mut [u8], deadline: Instant) -> io::Result<usize> {
    loop {
        socket.set_read_timeout(Some(left(deadline)?))?;
        match socket.read(bytes) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            read => return read,
        }
    }
}

/// Writes all, by the deadline. A first write is tried in any case: the word that a request took too long fits into any socket.
fn write_within(mut socket: &TcpStream, mut bytes: &[u8], deadline: Instant) -> io::Result<()> {
    let mut patience = left(deadline).unwrap_or(SHORTEST);
    loop {
        socket.set_write_timeout(Some(patience))?;
        match socket.write(bytes) {
            Ok(count) if count == bytes.len() => return Ok(()),
            Ok(count) => bytes = &bytes[count..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        patience = left(deadline)?;
    }
}

/// The time until then.
///
/// # Errors
/// There is none, or less than the kernel can wait.
fn left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left < SHORTEST { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
}

/// The path that a request's target names. A proxy is sent, and may pass on, the absolute form: `http://host:port/path` (RFC 9112 §3.2.2).
fn path(target: &str) -> &str {
    let target = target.split('?').next().unwrap_or_default();
    let is_absolute =
        |scheme: &&str| target.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme));
    let Some(scheme) = ["http://", "https://"].iter().find(|scheme| is_absolute(scheme)) else { return target };
    target[scheme.len()..].find('/').map_or("/", |at| &target[scheme.len() + at..])
}

/// `None`: more must be read.
fn parse(head: &[u8]) -> Option<Result<Request, Refusal>> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(&head[..head.len().min(limits::HTTP_HEAD_BYTES)]) {
        Ok(httparse::Status::Partial) if head.len() < limits::HTTP_HEAD_BYTES => None,
        Ok(httparse::Status::Partial) => Some(Err(Refusal("400 Bad Request", "the request's head is too long"))),
        Err(_) => Some(Err(Refusal("400 Bad Request", "this is no HTTP request"))),
        Ok(httparse::Status::Complete(_)) => {
            let method = request.method.unwrap_or_default();
            let path = path(request.path.unwrap_or_default()).to_owned();
            Some(match method {
                "GET" | "HEAD" => Ok(Request { is_head: method == "HEAD", path }),
                _ => Err(Refusal("405 Method Not Allowed", "only GET and HEAD are answered here")),
            })
        }
    }
}

fn answer(path: &str, shared: &Arc<Shared>) -> Answer {
    match path {
        "/metrics" => Answer { status: "200 OK", kind: metrics::CONTENT_TYPE, body: metrics::text(&shared.status()) },
        HEALTH => {
            let status = shared.vital_status();
            let recent = shared.reporter.recent(&status.counts);
            let (is_well, health) = metrics::health(&status, &recent, shared.config().language);
            let status = if is_well { "200 OK" } else { "503 Service Unavailable" };
            Answer { status, kind: "application/json", body: format!("{health}\n") }
        }
        _ => Answer::text("404 Not Found", "there are /metrics and /health"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(head: &[u8]) -> Option<Result<(bool, String), &'static str>> {
        Some(parse(head)?.map(|request| (request.is_head, request.path)).map_err(|refusal| refusal.0))
    }

    #[test]
    fn a_request_is_read_to_its_end_and_no_farther() {
        assert_eq!(parsed(b""), None);
        assert_eq!(parsed(b"GET /metrics HTTP/1.1\r\nHost: x\r\n"), None);
        assert_eq!(parsed(b"GET /metrics?x=1 HTTP/1.1\r\n\r\nrest"), Some(Ok((false, "/metrics".into()))));
        assert_eq!(parsed(b"GET http://h:9/metrics HTTP/1.1\r\n\r\n"), Some(Ok((false, "/metrics".into()))));
        assert_eq!(parsed(b"GET HTTPS://h?x=/y HTTP/1.1\r\n\r\n"), Some(Ok((false, "/".into()))));
        assert_eq!(parsed(b"HEAD / HTTP/1.0\r\n\r\n"), Some(Ok((true, "/".into()))));
        assert_eq!(parsed(b"POST / HTTP/1.1\r\n\r\n"), Some(Err("405 Method Not Allowed")));
        assert_eq!(parsed(b"\x16\x03\x01 hello"), Some(Err("400 Bad Request")));
        let long = [&b"GET / HTTP/1.1\r\nX: "[..], &vec![b'x'; limits::HTTP_HEAD_BYTES]].concat();
        assert_eq!(parsed(&long), Some(Err("400 Bad Request")));
    }
}
