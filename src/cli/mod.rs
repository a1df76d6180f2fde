//! The command line: what may be asked for, and how it is explained.
pub(crate) mod check;
mod client;
pub(crate) mod drain;
mod exit;
pub(crate) mod generate;
pub(crate) mod output;
pub(crate) mod probe;
pub(crate) mod reload;
pub(crate) mod run;
pub(crate) mod sessions;
pub(crate) mod top;
pub(crate) mod trial;
pub(crate) mod upgrade;

pub(crate) use exit::Exit;

use clap::{Args, Parser, Subcommand};
use http::{HeaderName, HeaderValue};
use pulsegate::{
    config::{self, Config},
    listener::{ListenAddress, ListenerConfig},
    probe::Target,
};
use std::{
    path::{Path, PathBuf},
    time::Duration,
};

const AFTER_HELP: &str = "\
First steps:
  pulsegate try ws://127.0.0.1:8000   put it in front of your backend now, without a file, and watch the pings
  pulsegate probe wss://example.com   ask any WebSocket service how it answers pings, and when silence cuts it (--idle)
  pulsegate check                     see what gateway.toml will serve, and what is wrong with it
  pulsegate                           serve it
  pulsegate top                       watch it, once [admin] is in gateway.toml

Signals:
  SIGTERM, SIGINT   drain: end every session with a close frame, as [gateway] drain says; a second one cuts the rest
  SIGHUP            reload gateway.toml and its certificates: sessions of what is unchanged go on
  SIGUSR2           upgrade: start the program anew, hand the listening sockets to it, and drain once it serves
  SIGUSR1           open the access log anew, after its file has been moved away

Exit codes:
  0    everything that was asked for was done; after a drain: every session had its close frame
  1    a drain had to cut sessions; `check --connect`: a backend did not answer; `upgrade`: the old process serves on;
       `probe`: no WebSocket opened; `sessions`, `top`, `drain`, `reload`: the gateway refused
  2    the command line is wrong
  69   an address cannot be listened on, for example because it is in use; no gateway answers, or no process to `upgrade`
  70   a worker failed: a bug
  71   the system refused something else: a thread, a signal handler
  78   the configuration is wrong; nothing was bound

Logs go to standard error; answers of the other commands to standard output.";

/// A WebSocket gateway that keeps idle connections alive and finds dead ones.
///
/// Pulsegate stands between WebSocket clients and their backends, relays their frames, and sends
/// pings of its own on both legs. Idle connections survive the idle timeouts of proxies and NATs on
/// the path, and when one side vanishes the other is told so with a close frame.
#[derive(Debug, Parser)]
#[command(version, after_help = AFTER_HELP, args_conflicts_with_subcommands = true, verbatim_doc_comment)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    #[command(flatten)]
    pub(crate) run: RunArguments,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Serve what gateway.toml says; the same as no command at all.
    Run(RunArguments),
    /// Print what gateway.toml will serve, every mistake in it, and what to expect of it; bind nothing.
    ///
    /// Listeners, routes in matching order and backends; per route and leg the ping schedule, the time
    /// until a dead peer is found and the bytes per day that an idle client costs; how many sessions fit.
    #[command(verbatim_doc_comment)]
    Check(CheckArguments),
    /// Put a gateway in front of one backend, without a file, and print every ping, pong and round trip.
    ///
    /// Pings go out every 2 seconds on both legs. The six-line gateway.toml that this stands for is
    /// printed first.
    #[command(verbatim_doc_comment)]
    Try(TryArguments),
    /// Put a new version, or a new gateway.toml, in place of the running process without refusing a connection.
    ///
    /// The running process starts its program file anew and hands its listening sockets to it. Once the new
    /// process serves, the old one drains; if the new one fails, the old one serves on, and this says why.
    #[command(verbatim_doc_comment)]
    Upgrade(UpgradeArguments),
    /// Have a running gateway read its file and its certificates again; it needs [admin] in gateway.toml.
    ///
    /// Says what was changed, or every mistake, and then nothing was. SIGHUP does the same, and tells the log.
    #[command(verbatim_doc_comment)]
    Reload(AdminArguments),
    /// Ask any WebSocket service what is on the path to it: times, TLS, pings, and when silence cuts it.
    ///
    /// Opens a WebSocket, sends a few pings, listens for the service's own, and leaves with a close frame.
    /// With --idle it leaves several connections in silence, each for a different time, finds out after how
    /// long the path cuts them, and recommends a ping_interval. Progress goes to standard error. Ctrl-C
    /// ends it early with what is known by then.
    #[command(verbatim_doc_comment)]
    Probe(Box<ProbeArguments>),
    /// Print the JSON Schema of gateway.toml, with which editors complete and check it.
    ///
    /// Save it, and name it in the first line of the file: #:schema ./gateway.schema.json
    #[command(verbatim_doc_comment)]
    Schema,
    /// Write man pages and shell completions into a folder, for packages
    #[command(hide = true)]
    Generate(GenerateArguments),
    /// List the sessions of a running gateway, or end them; it needs [admin] in gateway.toml.
    ///
    /// Options before `end` choose which sessions are meant.
    #[command(verbatim_doc_comment)]
    Sessions(Box<SessionsArguments>),
    /// Watch a running gateway: sessions, round trips, ends and backends; it needs [admin] in gateway.toml.
    Top(TopArguments),
    /// Take a running gateway, or one backend of it, out of service; it needs [admin] in gateway.toml.
    ///
    /// Without --backend the gateway drains as [gateway] drain says, and ends.
    #[command(verbatim_doc_comment)]
    Drain(DrainArguments),
}

