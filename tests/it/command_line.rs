//! The program as a person or a script uses it: what it prints, where, and with which exit code it ends.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::harness::*;

/// Runs the program to its end.
fn chatserver(arguments: &[&str], input: &str) -> Output {
    let mut command = program();
    command.args(arguments);
    run(command, input)
}

/// A client command, told where the server is.
fn client(server: &Server, arguments: &[&str], input: &str) -> Output {
    chatserver(&[arguments, &["--addr", server.addr()]].concat(), input)
}

#[track_caller]
fn assert_ends(output: &Output, code: i32) -> (String, String) {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "standard output:\n{out}\nstandard error:\n{err}");
    (out.into_owned(), err.into_owned())
}

/// Killed when the test ends, however it ends.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn help_and_version_are_told() {
    let (help, _) = assert_ends(&chatserver(&["--help"], ""), 0);
    for word in ["serve", "chat", "send", "listen", "users", "config", "Exit codes:", "--allow-published-key"] {
        assert!(help.contains(word), "{word} is missing:\n{help}");
    }
    for command in ["serve", "chat", "send", "listen", "users", "config"] {
        let (help, _) = assert_ends(&chatserver(&[command, "--help"], ""), 0);
        assert!(help.contains("Usage: chatserver"), "{help}");
    }
    let (version, _) = assert_ends(&chatserver(&["--version"], ""), 0);
    assert_eq!(version, format!("chatserver {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn wrong_usage_ends_with_2() {
    for arguments in [
        &["--nonsense"][..],
        &["nonsense"],
        &["send", "--as", "ann"],
        &["send", "--as", "ann", "--to", "a\nb", "hello"],
        &["listen", "--as", "ann", "--count", "0"],
        &["listen", "--as", "ann", "--timeout", "soon"],
        &["serve", "--listen", "nowhere"],
    ] {
        let (out, err) = assert_ends(&chatserver(arguments, ""), 2);
        assert!(out.is_empty() && err.contains("error: "), "{arguments:?}: {err}");
    }
}

#[test]
fn plain_chatserver_serves_in_the_present_directory() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = program();
    command.current_dir(&dir).args(["--listen", "127.0.0.1:0"]).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut server = Killed(command.spawn().unwrap());
    let mut out = BufReader::new(server.0.stdout.take().unwrap());
    let mut line = String::new();
    out.read_line(&mut line).unwrap();
    let addr = line.strip_prefix("listening on 127.0.0.1:").expect("the first line of standard output").trim_end();
    assert!(addr.parse::<u16>().unwrap() > 0);
    for file in ["chatserver.db", "chatserver.log", "lock"] {
        assert!(dir.path().join("data").join(file).exists(), "{file}");
    }
    kill_process(Pid::from_child(&server.0), Signal::TERM).unwrap();
    assert_eq!(server.0.wait().unwrap().code(), Some(0));
    out.read_line(&mut line).unwrap();
    assert_eq!(line.lines().count(), 1, "and the only one: {line}");
}

#[test]
fn an_address_in_use_is_named_with_a_remedy() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap().to_string();
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let (out, err) = assert_ends(&chatserver(&["--listen", &addr, "--data", data.to_str().unwrap()], ""), 1);
    assert_eq!(out, "");
    assert!(
        err.contains(&format!("cannot listen on {addr}")) && err.contains("choose another address with --listen"),
        "{err}"
    );
}

#[test]
fn the_published_key_does_not_leave_the_machine_unless_that_is_wanted() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let data = data.to_str().unwrap();
    let (out, err) = assert_ends(&chatserver(&["serve", "--listen", "0.0.0.0:0", "--data", data], ""), 1);
    assert_eq!(out, "");
    assert!(
        err.contains("--listen = 0.0.0.0:0: the key is the published one") && err.contains("--allow-published-key"),
        "{err}"
    );
    assert!(!Path::new(data).exists(), "nothing was created");

    let server = Server::start(|setup| setup.listen("0.0.0.0:0").argument("--allow-published-key"));
    Pair::of(&server, "ann", "bob").chat();
    Server::start(|setup| setup.listen("0.0.0.0:0").set("key", "0123456789abcdef"));
    Server::start(|setup| setup.listen("127.0.0.2:0"));
}

