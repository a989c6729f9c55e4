//! Asking a running server over its control socket `DIR/ctl.sock`: one line out, one line back.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

pub use crate::server::CTL_SOCKET as SOCKET;

/// Sends `request`, a word without the line's end, to the server of `data` and returns the line that it answers, without its end.
/// `None`: no server listens there.
///
/// # Errors
/// A sentence: the socket cannot be used, or no whole line has come within `timeout`.
pub fn ask(data: &Path, request: &str, timeout: Duration) -> Result<Option<String>, String> {
    let path = data.join(SOCKET);
    let deadline = Instant::now() + timeout;
    let Some(mut socket) = connect(data)? else { return Ok(None) };
    match exchange(&mut socket, request, deadline) {
        Ok(answer) => Ok(Some(answer)),
        Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => Err(format!(
            "the server has not answered {request:?} on {} within {} s; its log says what holds it up",
            path.display(),
            timeout.as_secs()
        )),
        Err(error) => {
            Err(format!("the server has not answered {request:?} on {} ({error}); its log says why", path.display()))
        }
    }
}

/// A connection to the server of `data`. `None`: no server listens there.
///
/// # Errors
/// A sentence: the socket cannot be used.
pub fn connect(data: &Path) -> Result<Option<UnixStream>, String> {
    let path = data.join(SOCKET);
    match UnixStream::connect(&path) {
        Ok(socket) => Ok(Some(socket)),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => Ok(None),
        Err(error) => Err(format!(
            "{} cannot be connected to ({error}); run this as the server's user, and keep the path below 108 bytes",
            path.display()
        )),
    }
}

fn exchange(socket: &mut UnixStream, request: &str, deadline: Instant) -> io::Result<String> {
    socket.set_write_timeout(Some(remaining(deadline)?))?;
    write_request(socket, request)?;
    let (mut answer, mut buffer) = (Vec::new(), [0; 4096]);
    while !answer.ends_with(b"\n") {
        socket.set_read_timeout(Some(remaining(deadline)?))?;
        match socket.read(&mut buffer) {
            Ok(0) => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it closed the connection")),
            Ok(count) => answer.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    answer.pop();
    String::from_utf8(answer).map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "its answer is not UTF-8"))
}

/// Sends a request. A server that has no place for another connection says so and closes, and may have done it before this: what it said is there to read.
///
/// # Errors
/// The socket's, that it is closed apart.
pub fn write_request(mut socket: &UnixStream, request: &str) -> io::Result<()> {
    match socket.write_all(format!("{request}\n").as_bytes()) {
        Err(error) if matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) => Ok(()),
        result => result,
    }
}

/// Never zero, which would mean: for ever.
fn remaining(deadline: Instant) -> io::Result<Duration> {
    let remaining = deadline.saturating_duration_since(Instant::now());
    if remaining.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(remaining) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader};
    use std::os::unix::net::UnixListener;
    use std::thread;

    /// What `ask` says when the server reads the request and then does this.
    fn asked(timeout: Duration, answer: impl FnOnce(&mut UnixStream) + Send) -> Result<Option<String>, String> {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join(SOCKET)).unwrap();
        thread::scope(|scope| {
            let asked = scope.spawn(|| ask(dir.path(), "save", timeout));
            let (mut socket, _) = listener.accept().unwrap();
            let mut line = String::new();
            BufReader::new(&socket).read_line(&mut line).unwrap();
            assert_eq!(line, "save\n");
            answer(&mut socket);
            let result = asked.join().unwrap();
            drop(socket);
            result
        })
    }

    #[test]
    fn an_answer_is_one_line() {
        let answer = asked(Duration::from_secs(30), |socket| {
            socket.write_all(b"{\"saved\":").unwrap();
            socket.write_all(b"3}\n").unwrap();
        });
        assert_eq!(answer, Ok(Some("{\"saved\":3}".to_owned())));
    }

    #[test]
    fn what_a_server_says_before_it_closes_is_read_also_when_it_took_no_request() {
        let (mut ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(b"{\"error\":\"8 connections are open already\"}\n").unwrap();
        drop(theirs);
        let deadline = Instant::now() + Duration::from_secs(30);
        assert_eq!(exchange(&mut ours, "status", deadline).unwrap(), "{\"error\":\"8 connections are open already\"}");
    }

    #[test]
    fn a_server_that_is_silent_or_leaves_is_told_apart_from_none() {
        let silent = asked(Duration::from_millis(20), |_| {}).unwrap_err();
        assert!(silent.contains("has not answered \"save\"") && silent.contains("within 0 s"), "{silent}");
        let gone = asked(Duration::from_secs(30), |socket| socket.shutdown(std::net::Shutdown::Both).unwrap());
        assert!(gone.as_ref().is_err_and(|why| why.contains("it closed the connection")), "{gone:?}");
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(ask(dir.path(), "save", Duration::ZERO), Ok(None));
        drop(UnixListener::bind(dir.path().join(SOCKET)).unwrap());
        assert_eq!(ask(dir.path(), "save", Duration::ZERO), Ok(None), "a socket that a killed server left");
    }
}