/// Where a running gateway is asked.
#[derive(Args, Debug)]
pub(crate) struct AdminArguments {
    #[command(flatten)]
    pub(crate) file: ConfigArgument,
    /// Ask here instead of where [admin] in the file says: an IP address with a port, or unix:PATH
    #[arg(long, value_name = "ADDR", value_parser = client::admin_address)]
    pub(crate) admin: Option<ListenAddress>,
    /// The file that holds the token
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
}

/// Which sessions are meant; all of what is given must fit.
#[derive(Args, Debug)]
pub(crate) struct FilterArguments {
    /// The request's id, as in the logs
    #[arg(long)]
    pub(crate) id: Option<String>,
    /// The route's name
    #[arg(long)]
    pub(crate) route: Option<String>,
    /// The pool's name
    #[arg(long)]
    pub(crate) upstream: Option<String>,
    /// The backend, as gateway.toml writes it (all addresses of a name), or one address of a name: ws://chat.internal#10.0.0.1
    #[arg(long)]
    pub(crate) backend: Option<String>,
    /// The client's address, or a network such as 10.0.0.0/8, or unix
    #[arg(long, value_name = "ADDR")]
    pub(crate) client: Option<String>,
    /// At least this old: 90s, 2h
    #[arg(long, value_name = "TIME")]
    pub(crate) min_age: Option<String>,
    /// At most this old
    #[arg(long, value_name = "TIME")]
    pub(crate) max_age: Option<String>,
    /// The last round trip of a leg took at least this long
    #[arg(long, value_name = "TIME")]
    pub(crate) min_round_trip: Option<String>,
    /// At least this much waits for slow receivers: 64KiB
    #[arg(long, value_name = "SIZE")]
    pub(crate) min_outbox: Option<String>,
    /// Nothing was heard on a leg for at least this long
    #[arg(long, value_name = "TIME")]
    pub(crate) min_silence: Option<String>,
    /// A leg is not read, because the other does not take what came
    #[arg(long)]
    pub(crate) paused: bool,
}