#[test]
fn a_wrong_configuration_is_refused_with_place_and_remedy() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("wrong.toml");
    std::fs::write(
        &file,
        "read_timeout = \"120 s\"\nsave_intervall = \"1 s\"\nlogin_timeout = 30\noutbox_bytes = \"64 KiB\"\n",
    )
    .unwrap();
    let file = file.to_str().unwrap();
    let data = dir.path().join("data");
    for arguments in
        [&["serve", "--config", file, "--data", data.to_str().unwrap()][..], &["config", "check", "--config", file]]
    {
        let mut command = program();
        command.args(arguments).env("CHATSERVER_LOG_LEVEL", "loud");
        let (out, err) = assert_ends(&run(command, ""), 1);
        assert_eq!(out, "");
        for (place, remedy) in [
            (format!("chatserver: {file}:2: unknown setting \"save_intervall\""), "did you mean \"save_interval\"?"),
            (format!("chatserver: {file}:3: login_timeout = 30"), "the unit is missing"),
            ("chatserver: CHATSERVER_LOG_LEVEL = \"loud\"".to_owned(), "write \"error\", \"warn\", \"info\""),
        ] {
            let line = err.lines().find(|line| line.starts_with(&place));
            assert!(line.is_some_and(|line| line.contains(remedy)), "{place} … {remedy} is missing:\n{err}");
        }
    }
    assert!(!data.exists(), "nothing was created");
    let missing = dir.path().join("missing.toml");
    let (_, err) = assert_ends(&chatserver(&["serve", "--config", missing.to_str().unwrap()], ""), 1);
    assert!(err.contains("missing.toml"), "{err}");
    let mut command = program();
    command.args(["config", "check"]).env("CHATSERVER_OUTBOX_BYTES", "64 KiB");
    let (_, err) = assert_ends(&run(command, ""), 1);
    assert!(err.contains("raise outbox_bytes to 128 KiB"), "{err}");
}

#[test]
fn config_check_says_what_is_in_force_and_why() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("chatserver.toml"), "# a comment\nread_timeout = \"60 s\"\n").unwrap();
    let mut command = program();
    command.args(["config", "check", "--data"]).arg(dir.path());
    command.env("CHATSERVER_SAVE_INTERVAL", "2 s").env("CHATSERVER_KEY", "0123456789abcdef");
    let (out, _) = assert_ends(&run(command, ""), 0);
    let line = |name: &str| out.lines().find(|line| line.starts_with(&format!("{name} "))).unwrap_or_default();
    assert!(line("read_timeout").contains("1 min") && line("read_timeout").contains("chatserver.toml:2"), "{out}");
    assert!(
        line("save_interval").contains("2 s") && line("save_interval").contains("CHATSERVER_SAVE_INTERVAL"),
        "{out}"
    );
    assert!(line("max_text_bytes").contains("60000") && line("max_text_bytes").ends_with("default"), "{out}");
    assert!(!out.contains("0123456789abcdef"), "the key is not shown: {out}");
}

/// `config check` in a shell that has this descriptor limit.
fn check_with_descriptors(descriptors: u64, max_connections: &str) -> Output {
    let mut command = without_settings(Command::new("sh"));
    command.args(["-c", "ulimit -n $1 && exec \"$2\" config check --data /nonexistent/chatserver-test", "sh"]);
    command.arg(descriptors.to_string()).arg(env!("CARGO_BIN_EXE_chatserver"));
    command.env("CHATSERVER_MAX_CONNECTIONS", max_connections);
    run(command, "")
}

