//! A gateway inside another program: `cargo run --example embed`, then connect a WebSocket client to the address it prints.
//! Enter drains it.
#![allow(clippy::print_stdout)]
use pulsegate::{
    config,
    gateway::{Gateway, Observer},
    session::verdict::Verdict,
};
use std::{error::Error, io, path::Path, sync::Arc};

const GATEWAY: &str = r#"
[[listener]]
address = "127.0.0.1:0"
[[route]]
upstream = "demo"
[upstream.demo]
servers = ["builtin:echo"]
"#;

/// Runs on the gateway's threads, so it should hand long work to others.
struct Ends;

impl Observer for Ends {
    fn ended(&self, verdict: &Verdict) {
        println!("session {} of {} ended: {}", verdict.id, verdict.client, verdict.reason.label());
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let config = config::parse("embedded", GATEWAY, Path::new("."))?;
    let gateway = Gateway::observed(config, Some(Arc::new(Ends)))?;
    for address in gateway.addresses() {
        println!("ws://{address}/ echoes; press Enter to drain");
    }
    io::stdin().read_line(&mut String::new())?;
    gateway.drain();
    let ended = gateway.wait();
    println!("{} sessions were told to end, {} had to be cut", ended.told, ended.cut);
    Ok(())
}
