//! `pulsegate probe`: what is on the path to a WebSocket service, and what cuts it.
use super::{
    Exit, ProbeArguments,
    output::{complain, complain_of_file, say},
};
use http::{HeaderName, HeaderValue};
use pulsegate::probe::{ProbeOptions, Trust, probe};
use std::{io, time::Duration};
use tokio::{
    runtime::{Builder, LocalOptions},
    sync::watch,
};

pub(crate) fn probe_service(arguments: &ProbeArguments) -> Exit {
    let runtime = match Builder::new_current_thread().enable_all().build_local(LocalOptions::default()) {
        Ok(runtime) => runtime,
        Err(error) => {
            complain(format_args!("cannot dial: {error}"));
            return Exit::System;
        }
    };
    let options = options(arguments);
    let (stop, enough) = watch::channel(false);
    let found = runtime.block_on(Box::pin(async {
        let interrupts = tokio::task::spawn_local(interrupted(stop));
        let found = probe(&arguments.target, &options, &|line| complain_of_file(line), enough).await;
        interrupts.abort();
        found
    }));
    // A name that is still being resolved holds up nobody.
    runtime.shutdown_background();
    match found {
        Ok(found) if arguments.json => {
            say(found.json());
            Exit::Done
        }
        Ok(found) => {
            say(format_args!("\n{}", found.to_string().trim_end()));
            Exit::Done
        }
        Err(failure) => {
            if arguments.json {
                say(serde_json::json!({"target": arguments.target.to_string(), "error": failure.to_string()}));
            }
            complain(format_args!("{}: {failure}", arguments.target));
            Exit::Cut
        }
    }
}

/// The first Ctrl-C is enough questions; the second one ends the program as usual.
async fn interrupted(stop: watch::Sender<bool>) -> io::Result<()> {
    tokio::signal::ctrl_c().await?;
    stop.send_replace(true);
    complain("that is enough, then; Ctrl-C again leaves without a summary");
    tokio::signal::ctrl_c().await?;
    std::process::exit(130)
}

fn options(arguments: &ProbeArguments) -> ProbeOptions {
    ProbeOptions {
        headers: arguments.headers.clone(),
        subprotocols: arguments.subprotocols.clone(),
        origin: arguments.origin.clone(),
        trust: Trust { ca: arguments.ca.clone(), insecure: arguments.insecure },
        count: arguments.count,
        watch: arguments.watch,
        within: arguments.timeout,
        idle: arguments.idle.then_some(arguments.limit),
        ..ProbeOptions::default()
    }
}

/// `NAME: VALUE`, as it stands in a request.
pub(super) fn header(text: &str) -> Result<(HeaderName, HeaderValue), String> {
    let form = "write it as -H \"Name: value\"";
    let (name, value) = text.split_once(':').ok_or_else(|| format!("it has no colon; {form}"))?;
    let name: HeaderName = name.trim().parse().map_err(|_| format!("`{name}` is no name of a header; {form}"))?;
    let ours = ["connection", "upgrade", "sec-websocket-key", "sec-websocket-version"];
    if ours.contains(&name.as_str()) {
        return Err(format!("{name} belongs to the handshake, and is set by itself"));
    }
    let value =
        value.trim().parse().map_err(|_| format!("the value of {name} has characters that headers cannot have"))?;
    Ok((name, value))
}

/// A time as in `gateway.toml`; zero too.
pub(super) fn time(text: &str) -> Result<Duration, String> {
    pulsegate::config::duration(text).map_err(|wrong| format!("{}; {}", wrong.message, wrong.help))
}
