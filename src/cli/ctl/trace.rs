//! `ctl trace`: one user's packets as they pass, a line each.

use std::io::{BufRead, BufReader, Write};
use std::process::ExitCode;

use serde_json::Value;

use super::no_server;
use crate::cli::{DataArg, ctl_client, fail};
use crate::terminal::{escape, utc};

/// Until the server ends it, or whoever reads this has read enough; exit code 3 when the server refuses.
pub fn run(data: &DataArg, request: &str, is_json: bool) -> ExitCode {
    let socket = match ctl_client::connect(&data.data).and_then(|socket| socket.ok_or_else(|| no_server(data))) {
        Ok(socket) => socket,
        Err(why) => return fail(why),
    };
    if let Err(error) = (&socket).write_all(format!("{request}\n").as_bytes()) {
        return fail(format!("the server cannot be asked ({error}); its log says why"));
    }
    let (mut name, mut out) = (String::new(), std::io::stdout().lock());
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
        }
        let text = if is_json { line } else { readable(&value, &name) };
        // Whoever has read enough and closed it, as `head` does, is no error.
        if writeln!(out, "{text}").and_then(|()| out.flush()).is_err() {
            return ExitCode::SUCCESS;
        }
        if value["trace"].is_null() && value["direction"].is_null() && value["error"].is_string() {
            return ExitCode::from(3);
        }
    }
    if name.is_empty() { fail("the server closed the connection; its log says why") } else { ExitCode::SUCCESS }
}

/// A line for a person.
fn readable(line: &Value, user: &str) -> String {
    if line["trace"].is_string() {
        let there = if line["connected"] == true { "is there" } else { "is not there yet" };
        return format!("tracing {user}, who {there}; Ctrl-C ends it");
    }
    if let Some(lost) = line["lost"].as_u64() {
        return format!("… {lost} packets are not shown: they came faster than they were read here");
    }
    let Some(at) = line["time"].as_i64() else { return line.to_string() };
    let utc = utc(at.div_euclid(1000));
    let clock = utc.get(11..19).unwrap_or(&utc);
    let route = if line["direction"] == "in" { format!("{user} → server") } else { format!("server → {user}") };
    let name = line["name"].as_str().map_or_else(|| format!("type {}", line["type"]), str::to_owned);
    let error = line["error"].as_str().map_or(String::new(), |error| format!(" error: {}", escape(error)));
    format!("{clock}.{:03}  {route}  {name} {}{error}", at.rem_euclid(1000), fields(&line["fields"]))
}

/// `to=Bob text="hello"`: what is not there is left out.
fn fields(fields: &Value) -> String {
    let Some(fields) = fields.as_object() else { return String::new() };
    let shown =
        fields.iter().filter(|(_, value)| !value.is_null()).map(|(name, value)| format!(" {name}={}", shown(value)));
    shown.collect()
}

fn shown(value: &Value) -> String {
    let is_word = |text: &str| !text.is_empty() && !text.contains(|c: char| c.is_whitespace() || "\"=\\".contains(c));
    match value {
        Value::String(text) if is_word(text) => escape(text).into_owned(),
        other => escape(&other.to_string()).into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_packet_is_a_line_that_commands_no_terminal() {
        let fields = json!({ "to": "Bob", "text": "two words\u{1b}[2J\u{202e}", "msg_id": null, "time": 7 });
        let line = json!({
            "time": 1_407_938_400_034_i64, "direction": "in", "type": 5, "name": "PK_C2CTextChat", "fields": fields, "error": null,
        });
        assert_eq!(
            readable(&line, "Ann"),
            "14:00:00.034  Ann → server  PK_C2CTextChat  text=\"two words\\u001b[2J\\u{202e}\" time=7 to=Bob"
        );
        let bad = json!({ "time": 34, "direction": "out", "type": 9, "name": null, "fields": null, "error": "bad" });
        assert_eq!(readable(&bad, "Ann"), "00:00:00.034  server → Ann  type 9  error: bad");
        assert!(readable(&json!({ "lost": 7 }), "Ann").contains("7 packets are not shown"));
    }
}
