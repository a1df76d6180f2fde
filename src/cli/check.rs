//! `pulsegate check`: what a configuration will serve, and whether its backends answer.
use super::{
    CheckArguments, Exit,
    output::{complain, say},
    run::load,
};
use pulsegate::{
    config::{Ceilings, Config, report},
    descriptors,
    upstream::{Upstream, check, probe},
};
use std::{io, time::SystemTime};
use tokio::runtime::{Builder, LocalOptions};

pub(crate) fn check(arguments: &CheckArguments) -> Exit {
    let Some(config) = load(&arguments.file.config) else { return Exit::Configuration };
    // As `run` does it, so that the ceilings are the ones that will stand.
    if let Err(error) = descriptors::raise() {
        complain(format_args!(
            "cannot raise the descriptor limit: {error}; the ceilings below are for the limit as it is"
        ));
    }
    let report = report(&config, &Ceilings::new(descriptors::limit()), SystemTime::now());
    say(report);
    if !arguments.connect {
        return Exit::Done;
    }
    match connect(&config) {
        Ok(true) => Exit::Done,
        Ok(false) => Exit::Cut,
        Err(exit) => exit,
    }
}

/// Probes every backend, one after the other. Answers whether all of them answered.
fn connect(config: &Config) -> Result<bool, Exit> {
    let system = |error: io::Error| {
        complain(format_args!("cannot dial: {error}"));
        Exit::System
    };
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default()).map_err(system)?;
    let within = config.defaults.connect;
    let mut all = true;
    for upstream in &config.upstreams {
        let built = Upstream::new(upstream).map_err(|error| {
            complain(error);
            Exit::Configuration
        })?;
        runtime.block_on(built.look_up(within));
        for index in 0..built.backends().len() {
            let probe = runtime.block_on(Box::pin(probe(&built, index, within)));
            all &= probe.answers();
            say(format_args!("{}: {probe}", upstream.name));
            let Some(check) = &upstream.check else { continue };
            let backend = &probe.backend;
            match runtime.block_on(Box::pin(check::once(&built, backend, check))) {
                Ok(()) => say(format_args!("{}: {} passes its check", upstream.name, backend.name)),
                Err(cause) => {
                    all = false;
                    say(format_args!("{}: {} would be put out: {cause}", upstream.name, backend.name));
                }
            }
        }
    }
    Ok(all)
}
