//! Why something that was asked for cannot be done.
use super::body::Problem;
use crate::{
    gateway::{Backends, ReloadError},
    upgrade::UpgradeError,
};

pub(super) fn gone(name: &str) -> Problem {
    Problem::NotFound(format!("no session {name} runs"))
}

pub(super) fn no_ending(id: &str) -> Problem {
    Problem::NotFound(format!("there is no ending {id}"))
}

pub(super) fn no_upgrade(error: UpgradeError) -> Problem {
    match error {
        UpgradeError::Embedded | UpgradeError::First | UpgradeError::UnderWay | UpgradeError::Draining => {
            Problem::Conflict(error.to_string())
        }
        UpgradeError::Worker
        | UpgradeError::Start { .. }
        | UpgradeError::HandOver(_)
        | UpgradeError::Ended { .. }
        | UpgradeError::Refused { .. }
        | UpgradeError::Silent { .. }
        | UpgradeError::Thread(_) => Problem::Failed(error.to_string()),
    }
}

pub(super) fn no_backend(backends: &Backends) -> Problem {
    let of = backends.upstream.as_ref().map_or_else(String::new, |pool| format!(" of upstream {pool}"));
    Problem::NotFound(format!("no route goes to a backend {}{of}", backends.name))
}

pub(super) fn no_reload(error: ReloadError) -> Problem {
    match error {
        ReloadError::Configuration(_) | ReloadError::NoFile | ReloadError::Draining | ReloadError::Upgrading => {
            Problem::Conflict(error.to_string())
        }
        ReloadError::Unavailable(_) | ReloadError::Ended | ReloadError::System(_) => Problem::Failed(error.to_string()),
    }
}
