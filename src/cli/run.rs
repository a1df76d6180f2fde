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
    let (file, listen) = (arguments.file.config.clone(), arguments.listen.clone());
    let follow = move |gateway: &Gateway| {
        gateway.follow(&file, move |config| match listen.clone() {
            Some(address) => Ok(replace_listener(config, address)?),
            None => Ok(()),
        });
    };
    serve(config, None, Some(Box::new(follow)))
}

/// Tells a gateway where its configuration comes from.
pub(crate) type Follow = Box<dyn FnOnce(&Gateway)>;

/// The configuration, or `None` when its mistakes have been printed.
pub(crate) fn load(file: &Path) -> Option<Config> {
    config::load(file).map_err(complain_of_file).ok()
}

/// Runs a gateway in this process until it has drained. Without anything to `follow`, SIGHUP ends it.
pub(crate) fn serve(config: Config, observer: Option<Arc<dyn Observer>>, follow: Option<Follow>) -> Exit {
    let _log = match log::start(&config.log) {
        Ok(guard) => guard,
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
    let signals = match Signals::install(follow.is_some()) {
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
    let listeners = gateway.listeners();
    for listener in &listeners {
        tracing::info!(tls = listener.tls.is_some(), "listening on {}", client_url(listener));
    }
    if let (true, Some(listener)) = (hint, listeners.first()) {
        let url = client_url(listener);
        tracing::info!(
            "try it: in a browser's console, w = new WebSocket({url:?}); w.onmessage = m => console.log(m.data); then \
             w.send(\"hello\"): the built-in echo answers"
        );
    }
    if let Some(follow) = follow {
        follow(&gateway);
    }
    let operator = gateway.operator();
    let reload = move || {
        if let Err(error) = operator.reload_soon() {
            tracing::error!(%error, "not reloaded");
        }
    };
    if let Err(error) = signals.forward(gateway.control(), reload) {
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
        StartError::Tls(_) | StartError::Upstream(_) | StartError::NoUpstream { .. } => Exit::Configuration,
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
