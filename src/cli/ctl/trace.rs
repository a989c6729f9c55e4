//! `ctl trace`: one user's packets as they pass, a line each.

use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::process::ExitCode;
use std::time::Duration;

use serde_json::Value;

use super::no_server;
use crate::cli::{DataArg, ctl_client, fail};
use crate::terminal::{Style, colours_wanted, escape, escape_json, paint, utc};

/// Until the server ends it, or whoever reads this has read enough; exit code 3 when the server refuses, 1 when the lines cannot be written.
pub fn run(data: &DataArg, request: &str, is_json: bool, timeout: Duration) -> ExitCode {
    let socket = match ctl_client::connect(&data.data).and_then(|socket| socket.ok_or_else(|| no_server(data))) {
        Ok(socket) => socket,
        Err(why) => return fail(why),
    };
    // For the first line: after it there may be nothing to show for as long as it likes.
    let asked = socket.set_read_timeout(Some(timeout)).and_then(|()| ctl_client::write_request(&socket, request));
    if let Err(error) = asked {
        return fail(format!("the server cannot be asked ({error}); its log says why"));
    }
    let (mut name, mut out, colours) = (String::new(), std::io::stdout().lock(), colours_wanted());
    for line in BufReader::new(&socket).lines() {
        let line = match line {
            Ok(line) => line,
            Err(error) => return fail(format!("the trace broke off ({error}); the server's log says why")),
        };
        let Ok(value) = serde_json::from_str::<Value>(&line) else {
            return fail(format!("the server's line is no JSON: {line}"));
        };
        if let Some(begun) = value["trace"].as_str() {
            name = escape(begun).into_owned();
            let _ = socket.set_read_timeout(None);
        }
        let text = if is_json { escape_json(&line).into_owned() } else { readable(&value, &name, colours) };
        match writeln!(out, "{text}").and_then(|()| out.flush()) {
            Ok(()) => {}
            // Whoever has read enough and closed it, as `head` does, is no error.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => return ExitCode::SUCCESS,
            Err(error) => return fail(format!("standard output cannot be written ({error})")),
        }
        if value["trace"].is_null() && value["direction"].is_null() && value["error"].is_string() {
            return ExitCode::from(3);
        }
    }
    if name.is_empty() { fail("the server closed the connection; its log says why") } else { ExitCode::SUCCESS }
}

/// A line for a person, in the words of `decode --short` and `tap`.
fn readable(line: &Value, user: &str, colours: bool) -> String {
    if line["trace"].is_string() {
        let there = match (line["connected"] == true, line["known"] == false) {
            (true, _) => "is there",
            (false, false) => "is not there yet",
            (false, true) => "is not there and was never here",
        };
        return format!("tracing {user}, who {there}; Ctrl-C ends it");
    }
    if let Some(lost) = line["lost"].as_u64() {
        return format!("… {lost} packets are not shown: they came faster than they were read here");
    }
    let Some(at) = line["time"].as_i64() else { return line.to_string() };
    let utc = utc(at.div_euclid(1000));
    let clock = utc.get(11..19).unwrap_or(&utc);
    let route = match line["direction"] == "in" {
        true => paint(&format!("{user} → server"), Style::Cyan, colours),
        false => paint(&format!("server → {user}"), Style::Green, colours),
    };
    let time = paint(&format!("{clock}.{:03}", at.rem_euclid(1000)), Style::Dim, colours);
    let text = |name: &str| escape(line[name].as_str().unwrap_or_default()).into_owned();
    let error = match line["error"].is_string() {
        true => paint(&format!("✗ {}", text("error")), Style::Red, colours),
        false => String::new(),
    };
    let mut words = vec![time, route, format!("{:<20}", text("name")), text("summary"), error];
    words.retain(|word| !word.is_empty());
    words.join("  ").trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_packet_is_a_line_that_commands_no_terminal() {
        let line = json!({
            "time": 1_407_938_400_034_i64, "direction": "in", "type": 5, "name": "PK_C2CTextChat", "error": null,
            "summary": "to_uuid=\"Bob\" text_msg=\"two words\u{202e}\" timestamp=7",
        });
        assert_eq!(
            readable(&line, "Ann", false),
            "14:00:00.034  Ann → server  PK_C2CTextChat        to_uuid=\"Bob\" text_msg=\"two words\\u{202e}\" timestamp=7"
        );
        let bad =
            json!({ "time": 34, "direction": "out", "name": "unknown type", "summary": "", "error": "bad\u{1b}" });
        assert_eq!(readable(&bad, "Ann", false), "00:00:00.034  server → Ann  unknown type          ✗ bad\\u{1b}");
        assert!(readable(&bad, "Ann", true).ends_with("\u{1b}[31m✗ bad\\u{1b}\u{1b}[0m"));
        assert!(readable(&json!({ "lost": 7 }), "Ann", false).contains("7 packets are not shown"));
        let begun = json!({ "trace": "Ann", "connected": false, "known": false });
        assert!(readable(&begun, "Ann", false).contains("who is not there and was never here; Ctrl-C"));
    }
}
