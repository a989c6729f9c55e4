//! Why a mail was not sent: one sentence each, in two languages, with what to change.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use lettre::transport::smtp::response::Response;

use crate::language::{Language, say};
use crate::limits;
use crate::logging::one_line;

/// A mail that was not sent. `Display` is [`MailError::describe`] in English.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MailError {
    /// The SMTP server, as `HOST:PORT`.
    pub server: String,
    /// What went wrong.
    pub fault: Fault,
}

/// What can go wrong with a mail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// `mail_to` names nobody.
    Nobody,
    /// What should be a mail address is none.
    Address {
        /// The setting that it comes from.
        setting: &'static str,
        /// What stands there.
        address: String,
    },
    /// As many mails are under way as may be.
    TooMany,
    /// The system has no thread for it.
    NoThread(String),
    /// The file of certificates is no use.
    CaFile {
        /// The setting's value.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The server's name has no address.
    NoName {
        /// The name.
        host: String,
        /// The name service's words.
        why: String,
    },
    /// No address of the server takes a connection.
    NoConnection {
        /// Each with the system's words.
        tried: Vec<(SocketAddr, String)>,
        /// The last one just did not answer.
        timed_out: bool,
    },
    /// TLS was asked for and is not offered.
    NoStartTls,
    /// The certificate is from nobody who is trusted.
    UnknownIssuer,
    /// The certificate is for another server.
    OtherName {
        /// The name that was asked for.
        host: String,
        /// Those that it is for.
        names: Vec<String>,
    },
    /// The certificate is not valid at this time.
    Expired,
    /// The certificate is an authority's, not a server's.
    Authority,
    /// Anything else about TLS.
    Tls(String),
    /// The server takes no password, or in no way that is known here.
    NoLogin,
    /// User and password are refused.
    Login(Reply),
    /// The server wants nothing to do with this machine.
    Greeting(Reply),
    /// The sender is refused.
    Sender {
        /// Who it is.
        address: String,
        /// Why.
        reply: Reply,
    },
    /// Every recipient is refused.
    Recipients(Vec<Refusal>),
    /// An address is not ASCII, and the server takes no such addresses.
    NotAscii(String),
    /// The mail itself is refused.
    Text(Reply),
    /// The other side says something that is not SMTP.
    NotSmtp {
        /// When.
        phase: Phase,
        /// What it said.
        said: String,
    },
    /// The server closed the connection.
    Closed(Phase),
    /// The connection broke.
    Lost {
        /// When.
        phase: Phase,
        /// The system's words.
        why: String,
    },
    /// The attempt took longer than `smtp_timeout`.
    TimedOut(Phase),
}

/// A recipient who does not get the mail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Who.
    pub address: String,
    /// Why.
    pub reply: Reply,
}

/// What an SMTP server answered: a code, and words that it chose; they are on one line here, and not too long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// 4xx: perhaps another time; 5xx: no.
    pub code: u16,
    /// The words.
    pub text: String,
}

/// Where in a conversation something happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Up to the answer to EHLO.
    Greeting,
    /// The TLS handshake.
    Tls,
    /// AUTH.
    Login,
    /// MAIL FROM.
    Sender,
    /// RCPT TO.
    Recipients,
    /// DATA.
    Text,
    /// Behind the end of the text: the mail may have been taken.
    Answer,
}

impl MailError {
    /// Whether the same mail may go through later without anybody changing anything.
    pub fn is_transient(&self) -> bool {
        match &self.fault {
            Fault::TooMany | Fault::NoThread(_) | Fault::NoName { .. } | Fault::NoConnection { .. } => true,
            Fault::Closed(_) | Fault::Lost { .. } | Fault::TimedOut(_) => true,
            Fault::Login(reply) | Fault::Greeting(reply) | Fault::Text(reply) | Fault::Sender { reply, .. } => {
                reply.is_transient()
            }
            Fault::Recipients(refusals) => refusals.iter().any(|refusal| refusal.reply.is_transient()),
            _ => false,
        }
    }

    /// Whether the mail server just did not answer in time.
    pub fn is_timeout(&self) -> bool {
        matches!(self.fault, Fault::TimedOut(_) | Fault::NoConnection { timed_out: true, .. })
    }

    /// Whether no mail server was asked at all: the settings are wrong, or nobody is there.
    pub fn is_unasked(&self) -> bool {
        matches!(
            self.fault,
            Fault::Nobody
                | Fault::Address { .. }
                | Fault::TooMany
                | Fault::NoThread(_)
                | Fault::CaFile { .. }
                | Fault::NoName { .. }
                | Fault::NoConnection { timed_out: false, .. }
        )
    }

    /// What happened, where, and how to mend it, in one sentence.
    pub fn describe(&self, language: Language) -> String {
        let mut sentence = self.sentence(language);
        let is_answer = matches!(
            self.fault,
            Fault::Login(_) | Fault::Greeting(_) | Fault::Sender { .. } | Fault::Recipients(_) | Fault::Text(_)
        );
        if is_answer && self.is_transient() {
            sentence.push_str(
                language.pick("; a code of 4xx means: not now, perhaps later", "；4xx 表示暂时拒绝，稍后可能会接受"),
            );
        }
        sentence
    }

