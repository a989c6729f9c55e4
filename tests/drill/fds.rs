//! No descriptors left: the limit of the running server is lowered to what it has open, or up to three more. Some knock and are not let in; who is in goes on.
//! Then the limit is what it was, and all who have knocked are served. At last a server with few descriptors is filled to its computed cap.

use std::time::Duration;

use chatserver::client::Connection;
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};

use crate::hardening::{at_rest, until_at_rest};
use crate::harness::Server;
use crate::scarce::{Insiders, Need, SERVED_WITHIN, at_the_cap, until_served};
use crate::{Outcome, process, wire};

/// Descriptors of a server whose computed cap is `scarce::CAP`.
const FEW: &str = "--nofile=200";

/// Leaves a server without descriptors `times` times.
pub fn run(times: u32, _seed: u64) -> Outcome {
    let place = tempfile::tempdir().expect("a temporary directory");
    let mut server = process::start(&place.path().join("data"), |setup| setup);
    let mut insiders = Insiders::of(&server);
    let mut need = Need::default();
    let mut kept_waiting = 0;
    for time in 0..times {
        let before = at_rest(&server);
        kept_waiting += without(&server, &format!("time {time}"), u64::from(time % 4), &mut insiders, &mut need);
        until_at_rest(&server, &before);
    }
    insiders.finish(&server, &mut need);
    let status = server.sigterm();
    if !status.success() {
        need.wrong.push(format!("at the end SIGTERM: {status}"));
    }
    let cap = at_the_cap(|setup| setup.wrapper(&["prlimit", FEW]), &mut need.wrong);
    let line = format!("fds: {times} times without descriptors, {kept_waiting} kept waiting, {}; {cap}", need.line());
    Outcome { line, wrong: need.wrong }
}

/// One time: with so many free descriptors. Gives the number of those who had to wait.
fn without(server: &Server, name: &str, free: u64, insiders: &mut Insiders, need: &mut Need) -> usize {
    let pid = Pid::from_raw(server.pid().cast_signed());
    let limit = |limit| prlimit(pid, Resource::Nofile, limit).expect("it runs as we do");
    let used = server.descriptors() as u64;
    let before = limit(Rlimit { current: Some(used + free), maximum: getrlimit(Resource::Nofile).maximum });
    let (mut waiting, mut knocks) = (Vec::<Connection>::new(), 0);
    insiders.go_on(server, name, need, || {
        let mut one = server.connect().open().expect("the kernel takes it");
        knocks += 1;
        one.write_raw(&wire::login(&format!("waits {knocks}"))).expect("the kernel takes it");
        waiting.push(one);
    });
    // One descriptor or three may have been enough for the first ones.
    waiting.retain_mut(|one| !matches!(one.read_packet(Duration::ZERO), Ok(Some(_))));
    if waiting.is_empty() {
        need.wrong.push(format!("{name}: nobody had to wait"));
    }
    limit(before);
    until_served(server, name, need);
    let answers = waiting.iter_mut().map(|one| one.read_packet(SERVED_WITHIN));
    let unanswered = answers.filter(|answer| !matches!(answer, Ok(Some(_)))).count();
    if unanswered > 0 {
        need.wrong.push(format!("{name}: {unanswered} of {} who waited got no answer", waiting.len()));
    }
    waiting.len()
}
