//! Asks a running gateway's admin listener, for `sessions`, `top` and `drain`.
use super::{AdminArguments, Exit, output::complain};
use bytes::Bytes;
use http::{
    Method, Request, StatusCode,
    header::{AUTHORIZATION, CONTENT_TYPE, HOST},
};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use pulsegate::{
    config::{self, read_token},
    listener::ListenAddress,
};
use serde_json::Value;
use std::{
    fmt::Display,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::Path,
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
    runtime::{Builder, Runtime},
    time::timeout,
};

/// For an answer.
const PATIENCE: Duration = Duration::from_secs(35);
/// Bytes of an answer.
const LONGEST: usize = 64 << 20;

/// A gateway's admin listener, as this process reaches it.
pub(crate) struct Client {
    address: ListenAddress,
    token: Option<String>,
    runtime: Runtime,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AskError {
    #[error("cannot reach the admin listener at {0}: {1}; does a gateway run, and is [admin] in its gateway.toml?")]
    Unreachable(ListenAddress, io::Error),
    #[error("no answer from the admin listener within {} s", PATIENCE.as_secs())]
    Late,
    #[error("the answer of the admin listener cannot be read: {0}")]
    Garbled(String),
    #[error("{1}")]
    Refused(StatusCode, String),
}

impl AskError {
    /// How the process ends.
    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::Unreachable(..) | Self::Late | Self::Garbled(_) => Exit::Unavailable,
            Self::Refused(..) => Exit::Cut,
        }
    }
}

impl Client {
    /// The one that the arguments name, or else the file's `[admin]`. `None`: why not was printed.
    pub(crate) fn find(arguments: &AdminArguments) -> Result<Self, Exit> {
        let (mut address, mut token_file) = (arguments.admin.clone(), arguments.token_file.clone());
        if address.is_none() {
            let config = super::run::load(&arguments.file.config).ok_or(Exit::Configuration)?;
            let Some(admin) = config.admin else {
                let file = arguments.file.config.display();
                return Err(configuration(format_args!(
                    "{file} has no [admin], so nobody can ask; or name it with --admin ADDR"
                )));
            };
            address = Some(admin.address);
            token_file = token_file.or(admin.token_file);
        }
        let Some(address) = address else { return Err(Exit::Configuration) };
        let token = token_file.as_deref().map(read_token).transpose().map_err(configuration)?;
        let runtime = Builder::new_current_thread().enable_all().build().map_err(|error| {
            complain(error);
            Exit::System
        })?;
        Ok(Self { address: reachable(address), token, runtime })
    }

    pub(crate) fn address(&self) -> &ListenAddress {
        &self.address
    }

    pub(crate) fn get(&self, path: &str) -> Result<Value, AskError> {
        self.ask(Method::GET, path, None)
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> Result<Value, AskError> {
        self.ask(Method::POST, path, Some(body))
    }

    fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value, AskError> {
        let asking =
            async { timeout(PATIENCE, self.exchange(method, path, body)).await.unwrap_or(Err(AskError::Late)) };
        self.runtime.block_on(asking)
    }

    async fn exchange(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value, AskError> {
        let unreachable = |error| AskError::Unreachable(self.address.clone(), error);
        match &self.address {
            ListenAddress::Tcp(address) => {
                let stream = TcpStream::connect(address).await.map_err(unreachable)?;
                self.over(stream, &address.to_string(), method, path, body).await
            }
            ListenAddress::Unix(file) => {
                let stream = UnixStream::connect(file).await.map_err(unreachable)?;
                self.over(stream, "localhost", method, path, body).await
            }
        }
    }

    async fn over(
        &self,
        stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
        host: &str,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Value, AskError> {
        let garbled = |error: &dyn Display| AskError::Garbled(error.to_string());
        let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = handshake.map_err(|error| garbled(&error))?;
        // It ends with the sender; what goes wrong on it the sender tells.
        tokio::spawn(async move { drop(connection.await) });
        let mut request = Request::builder().method(method).uri(path).header(HOST, host);
        if let Some(token) = &self.token {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        let body = body.map(Value::to_string).unwrap_or_default();
        let request = request.header(CONTENT_TYPE, "application/json").body(Full::new(Bytes::from(body)));
        let request = request.map_err(|error| garbled(&error))?;
        let (head, body) = sender.send_request(request).await.map_err(|error| garbled(&error))?.into_parts();
        let body = Limited::new(body, LONGEST).collect().await.map_err(|error| garbled(&error))?.to_bytes();
        let value: Value = serde_json::from_slice(&body).map_err(|error| garbled(&error))?;
        if head.status.is_success() {
            return Ok(value);
        }
        let why = value["error"].as_str().unwrap_or("refused without a reason");
        Err(AskError::Refused(head.status, why.to_owned()))
    }
}

fn configuration(problem: impl Display) -> Exit {
    complain(problem);
    Exit::Configuration
}

/// Where a listener on every address of this machine can be reached.
fn reachable(address: ListenAddress) -> ListenAddress {
    match address {
        ListenAddress::Tcp(address) if address.ip().is_unspecified() => {
            let near = match address.ip() {
                IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
                IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
            };
            ListenAddress::Tcp(SocketAddr::new(near, address.port()))
        }
        ListenAddress::Tcp(_) | ListenAddress::Unix(_) => address,
    }
}

/// A value of a query, percent-encoded (RFC 3986 section 2.1).
pub(crate) fn encode(text: &str) -> String {
    text.bytes().fold(String::new(), |encoded, byte| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
            encoded + char::from(byte).encode_utf8(&mut [0; 4])
        }
        byte => encoded + &format!("%{byte:02X}"),
    })
}

/// An address on the command line; a file's own one starts at the working directory.
pub(crate) fn admin_address(text: &str) -> Result<ListenAddress, String> {
    config::listen_address(text, Path::new("")).map_err(|wrong| wrong.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_encoded() {
        assert_eq!(encode("ws://h:1/a b"), "ws%3A%2F%2Fh%3A1%2Fa%20b");
        assert_eq!(encode("é-1"), "%C3%A9-1");
    }
}