#[derive(Args, Debug)]
pub(crate) struct SessionsArguments {
    #[command(flatten)]
    pub(crate) admin: AdminArguments,
    #[command(flatten)]
    pub(crate) filter: FilterArguments,
    /// What comes first: oldest, newest, round_trip, outbox, silence, bytes, messages
    #[arg(long, value_name = "ORDER", default_value = "oldest")]
    pub(crate) sort: String,
    /// Sessions to list at most
    #[arg(long, short = 'n', value_name = "COUNT", default_value_t = 100)]
    pub(crate) limit: usize,
    /// Print JSON, with every figure of each session
    #[arg(long)]
    pub(crate) json: bool,
    #[command(subcommand)]
    pub(crate) command: Option<SessionsCommand>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum SessionsCommand {
    /// End one session, or all that the options before `end` choose.
    End(EndArguments),
}

#[derive(Args, Debug)]
pub(crate) struct EndArguments {
    /// One session, by its KEY or its request's id
    #[arg(value_name = "SESSION")]
    pub(crate) session: Option<String>,
    /// Every session, if nothing chooses
    #[arg(long)]
    pub(crate) all: bool,
    /// Sessions a second
    #[arg(long, value_name = "RATE")]
    pub(crate) rate: Option<f64>,
    /// The close code that clients get; 1001, if neither this nor the route says another
    #[arg(long, value_name = "CODE")]
    pub(crate) code: Option<u16>,
    /// The text in the close frame: at most 123 bytes
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: Option<String>,
}

#[derive(Args, Debug)]
pub(crate) struct TopArguments {
    #[command(flatten)]
    pub(crate) admin: AdminArguments,
    /// Seconds between two looks
    #[arg(long, value_name = "SECONDS", default_value_t = 2.0)]
    pub(crate) every: f64,
    /// Print one look and end, as when the output is no terminal
    #[arg(long)]
    pub(crate) once: bool,
}

#[derive(Args, Debug)]
pub(crate) struct DrainArguments {
    #[command(flatten)]
    pub(crate) admin: AdminArguments,
    /// Only this backend, as gateway.toml writes it (all addresses that a name has now), or one address of a name
    /// (ws://chat.internal#10.0.0.1): it gets no new sessions
    #[arg(long, value_name = "BACKEND")]
    pub(crate) backend: Option<String>,
    /// Only the backend of this pool
    #[arg(long, value_name = "NAME", requires = "backend")]
    pub(crate) upstream: Option<String>,
    /// End its sessions too, with 1012
    #[arg(long, requires = "backend")]
    pub(crate) evacuate: bool,
    /// Sessions a second
    #[arg(long, value_name = "RATE", requires = "evacuate")]
    pub(crate) rate: Option<f64>,
    /// Put the backend back
    #[arg(long, requires = "backend", conflicts_with = "evacuate")]
    pub(crate) restore: bool,
    /// Tell clients to try again later (1013), and not that the gateway stops (1001), unless drain.code says another code
    #[arg(long, conflicts_with = "backend")]
    pub(crate) shed: bool,
    /// Wait until the gateway has ended
    #[arg(long, conflicts_with = "backend")]
    pub(crate) wait: bool,
}

#[derive(Args, Debug)]
pub(crate) struct ConfigArgument {
    /// The configuration
    #[arg(long, short, value_name = "FILE", default_value = "gateway.toml")]
    pub(crate) config: PathBuf,
}

#[derive(Args, Debug)]
pub(crate) struct RunArguments {
    #[command(flatten)]
    pub(crate) file: ConfigArgument,
    /// Listen here instead of where the file says
    ///
    /// For a file that has one listener, a plain one: an IP address with a port (127.0.0.1:8080,
    /// [::]:80; port 0 picks a free one) or unix:PATH.
    #[arg(long, short, value_name = "ADDR", value_parser = listen_address, verbatim_doc_comment)]
    pub(crate) listen: Option<ListenAddress>,
}

#[derive(Args, Debug)]
pub(crate) struct CheckArguments {
    #[command(flatten)]
    pub(crate) file: ConfigArgument,
    /// Dial every backend too, open a WebSocket, send one ping, and say whether it answers
    #[arg(long)]
    pub(crate) connect: bool,
}

#[derive(Args, Debug)]
pub(crate) struct TryArguments {
    /// The backend: ws://HOST:PORT, wss://HOST:PORT, unix:PATH, or builtin:echo
    #[arg(value_name = "URL")]
    pub(crate) url: String,
    /// Listen here
    #[arg(long, short, value_name = "ADDR", default_value = "127.0.0.1:8080", value_parser = listen_address)]
    pub(crate) listen: ListenAddress,
}

#[derive(Args, Debug)]
pub(crate) struct UpgradeArguments {
    #[command(flatten)]
    pub(crate) file: ConfigArgument,
    /// The running process; without it, the one that gateway.pid_file of the configuration names
    #[arg(long, value_name = "PID")]
    pub(crate) pid: Option<u32>,
}

#[derive(Args, Debug)]
pub(crate) struct GenerateArguments {
    /// Where they go; made if it is not there
    #[arg(value_name = "FOLDER")]
    pub(crate) folder: PathBuf,
}

#[derive(Args, Debug)]
pub(crate) struct ProbeArguments {
    /// The service: ws://HOST/PATH, wss://HOST/PATH, or unix:SOCKET[:/PATH]
    #[arg(value_name = "URL")]
    pub(crate) target: Target,
    /// A header of the request, such as "Authorization: Bearer …"; may be given several times
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE", value_parser = probe::header)]
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    /// A subprotocol to offer; may be given several times
    #[arg(long = "subprotocol", short, value_name = "NAME")]
    pub(crate) subprotocols: Vec<HeaderValue>,
    /// The Origin that a page would have: https://example.com
    #[arg(long, value_name = "URL")]
    pub(crate) origin: Option<HeaderValue>,
    /// PEM file of the authorities that the certificate must chain to; the platform's, if not given
    #[arg(long, value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,
    /// Go on with a certificate that does not hold, and say why it does not
    #[arg(long)]
    pub(crate) insecure: bool,
    /// How many pings to send
    #[arg(long, short = 'n', value_name = "N", default_value_t = 10)]
    pub(crate) count: u32,
    /// How long to listen for the service's own pings, from the handshake on
    #[arg(long, value_name = "TIME", default_value = "25s", value_parser = probe::time)]
    pub(crate) watch: Duration,
    /// What each step may take
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = probe::time)]
    pub(crate) timeout: Duration,
    /// Find out after how long a silence the path cuts a connection; takes up to twice the limit
    #[arg(long)]
    pub(crate) idle: bool,
    /// The longest silence that --idle tries
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = probe::time, requires = "idle")]
    pub(crate) limit: Duration,
    /// Print the summary as JSON, on one line
    #[arg(long)]
    pub(crate) json: bool,
}