    #[rustfmt::skip] // one sentence a line: the two languages stand below each other
    fn sentence(&self, language: Language) -> String {
        let server = &self.server;
        match &self.fault {
            Fault::Nobody => say!(language,
                "there is nobody to write to; set mail_to to your mail address",
                "没有收件人；请在 mail_to 中填写你的邮件地址"),
            Fault::Address { setting, address } => say!(language,
                "{address:?} ({setting}) is not a mail address; write {setting} like \"ops@example.org\"",
                "{address:?}（{setting}）不是邮件地址；请把 {setting} 写成类似 \"ops@example.org\" 的形式"),
            Fault::TooMany => say!(language,
                "{} mails are on their way already and the mail server {server} takes none of them; this one was not sent, look at that server",
                "已有 {} 封邮件正在发送，而邮件服务器 {server} 一封也没有接收；这封没有发送，请检查该服务器", limits::MAIL_THREADS),
            Fault::NoThread(why) => say!(language,
                "there is no thread to send the mail with ({why}); raise the limit on threads (TasksMax, ulimit -u)",
                "没有可用的线程来发送邮件（{why}）；请提高线程数上限（TasksMax、ulimit -u）"),
            Fault::CaFile { path, why } => say!(language,
                "the certificates in {} cannot be used ({why}); correct smtp_ca_file",
                "无法使用 {} 中的证书（{why}）；请改正 smtp_ca_file", path.display()),
            Fault::NoName { host, why } => say!(language,
                "the mail server's name {host} was not found ({why}); correct smtp_host, or the name service of this machine",
                "找不到邮件服务器的主机名 {host}（{why}）；请改正 smtp_host，或检查本机的域名解析"),
            Fault::NoConnection { tried, .. } => say!(language,
                "no connection to the mail server {server} ({}); correct smtp_host and smtp_port, or see whether it is running and a firewall is in the way",
                "无法连接邮件服务器 {server}（{}）；请改正 smtp_host 和 smtp_port，或检查它是否在运行、是否被防火墙阻挡", attempts(tried)),
            Fault::NoStartTls => say!(language,
                "the mail server {server} does not offer STARTTLS, so nothing was sent; write smtp_tls = \"tls\" and its port (usually 465), or \"none\" if it is on this machine",
                "邮件服务器 {server} 不提供 STARTTLS，因此什么也没有发送；请写 smtp_tls = \"tls\" 及相应端口（通常是 465），如果它就在本机则写 \"none\""),
            Fault::UnknownIssuer => say!(language,
                "the certificate of the mail server {server} is not from an authority that this machine trusts; name a certificate of its own making in smtp_ca_file, or install the package ca-certificates",
                "邮件服务器 {server} 的证书不是由本机信任的机构签发的；如果是自签证书，请在 smtp_ca_file 中指定它，否则请安装 ca-certificates 软件包"),
            Fault::OtherName { host, names } => say!(language,
                "the certificate of the mail server {server} is for {}, not for {host}; write a name that it is for as smtp_host",
                "邮件服务器 {server} 的证书属于 {}，而不是 {host}；请把 smtp_host 写成证书中的名称", list(names)),
            Fault::Expired => say!(language,
                "the certificate of the mail server {server} has expired or is not valid yet; have it renewed, or set this machine's clock",
                "邮件服务器 {server} 的证书已过期或尚未生效；请更新证书，或校准本机的时钟"),
            Fault::Authority => say!(language,
                "the mail server {server} shows the certificate of an authority as its own; make one for a server: openssl req -x509 … -addext basicConstraints=critical,CA:FALSE",
                "邮件服务器 {server} 出示的是证书机构自身的证书；请制作服务器证书：openssl req -x509 … -addext basicConstraints=critical,CA:FALSE"),
            Fault::Tls(why) => say!(language,
                "TLS with the mail server {server} failed ({why}); see whether smtp_tls fits the port: usually 587 is starttls, 465 tls, 25 none",
                "与邮件服务器 {server} 建立 TLS 失败（{why}）；请检查 smtp_tls 与端口是否相符：通常 587 用 starttls，465 用 tls，25 用 none"),
            Fault::NoLogin => say!(language,
                "the mail server {server} takes no password on this port; leave out smtp_user and smtp_password, or write the port for logins (usually 587 or 465)",
                "邮件服务器 {server} 在此端口不接受密码登录；请去掉 smtp_user 和 smtp_password，或改用可登录的端口（通常是 587 或 465）"),
            Fault::Login(reply) => say!(language,
                "the mail server {server} refuses the login ({reply}); correct smtp_user and smtp_password: many providers want an app password",
                "邮件服务器 {server} 拒绝登录（{reply}）；请改正 smtp_user 和 smtp_password：许多服务商要求使用应用专用密码（授权码）"),
            Fault::Greeting(reply) => say!(language,
                "the mail server {server} does not serve this machine ({reply}); ask whoever runs it, or write another one as smtp_host",
                "邮件服务器 {server} 拒绝为本机服务（{reply}）；请询问其管理员，或在 smtp_host 中改用另一台"),
            Fault::Sender { address, reply } => say!(language,
                "the mail server {server} refuses the sender {address} ({reply}); write an address that it takes as mail_from, usually the account's own, and log in with smtp_user if it wants that",
                "邮件服务器 {server} 拒绝发件人 {address}（{reply}）；请把 mail_from 写成它接受的地址（通常是账户自己的地址），若它要求登录请设置 smtp_user"),
            Fault::Recipients(refusals) => say!(language,
                "the mail server {server} refuses every recipient: {}; correct mail_to, and log in with smtp_user if it wants that",
                "邮件服务器 {server} 拒绝了所有收件人：{}；请改正 mail_to，若它要求登录请设置 smtp_user", list(refusals)),
            Fault::NotAscii(address) => say!(language,
                "the mail server {server} does not take the address {address}, which is not plain ASCII; write another one for it",
                "邮件服务器 {server} 不接受含有非 ASCII 字符的地址 {address}；请改用另一个地址"),
            Fault::Text(reply) => say!(language,
                "the mail server {server} refuses the mail itself ({reply}); its answer says why, ask whoever runs it",
                "邮件服务器 {server} 拒绝了邮件内容（{reply}）；原因见其答复，请询问其管理员"),
            Fault::NotSmtp { phase, said } => say!(language,
                "the mail server {server} does not speak SMTP: it says {said:?} {}; correct smtp_host and smtp_port",
                "邮件服务器 {server} {}的回答不是 SMTP（{said:?}）；请改正 smtp_host 和 smtp_port", phase.say(language)),
            Fault::Closed(phase) => say!(language,
                "the mail server {server} closed the connection {}; {}",
                "邮件服务器 {server} {}关闭了连接；{}", phase.say(language), phase.remedy(language)),
            Fault::Lost { phase, why } => say!(language,
                "the connection to the mail server {server} broke {} ({why}); {}",
                "与邮件服务器 {server} 的连接{}中断（{why}）；{}", phase.say(language), phase.remedy(language)),
            Fault::TimedOut(phase) => say!(language,
                "the mail server {server} was not done within smtp_timeout, the time ran out {}; {}",
                "邮件服务器 {server} 未能在 smtp_timeout 内完成，{}超时；{}", phase.say(language), phase.remedy(language)),
        }
    }
}

