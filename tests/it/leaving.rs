//! A session ends: what its client has read and left in order does not come again, and what it has not read does.

use crate::harness::*;

#[test]
fn a_message_that_was_read_before_a_logout_does_not_come_again() {
    const USERS: usize = 100;
    let server = Server::start_default();
    let mut ann = server.login("ann");
    (0..USERS).for_each(|user| ann.send(&format!("user{user}"), "once").unwrap());
    ann.logout().unwrap();
    let server = server.restart();
    let again = (0..USERS).filter(|user| {
        let name = format!("user{user}");
        let mut first = server.login(&name);
        assert_eq!(next(&mut first).text, "once");
        first.logout().unwrap();
        // The server may not have done with the first connection.
        !all_texts(&mut server.login(&name)).is_empty()
    });
    assert_eq!(again.count(), 0, "so many of {USERS} users got their message a second time");
}

#[test]
fn a_client_that_reads_nothing_until_it_is_hung_up_on_loses_nothing() {
    let server = Server::start(|setup| setup.set("write_stall_timeout", "1 s"));
    let sent: Vec<String> = (0..400).map(|n| format!("{n:050000}")).collect();
    send_all(&mut server.login("ann"), "sleepy", &sent);
    let deaf = server.login("sleepy");
    server.wait_for_log("sleepy has taken nothing");
    server.wait_for_log(": sleepy: hung up on");
    drop(deaf);
    assert!(all_texts(&mut server.login("sleepy")) == sent);
}