fn listen_address(text: &str) -> Result<ListenAddress, String> {
    config::listen_address(text, Path::new("")).map_err(|wrong| format!("{}; {}", wrong.message, wrong.help))
}

/// Why `--listen` cannot replace what the file says.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ListenError {
    #[error(
        "--listen replaces the listener of a file that has exactly one, and this file has {0}: \
         change the [[listener]] tables instead"
    )]
    Count(usize),
    #[error(
        "--listen replaces a plain listener, and the one in this file has tls: \
         change its address in the file, or remove tls there"
    )]
    Tls,
}

/// Has the one plain listener of a configuration listen somewhere else.
pub(crate) fn replace_listener(config: &mut Config, address: ListenAddress) -> Result<(), ListenError> {
    match config.listeners.as_mut_slice() {
        [ListenerConfig { tls: Some(_), .. }] => Err(ListenError::Tls),
        [listener] => {
            listener.address = address;
            Ok(())
        }
        several => Err(ListenError::Count(several.len())),
    }
}

/// An address as a client would write it.
pub(crate) fn client_url(listener: &ListenerConfig) -> String {
    match (&listener.address, &listener.tls) {
        (ListenAddress::Tcp(address), None) => format!("ws://{address}/"),
        (ListenAddress::Tcp(address), Some(_)) => format!("wss://{address}/"),
        (ListenAddress::Unix(path), _) => format!("unix:{}", path.display()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use clap::CommandFactory;

    fn parsed(line: &str) -> Arguments {
        Arguments::try_parse_from(line.split(' ')).unwrap()
    }

    #[test]
    fn the_definition_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn no_command_is_run() {
        let bare = parsed("pulsegate --config a.toml --listen 127.0.0.1:0");
        assert!(bare.command.is_none());
        assert_eq!(bare.run.file.config, PathBuf::from("a.toml"));
        assert_eq!(bare.run.listen, Some(ListenAddress::Tcp("127.0.0.1:0".parse().unwrap())));
        assert!(matches!(parsed("pulsegate run --config a.toml").command, Some(Command::Run(_))));
        assert_eq!(parsed("pulsegate").run.file.config, PathBuf::from("gateway.toml"));
    }

    #[test]
    fn try_listens_on_loopback_unless_told_otherwise() {
        let Some(Command::Try(arguments)) = parsed("pulsegate try ws://127.0.0.1:8000").command else {
            panic!("try is a command")
        };
        assert_eq!(arguments.listen, ListenAddress::Tcp("127.0.0.1:8080".parse().unwrap()));
    }

    #[test]
    fn upgrade_finds_the_process_by_its_id_or_by_the_file() {
        let Some(Command::Upgrade(arguments)) = parsed("pulsegate upgrade --pid 7").command else {
            panic!("upgrade is a command")
        };
        assert_eq!((arguments.pid, arguments.file.config), (Some(7), PathBuf::from("gateway.toml")));
        assert!(Arguments::try_parse_from(["pulsegate", "upgrade", "--pid", "x"]).is_err());
    }

    #[test]
    fn listen_addresses_are_those_of_the_file() {
        assert_eq!(listen_address("unix:run/a.sock"), Ok(ListenAddress::Unix("run/a.sock".into())));
        assert_eq!(listen_address("[::1]:80"), Ok(ListenAddress::Tcp("[::1]:80".parse().unwrap())));
        let error = listen_address("example.com").unwrap_err();
        assert!(error.contains("; "), "what is wrong; what would be right: {error}");
    }
}
