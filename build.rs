//! Makes the Rust types of `proto/chat.proto`. The protobuf compiler is a crate too: nothing to install.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto/chat.proto");
    let messages = protox::compile(["proto/chat.proto"], ["proto"])?;
    prost_build::compile_fds(messages)?;
    Ok(())
}
