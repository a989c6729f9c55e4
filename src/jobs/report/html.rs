//! A report as HTML that mail programs show alike: tables and styles in place, no script, nothing fetched; readable on a narrow screen.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::{Report, standing};
use crate::health::size;
use crate::language::Language;

const FONT: &str = "font-family:system-ui,-apple-system,'Segoe UI',Roboto,'PingFang SC','Microsoft YaHei','Noto Sans CJK SC',sans-serif";
/// Colours of the chart's curves, which `chart.rs` draws with.
pub(super) const BLUE: &str = "#2563eb";
pub(super) const GREEN: &str = "#16a34a";
pub(super) const ORANGE: &str = "#ea8a12";

/// Where the chart is, if there is one: in the mail.
pub(super) const IMAGE: &str = "cid:chart";

pub(super) fn render(report: &Report, has_image: bool) -> String {
    let language = report.language;
    let findings = report.findings();
    let (colour, background) = if findings.is_empty() { ("#14532d", "#dcfce7") } else { ("#7c2d12", "#ffedd5") };
    let page = html! {
        (DOCTYPE)
        html lang=(language.pick("en", "zh-CN")) {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (report.subject()) }
            }
            body style={ "margin:0;padding:16px;background:#f3f4f6;color:#111827;font-size:15px;line-height:1.5;" (FONT) } {
                div style="max-width:640px;margin:0 auto;background:#ffffff;border-radius:8px;overflow:hidden" {
                    div style={ "padding:16px 20px;background:" (background) ";color:" (colour) } {
                        div style="font-size:13px" { "chatserver · " (report.host) }
                        div style="font-size:22px;font-weight:600" { (headline(report)) }
                        div style="font-size:13px" { (report.period()) }
                    }
                    @for finding in &findings {
                        div style="margin:12px 20px;padding-left:12px;border-left:4px solid #ea8a12" {
                            div style="font-weight:600" { (sentence(finding.what(language))) }
                            div style="color:#374151" { (finding.remedy(language)) }
                        }
                    }
                    (tiles(report))
                    @if has_image { (chart(language)) }
                    (heading(language.pick("Now", "当前状态")))
                    (table(standing(&report.status, language).into_iter()))
                    @for group in report.counts.groups(language) {
                        (heading(group.title))
                        @let happened: Vec<_> = group.rows.iter().filter(|row| row.1 > 0).collect();
                        @if happened.is_empty() {
                            p style="margin:4px 20px;color:#6b7280" { (language.pick("nothing in this period", "本期无")) }
                        } @else {
                            (table(happened.iter().map(|row| (row.0, grouped(row.1)))))
                        }
                    }
                    p style="margin:20px;color:#6b7280;font-size:12px" {
                        (language.pick(
                            "Sent by the server itself. report_interval and mail_to in its configuration say when and to whom.",
                            "本邮件由服务器自动发送。发送间隔与收件人由配置中的 report_interval 和 mail_to 决定。",
                        ))
                    }
                }
            }
        }
    };
    page.into_string()
}

fn headline(report: &Report) -> String {
    let findings = report.findings().len();
    let language = report.language;
    match findings {
        0 => language.pick("All well", "一切正常").to_owned(),
        1 => language.pick("One thing needs a hand", "有一项需要处理").to_owned(),
        _ => crate::language::say!(language, "{findings} things need a hand", "有 {findings} 项需要处理"),
    }
}

/// The figures that are looked for first.
fn tiles(report: &Report) -> Markup {
    let (language, counts, status) = (report.language, &report.counts, &report.status);
    let waiting = status.backlog.map_or("?".to_owned(), |backlog| grouped(backlog.messages));
    let figures = [
        (language.pick("users now", "在线用户"), grouped(status.users.present)),
        (language.pick("users at most", "在线峰值"), grouped(status.users.peak)),
        (language.pick("logins", "登录"), grouped(counts.logins)),
        (language.pick("relayed live", "实时转发"), grouped(counts.relayed)),
        (language.pick("stored", "写入磁盘"), grouped(counts.stored)),
        (language.pick("waiting now", "待收消息"), waiting),
        (language.pick("database", "数据库"), size(status.database.used_bytes)),
        (language.pick("memory", "常驻内存"), status.machine.resident_bytes.map_or("?".to_owned(), size)),
    ];
    html! {
        // Inline blocks: four beside each other on a wide screen, two on a telephone.
        div style="padding:8px 14px;font-size:0" {
            @for (what, figure) in figures {
                div style="display:inline-block;width:25%;min-width:130px;box-sizing:border-box;padding:6px;vertical-align:top" {
                    div style="background:#f9fafb;border-radius:6px;padding:8px 10px" {
                        div style="font-size:12px;color:#6b7280" { (what) }
                        div style="font-size:19px;font-weight:600;white-space:nowrap" { (figure) }
                    }
                }
            }
        }
    }
}

fn chart(language: Language) -> Markup {
    let key = [
        (BLUE, language.pick("users", "在线用户")),
        (GREEN, language.pick("messages relayed live", "实时转发的消息")),
        (ORANGE, language.pick("messages that had to wait", "暂存的消息")),
    ];
    html! {
        div style="padding:8px 20px 0" {
            img src=(IMAGE) alt=(language.pick("users and messages over the period", "本期用户数与消息数")) style="display:block;width:100%;height:auto;border:0";
            div style="font-size:12px;color:#6b7280" {
                @for (colour, what) in key {
                    span style="white-space:nowrap;margin-right:12px" { span style={ "color:" (colour) } { (PreEscaped("&#9632;")) } " " (what) }
                    " "
                }
            }
        }
    }
}

fn heading(title: &str) -> Markup {
    html! { div style="margin:18px 20px 4px;font-weight:600" { (title) } }
}

fn table<'t>(rows: impl Iterator<Item = (&'t str, String)>) -> Markup {
    html! {
        table role="presentation" cellspacing="0" cellpadding="0" style="width:100%;padding:0 20px;border-collapse:separate;font-size:14px" {
            @for (what, how_much) in rows {
                tr {
                    td style="padding:4px 12px 4px 0;border-bottom:1px solid #e5e7eb;color:#374151" { (what) }
                    td style="padding:4px 0;border-bottom:1px solid #e5e7eb;text-align:right;font-variant-numeric:tabular-nums" { (how_much) }
                }
            }
        }
    }
}

fn sentence(what: String) -> String {
    let mut chars = what.chars();
    chars.next().map(|first| first.to_ascii_uppercase()).into_iter().chain(chars).collect()
}

/// 1234567 as 1,234,567, which both languages write alike.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

#[cfg(test)]
mod tests {
    use super::grouped;

    #[test]
    fn digits_stand_in_groups_of_three() {
        assert_eq!([0, 999, 1000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
    }
}
