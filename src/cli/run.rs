//! `pulsegate run`: serve until a signal, then drain.
use super::{
    Exit, RunArguments, client_url,
    output::{complain, complain_of_file},
    replace_listener,
};
use pulsegate::{
    config::{self, Config},
    descriptors,
    gateway::{Ended, Gateway, Observer, StartError},
    log,
    shutdown::Signals,
    upstream::BackendAddress,
};
use std::{path::Path, sync::Arc};

pub(crate) fn run(arguments: &RunArguments) -> Exit {
    let Some(mut config) = load(&arguments.file.config) else { return Exit::Configuration };
    if let Some(address) = arguments.listen.clone()
        && let Err(error) = replace_listener(&mut config, address)
    {
        complain(error);
        return Exit::Configuration;
    }
    serve(config, None)
}

/// The configuration, or `None` when its mistakes have been printed.
pub(crate) fn load(file: &Path) -> Option<Config> {
    config::load(file).map_err(complain_of_file).ok()
}

/// Runs a gateway in this process until it has drained.
pub(crate) fn serve(config: Config, observer: Option<Arc<dyn Observer>>) -> Exit {
    let _log = match log::start(&config.log) {
        Ok(guard) => guard,
        Err(error) => {
            complain(error);
            return Exit::Configuration;
        }
    };
    #[cfg(feature = "otel")]
    let _traces = match pulsegate::otel::start() {
        Ok(exporter) => exporter,
        Err(error) => {
            complain(error);
            return Exit::Configuration;
        }
    };
    if let Err(error) = descriptors::raise() {
        tracing::warn!(%error, limit = descriptors::limit(), "cannot raise the descriptor limit; it stays as it is");
    }
    let hint = echo_hint(&config);
    // Before anything listens: from the first connection on, a signal must find its handler.
    let signals = match Signals::install() {
        Ok(signals) => signals,
        Err(error) => {
            complain(format_args!("cannot handle signals: {error}"));
            return Exit::System;
        }
    };
    let gateway = match Gateway::observed(config, observer) {
        Ok(gateway) => gateway,
        Err(error) => {
            complain(&error);
            return exit_of(&error);
        }
    };
    for listener in gateway.listeners() {
        tracing::info!(tls = listener.tls.is_some(), "listening on {}", client_url(listener));
    }
    if let (true, Some(listener)) = (hint, gateway.listeners().first()) {
        let url = client_url(listener);
        tracing::info!(
            "try it: in a browser's console, w = new WebSocket({url:?}); w.onmessage = m => console.log(m.data); then \
             w.send(\"hello\"): the built-in echo answers"
        );
    }
    let operator = gateway.operator();
    let reopen = move || {
        if !operator.reopen_logs() {
            tracing::info!("SIGUSR1: there is no access log to open anew");
        }
    };
    if let Err(error) = signals.forward(gateway.control(), reopen) {
        complain(format_args!("cannot handle signals: {error}"));
        return Exit::System;
    }
    let ended = gateway.wait();
    tracing::info!(told = ended.told, cut = ended.cut, "drained: every session has ended");
    exit_after(ended)
}

/// Whether the built-in echo is served, as the shipped `gateway.toml` does.
fn echo_hint(config: &Config) -> bool {
    config.upstreams.iter().any(|upstream| upstream.servers.contains(&BackendAddress::Echo))
}

fn exit_of(error: &StartError) -> Exit {
    match error {
        StartError::Bind(_) => Exit::Unavailable,
        StartError::Tls(_) | StartError::Upstream(_) | StartError::NoUpstream { .. } | StartError::AccessLog(_) => {
            Exit::Configuration
        }
        StartError::Worker(_) => Exit::System,
    }
}

fn exit_after(ended: Ended) -> Exit {
    if ended.failed_workers > 0 {
        Exit::Bug
    } else if ended.cut > 0 {
        Exit::Cut
    } else {
        Exit::Done
    }
}