#[test]
fn config_check_warns_of_each_limit_that_is_too_low_for_max_connections() {
    let number = |path: &str| std::fs::read_to_string(path).unwrap().trim().parse::<u64>().unwrap();
    let (out, err) = assert_ends(&check_with_descriptors(300, "177"), 0);
    let line = "chatserver: warning: max_connections = 177 is more than 80 % of the descriptor limit (ulimit -n, LimitNOFILE=) = 300 \
                allows, which is 176; it needs 302: LimitNOFILE=302 in the service's unit; in a shell, ulimit -n 302 before the start\n";
    assert_eq!(err, line);
    assert!(out.contains("Up to 176 connections at one time"), "{out}");
    for enough in ["176", "0"] {
        assert_eq!(assert_ends(&check_with_descriptors(300, enough), 0).1, "");
    }
    // No machine of today is set up for a million threads of one process.
    let (_, err) = assert_ends(&check_with_descriptors(300, "1000000"), 0);
    for name in ["vm.max_map_count", "kernel.threads-max", "kernel.pid_max"] {
        let value = number(&format!("/proc/sys/{}", name.replace('.', "/")));
        let is_too_low = value / if name == "vm.max_map_count" { 4 } else { 1 } < 1_250_360;
        let told = err.lines().find(|line| line.contains(&format!("80 % of {name} = {value} allows")));
        assert_eq!(told.is_some(), is_too_low, "{name} = {value}:\n{err}");
        assert!(told.is_none_or(|line| line.contains(&format!(": sysctl {name}="))), "{err}");
    }
}

#[test]
fn the_sample_configuration_is_the_one_in_the_source() {
    let (sample, _) = assert_ends(&chatserver(&["config", "sample"], ""), 0);
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/data/chatserver.toml");
    assert_eq!(sample, std::fs::read_to_string(path).unwrap());
    let dir = tempfile::tempdir().unwrap();
    let all_set = sample
        .replace("\n#", "\n")
        .lines()
        .filter(|line| line.contains(" = ") && !line.ends_with("\"FILE\"") && !line.ends_with("\"TEXT\""))
        .filter(|line| {
            line.split(" = ")
                .next()
                .is_some_and(|name| name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'))
        })
        .collect::<Vec<_>>()
        .join("\n");
    let file = dir.path().join("all.toml");
    std::fs::write(&file, &all_set).unwrap();
    assert!(all_set.lines().count() > 20, "{all_set}");
    assert_ends(&chatserver(&["config", "check", "--config", file.to_str().unwrap()], ""), 0);
}

#[test]
fn send_and_listen_are_for_scripts() {
    let server = Server::start_default();
    let send = |text: &str, input: &str| {
        let (out, err) = assert_ends(&client(&server, &["send", "--as", "ann", "--to", "bob", text], input), 0);
        assert_eq!((out.as_str(), err.as_str()), ("", ""), "success is silent");
    };
    send("hello", "");
    send("-", "two\nlines\n");
    send("-1 begins with a dash", "");
    let lines = client(&server, &["send", "--as", "ann", "--to", "bob", "-", "--lines"], "one\n\n小红 🙂\n");
    assert_ends(&lines, 0);
    let (out, _) = assert_ends(&client(&server, &["listen", "--as", "bob", "--json", "--count", "6"], ""), 0);
    let objects: Vec<serde_json::Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let texts: Vec<&str> = objects.iter().map(|object| object["text"].as_str().unwrap()).collect();
    assert_eq!(texts, ["hello", "two\nlines", "-1 begins with a dash", "one", "", "小红 🙂"]);
    let mut keys: Vec<&String> = objects[0].as_object().unwrap().keys().collect();
    keys.sort();
    assert_eq!(keys, ["from", "msg_id", "seq", "text", "time", "to"]);
    assert_eq!((objects[0]["from"].as_str(), objects[0]["to"].as_str()), (Some("ann"), Some("bob")));
    assert!(
        objects[0]["time"].as_i64().unwrap() > 1_700_000_000
            && objects[0]["msg_id"].is_null()
            && objects[0]["seq"].is_u64()
    );
    assert!(out.contains("小红 🙂"), "UTF-8 is not escaped: {out}");

    send("a line\nand \x1b[31mcolour", "");
    let (out, _) = assert_ends(&client(&server, &["listen", "--as", "bob", "--count", "1"], ""), 0);
    assert_eq!(out.lines().count(), 1);
    assert!(out.contains(" ann: a line") && !out.contains('\x1b'), "{out:?}");
}

#[test]
fn exit_codes_say_what_happened() {
    let server = Server::start_default();
    let (_, err) = assert_ends(&client(&server, &["send", "--as", " ann", "--to", "bob", "hello"], ""), 3);
    assert!(err.contains("must not begin or end with a space"), "{err}");
    assert_ends(&client(&server, &["listen", "--as", "a\nb"], ""), 3);
    assert_ends(&client(&server, &["listen", "--as", "bob", "--timeout", "100ms"], ""), 4);

    let mut command = program();
    command.args(["send", "--as", "ann", "--to", "bob", "-", "--addr", server.addr()]);
    let not_text = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(not_text.path(), b"\xff\xfe").unwrap();
    let output = command.stdin(std::fs::File::open(not_text.path()).unwrap()).output().unwrap();
    let (_, err) = assert_ends(&output, 5);
    assert!(err.contains("cannot read standard input"), "{err}");

    let mut command = program();
    command
        .args(["send", "--as", "ann", "--to", "bob", "hello", "--addr", server.addr()])
        .env("CHATSERVER_KEY", "another key 1234");
    let (_, err) = assert_ends(&run(command, ""), 1);
    assert!(err.contains("do both sides use the same key?"), "{err}");

    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let (_, err) = assert_ends(&chatserver(&["send", "--as", "ann", "--to", "bob", "hello", "--addr", &nobody], ""), 1);
    assert!(err.contains(&nobody) && err.contains("is the server running there?"), "{err}");
    assert_eq!(server.rows(), 0);
}

#[test]
fn a_key_file_is_read_by_server_and_clients() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("key");
    let file = file.to_str().unwrap();
    let (out, err) = assert_ends(&chatserver(&["key", "new", "--bits", "192", file], ""), 0);
    assert!(out.is_empty() && err.contains("holds a new key"), "{out}{err}");
    let made = std::fs::metadata(file).unwrap();
    assert_eq!((made.permissions().mode() & 0o777, made.len()), (0o600, 53), "hex:, 48 digits and a line end");
    let (_, err) = assert_ends(&chatserver(&["key", "new", file], ""), 1);
    assert!(err.contains("is there already and stays as it is"), "{err}");
    let server = Server::start(|setup| setup.set("key_file", file));
    assert_ends(&client(&server, &["send", "--as", "ann", "--to", "bob", "hello", "--key-file", file], ""), 0);
    let (out, _) = assert_ends(&client(&server, &["listen", "--as", "bob", "--count", "1", "--key-file", file], ""), 0);
    assert!(out.contains("ann: hello"), "{out}");
    assert_ends(&client(&server, &["send", "--as", "ann", "--to", "bob", "hello"], ""), 1);
    // As text, and out loud.
    let (out, _) = assert_ends(&chatserver(&["key", "new", "--bits", "128", "--text"], ""), 0);
    assert!(out.len() == 17 && out.trim_end().bytes().all(|byte| byte.is_ascii_graphic()), "{out:?}");
    assert_ends(&chatserver(&["key", "new", "--bits", "100"], ""), 2);
}

