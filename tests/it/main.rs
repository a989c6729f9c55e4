//! The tests of the running server: the real program, real sockets, one test crate. The modules stand in the order in which a
//! session lives; the name of a test is the promise that it checks. Read first: `harness.rs`.
//!
//! Rules: a server of one's own on port 0 and in a directory of its own; barriers and conditions (`roundtrip`, `wait_for_log`,
//! `eventually`) instead of sleeps; what is only expected *not* to happen is followed by something that must happen.

mod harness;
mod running;
mod wire;

mod connecting;
mod login;

mod chat;
mod leaving;
mod offline;
mod takeover;

mod abuse;
mod bad_input;
mod custom;
mod limits;

mod level2;
mod level2_client;

mod keeping;
mod shutdown;
mod storage;

mod bench;
mod command_line;
mod conformance;
mod languages;
mod log_lines;
mod service;

mod control;
mod gauges;
mod http;
mod inside;
mod looking;
mod top;

mod mail;
mod smtp;

mod faults_2014;
mod recorded;
#[cfg(feature = "tools")]
mod tap;
mod wireshark;

mod hardening;
mod hardening_classes;
mod hardening_crowd;
mod hardening_disk;
mod hardening_limits;
mod hardening_network;
mod hardening_panic;
mod hardening_slow;
mod hardening_stress;
mod network;
