//! What a user reads, in English and in Chinese: the server's refusals in its own language, the client commands in that of the terminal.

use std::io::Read;
use std::process::{Command, Output, Stdio};

use chatserver::client::ClientError;
use chatserver::language::Language;
use chatserver::protocol::UserName;
use rusqlite::Connection;

use crate::harness::*;

const LANGUAGES: [Language; 2] = [Language::English, Language::Chinese];

/// What a server says on refusing this name, which it must.
#[track_caller]
fn refusal(server: &Server, name: &str) -> String {
    match server.connect().login(name) {
        Err(ClientError::Refused { tips }) => tips,
        other => panic!("{name:?} should be refused: {other:?}"),
    }
}

#[test]
fn every_refused_name_is_told_why_in_the_servers_language() {
    let too_long = "长".repeat(43);
    let names = [
        ("", "must not be empty", "不能为空"),
        (
            too_long.as_str(),
            "at most 128 bytes of UTF-8, this one has 129",
            "最长 128 字节（UTF-8），这个用户名有 129 字节",
        ),
        ("小\u{200b}红", "this one has U+200B", "这个用户名含有 U+200B"),
        ("小红\u{3000}", "must not begin or end with a space", "不能是空格或其他空白字符"),
    ];
    for language in LANGUAGES {
        let server = Server::start(|setup| setup.set("language", language.code()));
        for (name, english, chinese) in names {
            let tips = refusal(&server, name);
            assert!(tips.contains(language.pick(english, chinese)), "{name:?}: {tips}");
            assert_eq!(tips, UserName::parse(name).unwrap_err().describe(language));
            server.wait_for_log(&format!("login refused: {}", UserName::parse(name).unwrap_err()));
        }
        assert_eq!(server.login("小红").welcome(), language.pick("welcome", "欢迎"));
        assert!(server.log().lines().all(|line| line.is_ascii() || line.contains("小红")), "the log is English");
    }
}

#[test]
fn a_server_without_memory_or_disk_says_so_in_its_language() {
    for language in LANGUAGES {
        let server = Server::start(|setup| {
            setup.set("language", language.code());
            setup.set("max_packet_bytes", "4 KiB").set("max_text_bytes", "3 KiB").set("memory_bytes", "64 KiB");
            setup.set("log_level", "debug")
        });
        let mut eve = server.login("eve");
        let other = Connection::open(server.db_path()).unwrap();
        other.busy_timeout(PATIENCE).unwrap();
        other.execute_batch("begin immediate").unwrap();
        numbered("for later", 2000).iter().for_each(|text| eve.queue("bob", text));
        eve.flush().unwrap();
        let mut tips = String::new();
        eventually("memory is full", || match server.connect().login("ann") {
            Err(ClientError::Refused { tips: told }) => {
                tips = told;
                true
            }
            _ => false,
        });
        let wanted = language
            .pick("the server is short of memory, please try again in a minute", "服务器内存不足，请过一分钟再试");
        assert_eq!(tips, wanted);
        server.wait_for_log("login refused: the server is short of memory");
        other.execute_batch("rollback").unwrap();
        eve.roundtrip().unwrap();

        other.execute_batch("alter table backlog rename to elsewhere").unwrap();
        let wanted = language.pick(
            "the server cannot read its database, please try again in a minute",
            "服务器暂时无法读取数据库，请过一分钟再试",
        );
        assert_eq!(refusal(&server, "joe"), wanted);
        // The disk's line, once a minute, tells of all who are refused: none of them fills the log.
        assert!(server.wait_for_log("login refused: the server cannot read its database").contains("[DEBUG]"));
        assert_eq!(server.logged(": login: "), 1, "{}", server.log());
    }
}

/// A command of the program for a person whose locale is Chinese.
fn in_chinese(arguments: &[&str]) -> Command {
    let mut command = program();
    command.args(arguments).env("LC_ALL", "zh_CN.UTF-8");
    command
}

#[track_caller]
fn assert_says(output: &Output, code: i32, sentence: &str) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{said}");
    assert!(said.contains(sentence), "{sentence} is missing: {said}");
}