impl fmt::Display for MailError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.describe(Language::English))
    }
}

impl std::error::Error for MailError {}

impl Phase {
    fn say(self, language: Language) -> &'static str {
        match self {
            Phase::Greeting => language.pick("while its greeting was waited for", "在等待其问候时"),
            Phase::Tls => language.pick("during the TLS handshake", "在 TLS 握手时"),
            Phase::Login => language.pick("during the login", "在登录时"),
            Phase::Sender => language.pick("after the sender's address", "在提交发件人地址后"),
            Phase::Recipients => language.pick("after a recipient's address", "在提交收件人地址后"),
            Phase::Text => language.pick("while the text was sent", "在发送正文时"),
            Phase::Answer => language.pick("behind the text, before it took the mail", "在正文发送完毕、确认收下之前"),
        }
    }

    fn remedy(self, language: Language) -> &'static str {
        match self {
            Phase::Greeting => language.pick(
                "if this is a port with TLS from the first byte (usually 465), write smtp_tls = \"tls\"",
                "如果这个端口从第一个字节起就使用 TLS（通常是 465），请写 smtp_tls = \"tls\"",
            ),
            Phase::Tls => language.pick(
                "if this is a port that begins without TLS (usually 587 or 25), write smtp_tls = \"starttls\"",
                "如果这个端口起初不使用 TLS（通常是 587 或 25），请写 smtp_tls = \"starttls\"",
            ),
            _ => language.pick("if it stays so, look into that server's log", "如果一直如此，请查看该服务器的日志"),
        }
    }
}

impl Reply {
    /// Longest text kept, in characters: servers add addresses of web pages.
    const LONGEST: usize = 300;

    pub(super) fn of(response: &Response) -> Reply {
        let text = response.message().collect::<Vec<_>>().join(" ");
        Reply { code: response.code().into(), text: excerpt(&text, Reply::LONGEST) }
    }

    fn is_transient(&self) -> bool {
        (400..500).contains(&self.code)
    }
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.code, self.text)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.address, self.reply)
    }
}

/// What the other side said, fit for a line: its control characters escaped, cut behind so many characters.
pub(super) fn excerpt(said: &str, longest: usize) -> String {
    one_line(said.trim_end()).chars().take(longest).collect()
}

fn attempts(tried: &[(SocketAddr, String)]) -> String {
    tried.iter().map(|(address, why)| format!("{address}: {why}")).collect::<Vec<_>>().join("; ")
}

fn list(items: &[impl fmt::Display]) -> String {
    if items.is_empty() {
        return "-".to_owned();
    }
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
