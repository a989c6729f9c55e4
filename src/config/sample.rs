//! Documents made from the table of settings: the sample configuration and the README's table.

use super::settings::{Kind, SETTINGS};

/// The sample configuration, `data/chatserver.toml`: every setting with its default, commented out.
pub fn sample() -> String {
    let mut file = SAMPLE_HEAD.to_owned();
    for setting in SETTINGS {
        file.push('\n');
        let unit = format!("Unit: {}. Default: {}.", setting.unit(), setting.default.unwrap_or("not set"));
        let reached = match setting.kind {
            Kind::Duration(..) | Kind::Bytes(..) | Kind::Count(..) => {
                format!("When it is reached: {}", decapitalised(setting.reached))
            }
            _ => setting.reached.to_owned(),
        };
        for paragraph in [setting.meaning, &reached, &unit] {
            comment(&mut file, paragraph);
        }
        file.push_str(&format!("#{} = {}\n", setting.name, setting.default.unwrap_or(setting.example())));
    }
    file
}

/// The settings as a table for the README.
pub fn markdown() -> String {
    let mut table =
        "| setting | default | what it is | when it is reached, or what to mind |\n|---|---|---|---|\n".to_owned();
    for setting in SETTINGS {
        let default = setting.default.map_or("not set".to_owned(), |default| format!("`{default}`"));
        table.push_str(&format!("| `{}` | {default} | {} | {} |\n", setting.name, setting.meaning, setting.reached));
    }
    table
}

const SAMPLE_HEAD: &str = "\
# The configuration of chatserver. Every setting is here with its default, commented out:
# remove the # in front of a setting to change it. Then send the server SIGHUP (its log says what
# takes effect at the next start only), or stop and start it.
#
# Where it is read from: DIR/chatserver.toml, where DIR is the data directory, or --config FILE.
# Stronger than this file: an environment variable, CHATSERVER_ and the name in upper case
# (CHATSERVER_READ_TIMEOUT=\"60 s\"); stronger than both: the flags --listen, --data and
# --allow-published-key. `chatserver config check` says what is in force, and what is wrong.
#
# Durations have a unit: \"250 ms\", \"30 s\", \"5 min\", \"12 h\", \"7 days\".
# Sizes are bytes, 65536, or \"64 KiB\", \"1 MiB\", \"10 GiB\".
";

/// Appends a paragraph as comment lines of at most 100 columns.
fn comment(file: &mut String, paragraph: &str) {
    let mut column = 0;
    for word in paragraph.split_whitespace() {
        if column == 0 || column + 1 + word.len() > 100 {
            file.push_str(if column == 0 { "#" } else { "\n#" });
            column = 1;
        }
        file.push(' ');
        file.push_str(word);
        column += 1 + word.len();
    }
    if column > 0 {
        file.push('\n');
    }
}

/// A sentence as it stands behind a colon.
fn decapitalised(sentence: &str) -> String {
    let mut chars = sentence.chars();
    chars.next().map(|first| first.to_ascii_lowercase()).into_iter().chain(chars).collect()
}
