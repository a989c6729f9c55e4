//! Makes two things of `proto/chat.proto`: the Rust types of its messages, and a table of their fields for whoever explains a packet byte by byte.
//! The protobuf compiler is a crate too: nothing to install.

use std::fmt::Write as _;
use std::path::Path;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto/chat.proto");
    let files = protox::compile(["proto/chat.proto"], ["proto"])?;
    let mut table = String::from("&[\n");
    for message in files.file.iter().flat_map(|file| &file.message_type) {
        writeln!(table, "    Layout {{ name: {:?}, fields: &[", message.name())?;
        for field in &message.field {
            let kind = camel(field.r#type().as_str_name());
            let label = camel(field.label().as_str_name());
            let words =
                message.enum_type.iter().find(|words| field.type_name().ends_with(&format!(".{}", words.name())));
            let words: Vec<_> =
                words.iter().flat_map(|words| &words.value).map(|word| (word.number(), word.name())).collect();
            let (number, name) = (field.number(), field.name());
            writeln!(
                table,
                "        FieldLayout {{ number: {number}, name: {name:?}, kind: Kind::{kind}, label: Label::{label}, words: &{words:?} }},"
            )?;
        }
        table.push_str("    ] },\n");
    }
    table.push_str("]\n");
    std::fs::write(Path::new(&std::env::var("OUT_DIR")?).join("layouts.rs"), table)?;
    prost_build::compile_fds(files)?;
    Ok(())
}

/// `TYPE_STRING` as `String`.
fn camel(name: &str) -> String {
    let word = name.split_once('_').map_or(name, |(_, word)| word).to_lowercase();
    word[..1].to_uppercase() + &word[1..]
}
