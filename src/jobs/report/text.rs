//! A report as plain text: for mail programs that show no HTML, and for the terminal.

use std::fmt::Write as _;

use unicode_width::UnicodeWidthStr;

use super::{Report, standing};
use crate::language::say;

pub(super) fn render(report: &Report) -> String {
    let language = report.language;
    let mut text = format!("{}\n{}\n\n", report.subject(), report.period());
    for finding in report.findings() {
        let _ = writeln!(text, "! {}\n  {}\n", finding.what(language), finding.remedy(language));
    }
    let _ = writeln!(text, "{}\n{}", language.pick("Now", "当前状态"), table(&standing(&report.status, language)));
    for group in report.counts.groups(language) {
        let happened = group.rows.iter().filter(|row| row.1 > 0);
        let rows: Vec<_> = happened.map(|(what, count)| (*what, count.to_string())).collect();
        let nothing = vec![(language.pick("nothing", "无"), String::new())];
        let title = group.title;
        let heading = say!(language, "{title} in this period", "本期{title}");
        let _ = writeln!(text, "{heading}\n{}", table(if rows.is_empty() { &nothing } else { &rows }));
    }
    text
}

/// Rows of what and how much, the second column aligned.
pub(super) fn table(rows: &[(&str, String)]) -> String {
    let width = rows.iter().map(|row| row.0.width()).max().unwrap_or(0);
    rows.iter().fold(String::new(), |mut table, (what, how_much)| {
        let line = format!("  {what}{}  {how_much}", " ".repeat(width - what.width()));
        table.push_str(line.trim_end());
        table.push('\n');
        table
    })
}