/// Hardening: secrets readable or logged (Mosquitto CVE-2017-9868): a key that others can read is none.
#[test]
fn a_key_file_that_others_can_read_is_refused_by_server_and_clients() {
    let server = Server::start_default();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("key");
    std::fs::write(&file, "12345abcdef67890\n").unwrap();
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o644)).unwrap();
    let file = file.to_str().unwrap();
    let sent = client(&server, &["send", "--as", "ann", "--to", "bob", "hello", "--key-file", file], "");
    let (_, err) = assert_ends(&sent, 1);
    assert!(err.contains("other users can read the key file") && err.contains("chmod 600"), "{err}");
    let mut command = program();
    command.args(["serve", "--listen", "127.0.0.1:0", "--data", dir.path().to_str().unwrap()]);
    command.env("CHATSERVER_KEY_FILE", file);
    let (_, err) = assert_ends(&run(command, ""), 1);
    assert!(err.contains("CHATSERVER_KEY_FILE") && err.contains("(mode 0644)"), "{err}");
    assert!(!err.contains("12345abcdef67890"), "{err}");
}

#[test]
fn users_are_listed_beside_the_running_server() {
    let server = Server::start(|setup| setup.set("save_interval", "20 ms"));
    let data = server.data();
    let data = data.to_str().unwrap();
    server.login("小红").logout().unwrap();
    let mut ann = server.login("ann");
    // No barrier: a round trip may be saved before it is acknowledged, and would wait for a moment too.
    ann.send("小红", "hello").unwrap();
    ann.send("小红", "还有").unwrap();
    eventually("all is saved", || {
        let users: i64 = server.db().query_row("select count(*) from users", [], |row| row.get(0)).unwrap();
        users == 2 && server.rows_of("小红") == 2
    });
    let (table, _) = assert_ends(&chatserver(&["users", "--data", data], ""), 0);
    assert!(table.lines().any(|line| line.starts_with("ann ") && line.ends_with(" -")), "{table}");
    assert!(table.lines().any(|line| line.starts_with("小红 ") && line.ends_with("2 messages, 11 bytes")), "{table}");
    let (lines, _) = assert_ends(&chatserver(&["users", "--json", "--data", data], ""), 0);
    let users: Vec<serde_json::Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let user = |name: &str| users.iter().find(|user| user["name"] == name).unwrap_or_else(|| panic!("{lines}"));
    assert!(user("ann")["registered_at"].as_i64().unwrap() > 1_700_000_000_000);
    assert_eq!(
        (user("小红")["waiting_messages"].as_i64(), user("小红")["waiting_bytes"].as_i64()),
        (Some(2), Some(11))
    );
    ann.roundtrip().unwrap();

    let empty = tempfile::tempdir().unwrap();
    let (_, err) = assert_ends(&chatserver(&["users", "--data", empty.path().to_str().unwrap()], ""), 1);
    assert!(err.contains("there is no database"), "{err}");
}

