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
    pid_file::PidFile,
    shutdown::Signals,
    upgrade::{Inheritance, Trigger},
    upstream::BackendAddress,
};
use std::{fmt::Display, io, path::Path, sync::Arc};

pub(crate) fn run(arguments: &RunArguments) -> Exit {
    // Before there are threads.
    let Some(inheritance) = inherit() else { return Exit::System };
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
    serve(config, None, inheritance, Some(Box::new(follow)))
}

/// What a predecessor or systemd has for us. What is complained of until the log is open, a predecessor hears.
pub(crate) fn inherit() -> Option<Inheritance> {
    Inheritance::receive().map_err(complain).ok()
}

/// Tells a gateway where its configuration comes from.
pub(crate) type Follow = Box<dyn FnOnce(&Gateway)>;

/// The configuration, or `None` when its mistakes have been printed.
pub(crate) fn load(file: &Path) -> Option<Config> {
    config::load(file).map_err(complain_of_file).ok()
}

/// Runs a gateway in this process until it has drained. Without anything to `follow`, SIGHUP ends it.
pub(crate) fn serve(
    config: Config,
    observer: Option<Arc<dyn Observer>>,
    mut inheritance: Inheritance,
    follow: Option<Follow>,
) -> Exit {
    if let Err(error) = inheritance.open_log() {
        return refuse(&inheritance, format_args!("cannot open the log: {error}"), Exit::System);
    }
    let _log = match log::start(&config.log) {
        Ok(guard) => guard,
        Err(error) => return refuse(&inheritance, error, Exit::Configuration),
    };
    #[cfg(feature = "otel")]
    let _traces = match pulsegate::otel::start() {
        Ok(exporter) => exporter,
        Err(error) => return refuse(&inheritance, error, Exit::Configuration),
    };
    if let Err(error) = descriptors::raise() {
        tracing::warn!(%error, limit = descriptors::limit(), "cannot raise the descriptor limit; it stays as it is");
    }
    let (hint, lineage) = (echo_hint(&config), inheritance.lineage());
    let (pid_file, drain) = (config.gateway.pid_file.clone(), config.gateway.drain.timeout);
    // Before anything listens: from the first connection on, a signal must find its handler.
    let handlers = Signals::install(follow.is_some()).and_then(|signals| Ok((signals, Trigger::install()?)));
    let (signals, trigger) = match handlers {
        Ok(handlers) => handlers,
        Err(error) => return refuse(&inheritance, format_args!("cannot handle signals: {error}"), Exit::System),
    };
    let admin = match config.admin.as_ref().map(|admin| Admin::inheriting(admin, &mut inheritance.sockets)).transpose()
    {
        Ok(admin) => admin,
        Err(error) => return refuse(&inheritance, &error, exit_of_admin(&error)),
    };
    let gateway = match Gateway::inheriting(config, observer, &mut inheritance.sockets, lineage.clone()) {
        Ok(gateway) => gateway,
        Err(error) => return refuse(&inheritance, &error, exit_of(&error)),
    };
    tell_listeners(&gateway, hint);
    let admin_address = admin.as_ref().map(|admin| admin.address().clone());
    // Until the gateway has ended, or another process serves: an operator sees how its drain goes.
    let _admin = match admin.map(|admin| serve_admin(admin, &gateway)).transpose() {
        Ok(server) => server,
        Err(error) => return refuse(&inheritance, &error, exit_of_admin(&error)),
    };
    let operator = gateway.operator();
    let reopen = {
        let operator = operator.clone();
        move || {
            if !operator.reopen_logs() {
                tracing::info!("SIGUSR1: there is no access log to open anew");
            }
        }
    };
    if let Some(follow) = follow {
        follow(&gateway);
    }
    let reload = {
        let operator = operator.clone();
        move || {
            if let Err(error) = operator.reload_soon() {
                tracing::error!(%error, "not reloaded");
            }
        }
    };
    let upgrade = move || {
        let operator = operator.clone();
        // The upgrade itself tells the log how it went.
        async move { drop(operator.upgrade().await) }
    };
    let threads = signals
        .forward(gateway.control(), reopen, reload)
        .and_then(|()| trigger.forward(upgrade))
        .and_then(|()| lineage.supervisor().attend(&gateway.control(), drain, gateway.watch_loads()));
    if let Err(error) = threads {
        return refuse(&inheritance, format_args!("cannot handle signals: {error}"), Exit::System);
    }
    let addresses: Vec<_> = gateway.addresses().chain(admin_address).collect();
    if let Err(error) = inheritance.serving(addresses.iter()) {
        complain(error);
        return Exit::System;
    }
    let pid_file = pid_file.and_then(|path| {
        let said = |error: &io::Error| tracing::error!(%error, path = %path.display(), "cannot write the pid file");
        PidFile::write(&path).inspect_err(said).ok()
    });
    let ended = gateway.wait();
    // A drain without sessions may be over before anybody has told of it.
    lineage.supervisor().stopping(drain);
    lineage.settle();
    if let (true, Some(pid_file)) = (lineage.succeeded(), pid_file) {
        pid_file.leave();
    }
    tracing::info!(told = ended.told, cut = ended.cut, "drained: every session has ended");
    exit_after(ended)
}

/// Says why nothing is served, to the operator and to a predecessor.
fn refuse(inheritance: &Inheritance, problem: impl Display, exit: Exit) -> Exit {
    complain(&problem);
    inheritance.failed(problem);
    exit
}

fn tell_listeners(gateway: &Gateway, hint: bool) {
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
}

fn serve_admin(admin: Admin, gateway: &Gateway) -> Result<Server, AdminError> {
    let address = admin.address().clone();
    admin.offer(gateway.operator().lineage())?;
    let server = admin.serve(gateway.operator())?;
    match address {
        ListenAddress::Tcp(address) => tracing::info!("operators are served on http://{address}/"),
        ListenAddress::Unix(path) => tracing::info!("operators are served on unix:{}", path.display()),
    }
    Ok(server)
}

/// Whether the built-in echo is served, as the shipped `gateway.toml` does.
fn echo_hint(config: &Config) -> bool {
    config.upstreams.iter().flat_map(|upstream| &upstream.servers).any(|server| server.address == BackendAddress::Echo)
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
