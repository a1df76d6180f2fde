//! `pulsegate run`: serve until a signal, then drain.
use super::{
    Exit, RunArguments, client_url,
    output::{complain, complain_of_file},
    replace_listener,
};
use pulsegate::{
    admin::{Admin, AdminError, Server},
    config::{self, Config},
    descriptors,
    gateway::{Ended, Gateway, Observer, StartError},
    listener::ListenAddress,
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
    let admin = match config.admin.as_ref().map(Admin::bind).transpose() {
        Ok(admin) => admin,
        Err(error) => {
            complain(&error);
            return exit_of_admin(&error);
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
    // Until the gateway has ended: an operator sees how its drain goes.
    let _admin = match admin.map(|admin| serve_admin(admin, &gateway)).transpose() {
        Ok(server) => server,
        Err(error) => {
            complain(&error);
            return exit_of_admin(&error);
        }
    };
    if let (true, Some(listener)) = (hint, gateway.listeners().first()) {
        let url = client_url(listener);
        tracing::info!(
            "try it: in a browser's console, w = new WebSocket({url:?}); w.onmessage = m => console.log(m.data); then \
             w.send(\"hello\"): the built-in echo answers"
        );
    }
    if let Err(error) = signals.forward(gateway.control()) {
        complain(format_args!("cannot handle signals: {error}"));
        return Exit::System;
    }
    let ended = gateway.wait();
    tracing::info!(told = ended.told, cut = ended.cut, "drained: every session has ended");
    exit_after(ended)
}

fn serve_admin(admin: Admin, gateway: &Gateway) -> Result<Server, AdminError> {
    let address = admin.address().clone();
    let server = admin.serve(gateway.operator())?;
    match address {
        ListenAddress::Tcp(address) => tracing::info!("operators are served on http://{address}/"),
        ListenAddress::Unix(path) => tracing::info!("operators are served on unix:{}", path.display()),
    }
    Ok(server)
}

/// Whether the built-in echo is served, as the shipped `gateway.toml` does.
fn echo_hint(config: &Config) -> bool {
    config.upstreams.iter().any(|upstream| upstream.servers.contains(&BackendAddress::Echo))
}

fn exit_of_admin(error: &AdminError) -> Exit {
    match error {
        AdminError::Bind(_) => Exit::Unavailable,
        AdminError::Token(_) => Exit::Configuration,
        AdminError::Thread(_) => Exit::System,
    }
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