#[test]
fn send_and_listen_speak_the_language_of_the_terminal() {
    let server = Server::start(|setup| setup.set("language", "zh"));
    let send = |name: &str, to: &str| in_chinese(&["send", "--as", name, "--to", "小明", "你好", "--addr", to]);
    assert_says(&run(send("", server.addr()), ""), 3, "服务器拒绝登录：用户名不能为空");
    let mut wrong_key = send("小红", server.addr());
    wrong_key.env("CHATSERVER_KEY", "another key 1234");
    assert_says(&run(wrong_key, ""), 1, "服务器关闭了连接，而没有应答登录（两边的密钥一致吗？");
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    assert_says(&run(send("小红", &nobody), ""), 1, &format!("无法连接到 {nobody}："));
    let lines = ["send", "--as", "小红", "--to", "小明", "你好", "--lines", "--addr", server.addr()];
    assert_says(&run(in_chinese(&lines), ""), 2, "--lines 读取标准输入");
    let mut english = send("", server.addr());
    english.env("CHATSERVER_LANGUAGE", "en");
    assert_says(&run(english, ""), 3, "the server refused the login: 用户名不能为空");

    assert_says(&run(send("小红", server.addr()), ""), 0, "");
    let listen = in_chinese(&["listen", "--as", "小明", "--json", "--count", "1", "--addr", server.addr()]);
    let output = run(listen, "");
    let message: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON has no language");
    assert_eq!((message["from"].as_str(), message["text"].as_str()), (Some("小红"), Some("你好")));

    let mut listen = in_chinese(&["listen", "--as", "小明", "--addr", server.addr()]);
    let mut listen = listen.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    eventually("the listener is there", || server.logged("小明 logged in") == 2);
    let _newer = server.login("小明");
    assert_eq!(listen.wait().unwrap().code(), Some(3));
    let mut said = String::new();
    listen.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(said.contains("chatserver: 另一个程序也以 小明 登录了"), "{said}");
}

#[test]
fn the_table_of_users_speaks_the_language_of_the_terminal() {
    let server = Server::start(|setup| setup.set("save_interval", "20 ms"));
    server.login("小红").logout().unwrap();
    let mut ann = server.login("ann");
    ann.send("小红", "还有").unwrap();
    ann.send("小红", "hello").unwrap();
    eventually("all is saved", || server.rows_of("小红") == 2);
    let data = server.data();
    let users = |arguments: &[&str]| {
        let output = run(in_chinese(&[&["users", "--data", data.to_str().unwrap()], arguments].concat()), "");
        String::from_utf8(output.stdout).unwrap()
    };
    eventually("小红 is registered", || users(&[]).contains("小红"));
    let table = users(&[]);
    assert!(table.starts_with("用户名  注册时间              最近在线              等待的消息\n"), "{table}");
    assert!(table.lines().any(|line| line.starts_with("小红    20") && line.ends_with("2 条，11 字节")), "{table}");
    assert!(users(&["--json"]).contains("\"waiting_messages\":2"));
}

#[cfg(feature = "tools")]
mod on_a_terminal {
    use super::in_chinese;
    use crate::harness::*;
    use crate::running::Terminal;

    #[test]
    fn chat_speaks_chinese_on_a_terminal() {
        let mut server = Server::start(|setup| setup.set("language", "zh"));
        let mut ann = server.login("ann");
        let (terminal, state) = (Terminal::open(), tempfile::tempdir().unwrap());
        let mut command = in_chinese(&["chat", "--as", "小红", "--addr", server.addr()]);
        command.env("NO_COLOR", "1").env("XDG_STATE_HOME", state.path());
        let mut chat = terminal.start(command);
        chat.prints(&format!("* 已连接 {}，以 小红 登录：欢迎", server.addr()));
        chat.prints("* 输入 /help 查看命令，/quit 退出");
        chat.prints("(/to 用户名)> ");
        chat.types("没有收件人");
        chat.prints("* 未发送：请先用“/to 用户名”选择收件人");
        chat.types("/help");
        chat.prints("*   /quit       退出；也可以按 Ctrl-D 或 Ctrl-C");
        chat.types("/没有");
        chat.prints("* 没有命令 /没有：/help 列出全部命令；要原样发送，请输入 //没有");
        chat.types("/to a\u{200b}b");
        chat.prints("* 用户名不能包含不可见字符或控制字符，这个用户名含有 U+200B；请将其去掉");
        chat.types("/to ann");
        chat.prints("ann> ");
        chat.types("你好");
        assert_eq!(next(&mut ann).text, "你好");
        ann.send_at("小红", "写于从前", ann.server_time() - 7200 - 60).unwrap();
        chat.prints("ann（2 小时前）: 写于从前");

        server.sigterm();
        // Which of the two depends on how soon after the login it is.
        let lost =
            ["* 服务器关闭了连接；1 秒后重新连接", "* 小红 已在另一处登录，此处连接被取代；按回车重新登录，/quit 退出"];
        eventually("the loss is told", || lost.iter().any(|note| chat.out().contains(note)));
        chat.types("还在吗");
        chat.prints("已保留");
        chat.types("");
        chat.prints(&format!("* 无法连接到 {}：", server.addr()));
        chat.types("/quit");
        chat.prints("chatserver: 有 1 行没有发送：当时没有连接");
        chat.ends(1);
    }
}