#[test]
fn chat_takes_lines_from_a_pipe_and_prints_what_arrives() {
    let server = Server::start_default();
    let mut bob = server.login("bob");
    let mut command = program();
    command.args(["chat", "--as", "ann", "--addr", server.addr()]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut chat = Killed(command.spawn().unwrap());
    let mut keys = chat.0.stdin.take().unwrap();
    let mut screen = BufReader::new(chat.0.stdout.take().unwrap());
    keys.write_all(b"to nobody yet\n/to bob\nhello bob\n//slash\n").unwrap();
    assert_eq!(texts(&mut bob, 2), ["hello bob", "/slash"]);
    send_all(&mut bob, "ann", &["hello ann\x07"]);
    let mut line = String::new();
    screen.read_line(&mut line).unwrap();
    assert!(line.contains("bob") && line.contains("hello ann") && !line.contains('\x07'), "{line:?}");
    keys.write_all(b"/quit\n").unwrap();
    assert_eq!(chat.0.wait().unwrap().code(), Some(0));
    let mut notes = String::new();
    chat.0.stderr.take().unwrap().read_to_string(&mut notes).unwrap();
    assert!(notes.contains("choose a recipient first"), "{notes}");
    server.wait_for_log("ann: logged out");
}

#[test]
fn listen_ends_cleanly_when_interrupted_and_gives_way_to_a_newer_login() {
    let server = Server::start_default();
    let mut ann = server.login("ann");
    let mut listen = |name: &str| {
        let mut command = program();
        command.args(["listen", "--as", name, "--addr", server.addr()]).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = Killed(command.spawn().unwrap());
        // Once it has printed something it has certainly read the answer to its login.
        ann.send(name, "hello").unwrap();
        let mut line = String::new();
        BufReader::new(child.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert!(line.contains("ann: hello"), "{line}");
        child
    };
    let mut interrupted = listen("eve");
    kill_process(Pid::from_child(&interrupted.0), Signal::INT).unwrap();
    assert_eq!(interrupted.0.wait().unwrap().code(), Some(0));
    server.wait_for_log("eve: logged out");

    let mut replaced = listen("bob");
    let _newer = server.login("bob");
    assert_eq!(replaced.0.wait().unwrap().code(), Some(3));
    let mut why = String::new();
    replaced.0.stderr.take().unwrap().read_to_string(&mut why).unwrap();
    assert!(why.contains("another program has logged in as bob"), "{why}");
}
