//! The whole configuration: complete, typed, valid. The rest of the program sees only this.
mod access;
mod address;
mod admin;
mod balance;
mod ceilings;
mod check;
mod checks;
mod detection;
mod dials;
mod file;
mod headers;
mod keys;
mod limits;
mod listeners;
mod load;
mod options;
mod problem;
mod report;
mod routes;
mod schema;
mod suggest;
mod syntax;
#[cfg(test)]
mod tests;
mod upstreams;
mod value;
mod warnings;

pub use address::{listen_address, network};
pub use admin::{TokenError, read_token};
pub use ceilings::Ceilings;
pub use check::parse;
pub use detection::{Detection, detection, idle_bytes_per_day};
pub use load::{load, try_text};
pub use problem::{ConfigErrors, Problem, Wrong};
pub use report::{Report, report};
pub use schema::schema;
pub use value::{duration_text, size_text};

use crate::{
    access::rates::RatesConfig,
    listener::{ListenAddress, ListenerConfig, trust::ClientSource},
    pacing::{Pace, Turns},
    protocol::close::CloseCode,
    route::{RouteConfig, RouteOptions},
    upstream::UpstreamConfig,
};
use std::{path::PathBuf, time::Duration};

/// Reads a time as it is written in `gateway.toml`: `20s`, `1m30s`; zero too.
///
/// # Errors
/// Says what is wrong with the text and what would be right.
pub fn duration(text: &str) -> Result<Duration, Wrong> {
    value::parse_duration(text)
}

/// Everything that `gateway.toml` says, with every default filled in.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    pub gateway: GatewayConfig,
    pub log: LogConfig,
    /// `None`: no log of its own for verdicts.
    pub access_log: Option<AccessLogConfig>,
    /// `None`: no `[admin]`, so nothing is served to operators.
    pub admin: Option<AdminConfig>,
    /// `[defaults]`: what applies before a route is known.
    pub defaults: RouteOptions,
    pub listeners: Vec<ListenerConfig>,
    /// In the order of the file.
    pub routes: Vec<RouteConfig>,
    pub upstreams: Vec<UpstreamConfig>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct GatewayConfig {
    /// 0: one per core.
    pub workers: usize,
    /// `None`: from the descriptor limit.
    pub max_sessions: Option<usize>,
    /// Connections of clients that ask plain HTTP. `None`: from the descriptor limit.
    pub max_http_connections: Option<usize>,
    /// Bytes in the outboxes of all sessions together.
    pub memory_limit: Option<u64>,
    pub trusted_proxies: Vec<ipnet::IpNet>,
    pub client_address: ClientSource,
    /// Where to write the id of the process that serves.
    pub pid_file: Option<PathBuf>,
    /// How long a new process may take to be ready at an upgrade.
    pub upgrade_timeout: Duration,
    pub drain: DrainConfig,
    pub rates: RatesConfig,
    /// Reload when the file or a certificate changes.
    pub watch: bool,
}

/// `[admin]`: where operators reach the gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminConfig {
    pub address: ListenAddress,
    /// The file that holds the token of those who may change something. `None`: only a Unix socket lets them.
    pub token_file: Option<PathBuf>,
    /// Names by which browsers may reach it besides its own address, in lower case, without a port.
    pub hosts: Vec<String>,
}

impl AdminConfig {
    /// Whether whoever reaches it is on this machine, or is let in by one who is.
    #[must_use]
    pub fn is_local(&self) -> bool {
        match &self.address {
            ListenAddress::Tcp(address) => address.ip().to_canonical().is_loopback(),
            ListenAddress::Unix(_) => true,
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct DrainConfig {
    pub delay: Duration,
    pub pace: Pace,
    pub order: Turns,
    pub timeout: Duration,
    /// `None`: by the cause of the drain.
    pub code: Option<CloseCode>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct LogConfig {
    /// A level or a filter directive of tracing's `EnvFilter`.
    pub level: String,
    pub format: LogFormat,
    pub sessions: LogSessions,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Text on a terminal, JSON otherwise.
    Auto,
    Text,
    Json,
}

/// Which verdicts are logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogSessions {
    All,
    Abnormal,
    Off,
}

/// The log of verdicts.
#[derive(Clone, Debug, PartialEq)]
pub struct AccessLogConfig {
    pub path: AccessLogPath,
    pub format: AccessLogFormat,
    /// Which verdicts are written.
    pub sessions: LogSessions,
    /// How often an open session is written besides.
    pub every: Option<Duration>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccessLogPath {
    Stdout,
    File(PathBuf),
}

/// How a record is spelled; each is one line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessLogFormat {
    Json,
    /// `key=value`, as Heroku's logfmt.
    Text,
}
