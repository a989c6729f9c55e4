//! What a tap keeps of connections that have ended.

use std::io::{Read, Write};
use std::time::Instant;

use super::*;
use crate::decode::Look;
use crate::protocol::{Cipher, PUBLISHED_KEY};

/// Passes one connection on, has `talk` use it from both sides, and waits until the tap keeps nothing of it.
fn is_forgotten_after(mischief: Mischief, talk: impl Fn(&mut TcpStream, &mut TcpStream)) {
    let cipher = Cipher::new(PUBLISHED_KEY).unwrap();
    let (out, capture) = (Box::new(io::sink()), Some(Box::new(io::sink()) as Box<dyn Write + Send>));
    let watcher = Arc::new(Watcher::new(cipher, 65_536, Look::default(), false, out, capture).unwrap());
    let tap = Arc::new(Tap { mischief, watcher: watcher.clone() });
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let joined = || {
        let mine = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        mine.set_read_timeout(Some(PATIENCE)).unwrap();
        (mine, listener.accept().unwrap().0)
    };
    let ((mut client, at_client), (mut server, at_server)) = (joined(), joined());
    tap.join(at_client, at_server).unwrap();
    assert_eq!(watcher.kept(), [2, 1, 1]);
    talk(&mut client, &mut server);
    drop((client, server));
    let began = Instant::now();
    while watcher.kept() != [0, 0, 0] {
        assert!(began.elapsed() < PATIENCE, "{:?} is kept", watcher.kept());
        std::thread::yield_now();
    }
}

const PATIENCE: Duration = Duration::from_secs(30);

#[test]
fn nothing_is_kept_of_a_connection_that_has_ended() {
    is_forgotten_after(Mischief::default(), |client, server| {
        client.write_all(b"part of a packet").unwrap();
        server.read_exact(&mut [0; 16]).unwrap();
    });
    for stop in [Stop::Cut, Stop::Close, Stop::Silence] {
        let mischief = Mischief { only: Some(Direction::ToServer), stop: Some((5, stop)), ..Mischief::default() };
        is_forgotten_after(mischief, |client, server| {
            client.write_all(b"0123456789").unwrap();
            if stop != Stop::Cut {
                server.read_exact(&mut [0; 5]).unwrap();
            }
        });
    }
}

#[test]
fn nothing_is_kept_of_a_connection_whose_two_sides_take_no_more() {
    // Both directions are full, so both of them wait in a write when the sockets are closed with bytes unread: a reset.
    is_forgotten_after(Mischief::default(), |client, server| {
        for side in [client, server] {
            side.set_nonblocking(true).unwrap();
            while side.write(&[0xff; 65_536]).is_ok() {}
        }
    });
}
