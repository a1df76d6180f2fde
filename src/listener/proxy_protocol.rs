//! The PROXY protocol (haproxy.org, doc/proxy-protocol.txt), versions 1 and 2: what a proxy says before anything else of the
//! connection that it passes on.
use crate::transport::Socket;
use ppp::{v1, v2};
use std::{
    io,
    net::{IpAddr, SocketAddr},
};
use tokio::io::AsyncReadExt;

/// Whether the peers of a listener begin with a PROXY header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ProxyProtocol {
    #[default]
    Off,
    /// Of either version. Whoever begins otherwise is not served: what may be there could be forged by whoever wants to.
    Require,
}

/// What a header says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// Who connected to the proxy, and to which of its addresses. `None`: the proxy speaks for itself, as in a health check,
    /// or does not say for whom.
    pub addresses: Option<(SocketAddr, SocketAddr)>,
    /// The client spoke TLS with the proxy (`PP2_TYPE_SSL`).
    pub tls: bool,
    /// The VPC endpoint through which the client came (`PP2_TYPE_AWS`).
    pub vpc_endpoint: Option<Box<str>>,
}

/// Why there is no header.
#[derive(Debug, thiserror::Error)]
pub enum HeaderError {
    /// Balancers connect so, to see whether somebody listens.
    #[error("the connection ended before it said anything")]
    Silent,
    #[error("the connection does not begin with a PROXY header")]
    Missing,
    #[error("the PROXY header is too long")]
    TooLong,
    #[error("the PROXY header is not valid: {0}")]
    Invalid(String),
    #[error("the connection ended within the PROXY header")]
    Unfinished,
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// The longest of version 1, with its end of line.
const LONGEST_1: usize = 107;
/// The longest of version 2; the protocol would allow 64 KiB.
const LONGEST_2: usize = 8192;
/// Before the addresses, in version 2.
const FIXED: usize = 16;
const AWS: u8 = 0xea;
const AWS_VPC_ENDPOINT: u8 = 1;
const SSL: u8 = 0x20;
const CLIENT_SSL: u8 = 1;

/// Takes the header off the stream, and not a byte more. Cancelling it leaves a stream that cannot be used.
///
/// # Errors
/// There is none, or the stream ended or failed. To wait for it in vain is the caller's to end.
pub async fn read(socket: &mut Socket) -> Result<Told, HeaderError> {
    let mut room = vec![0; LONGEST_2];
    let mut length = 0;
    loop {
        let waiting = socket.peek(&mut room[length..]).await?;
        if waiting == 0 {
            return Err(if length == 0 { HeaderError::Silent } else { HeaderError::Unfinished });
        }
        let whole = whole(&room[..length + waiting])?;
        let ours = whole.unwrap_or(length + waiting);
        socket.read_exact(&mut room[length..ours]).await?;
        length = ours;
        if whole.is_some() {
            return parse(&room[..length]);
        }
    }
}

/// How long the header is with which these bytes begin. `None`: they are the beginning of one.
fn whole(bytes: &[u8]) -> Result<Option<usize>, HeaderError> {
    let begin = |with: &[u8]| bytes.starts_with(with) || with.starts_with(bytes);
    if begin(v2::PROTOCOL_PREFIX) {
        let Some(&[high, low]) = bytes.get(FIXED - 2..FIXED) else { return Ok(None) };
        let length = FIXED + usize::from(u16::from_be_bytes([high, low]));
        return if length > LONGEST_2 {
            Err(HeaderError::TooLong)
        } else {
            Ok((bytes.len() >= length).then_some(length))
        };
    }
    if begin(b"PROXY ") {
        let end = bytes.iter().take(LONGEST_1).position(|&byte| byte == b'\n');
        return match end {
            Some(end) => Ok(Some(end + 1)),
            None if bytes.len() >= LONGEST_1 => Err(HeaderError::TooLong),
            None => Ok(None),
        };
    }
    Err(HeaderError::Missing)
}

fn parse(header: &[u8]) -> Result<Told, HeaderError> {
    let invalid = |error: &dyn std::error::Error| HeaderError::Invalid(error.to_string());
    if !header.starts_with(v2::PROTOCOL_PREFIX) {
        let header = v1::Header::try_from(header).map_err(|error| invalid(&error))?;
        let addresses = match header.addresses {
            v1::Addresses::Tcp4(v1::IPv4 { source_address, source_port, destination_address, destination_port }) => {
                pair((source_address, source_port), (destination_address, destination_port))
            }
            v1::Addresses::Tcp6(v1::IPv6 { source_address, source_port, destination_address, destination_port }) => {
                pair((source_address, source_port), (destination_address, destination_port))
            }
            v1::Addresses::Unknown => None,
        };
        return Ok(Told { addresses, ..Told::default() });
    }
    // What follows the command LOCAL has no meaning, not even a family of addresses that does not fit it.
    if header[FIXED - 4] == v2::Version::Two | v2::Command::Local {
        return Ok(Told::default());
    }
    let header = v2::Header::try_from(header).map_err(|error| invalid(&error))?;
    let addresses = match header.addresses {
        v2::Addresses::IPv4(v2::IPv4 { source_address, source_port, destination_address, destination_port }) => {
            pair((source_address, source_port), (destination_address, destination_port))
        }
        v2::Addresses::IPv6(v2::IPv6 { source_address, source_port, destination_address, destination_port }) => {
            pair((source_address, source_port), (destination_address, destination_port))
        }
        v2::Addresses::Unix(_) | v2::Addresses::Unspecified => None,
    };
    let mut told = Told { addresses, ..Told::default() };
    // What cannot be read is of use to nobody, and in nobody's way.
    for tlv in header.tlvs().map_while(Result::ok) {
        match (tlv.kind, tlv.value.split_first()) {
            (SSL, Some((client, _))) => told.tls = client & CLIENT_SSL != 0,
            (AWS, Some((&AWS_VPC_ENDPOINT, id))) if id.iter().all(u8::is_ascii_graphic) => {
                told.vpc_endpoint = Some(String::from_utf8_lossy(id).into());
            }
            (_, _) => {}
        }
    }
    Ok(told)
}

fn pair<I: Into<IpAddr>>(source: (I, u16), destination: (I, u16)) -> Option<(SocketAddr, SocketAddr)> {
    let address = |(address, port): (I, u16)| SocketAddr::new(address.into().to_canonical(), port);
    Some((address(source), address(destination)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use tokio::{io::AsyncWriteExt, net::UnixStream};

    fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let mut header = v2::PROTOCOL_PREFIX.to_vec();
        header.extend([command, family]);
        header.extend(u16::try_from(rest.len()).unwrap().to_be_bytes());
        header.extend(rest);
        header
    }

    fn addresses(source: &str, destination: &str) -> Told {
        Told { addresses: Some((source.parse().unwrap(), destination.parse().unwrap())), ..Told::default() }
    }

    /// What is read of `bytes` that come in pieces of `piece`, and what is left behind them.
    async fn read_of(bytes: &[u8], piece: usize) -> (Result<Told, HeaderError>, Vec<u8>) {
        let (mut theirs, ours) = UnixStream::pair().unwrap();
        let mut ours = Socket::Unix(ours);
        let write = async {
            for part in bytes.chunks(piece) {
                theirs.write_all(part).await.unwrap();
                tokio::task::yield_now().await;
            }
            drop(theirs);
        };
        let read = async {
            let told = read(&mut ours).await;
            let mut rest = Vec::new();
            ours.read_to_end(&mut rest).await.unwrap();
            (told, rest)
        };
        tokio::join!(write, read).1
    }

    const V4: [u8; 12] = [203, 0, 113, 7, 10, 0, 0, 1, 0x12, 0x34, 1, 187];

    #[tokio::test]
    async fn headers_are_taken_off_whole_and_nothing_behind_them() {
        let mut v6 = vec![0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7];
        v6.extend([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 0, 0, 1, 0, 80, 1, 187]);
        let cases = [
            (b"PROXY TCP4 203.0.113.7 10.0.0.1 4660 443\r\n".to_vec(), addresses("203.0.113.7:4660", "10.0.0.1:443")),
            (
                b"PROXY TCP6 2001:db8::7 2001:db8::1 80 443\r\n".to_vec(),
                addresses("[2001:db8::7]:80", "[2001:db8::1]:443"),
            ),
            (b"PROXY UNKNOWN\r\n".to_vec(), Told::default()),
            (b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n".to_vec(), Told::default()),
            (v2(0x21, 0x11, &V4), addresses("203.0.113.7:4660", "10.0.0.1:443")),
            (v2(0x21, 0x21, &v6), addresses("[2001:db8::7]:80", "10.0.0.1:443")),
            (v2(0x20, 0, &[]), Told::default()),
            (v2(0x20, 0x11, &[]), Told::default()),
            (v2(0x21, 0, &[4, 0, 1, 9]), Told::default()),
        ];
        for (header, told) in cases {
            for piece in [1, 7, 1000] {
                let (read, rest) = read_of(&[&header[..], b"GET / HTTP/1.1\n"].concat(), piece).await;
                assert_eq!(read.unwrap(), told, "{}", header.escape_ascii());
                assert_eq!(rest, b"GET / HTTP/1.1\n");
            }
        }
    }

    #[tokio::test]
    async fn what_balancers_add_is_read_or_passed_over() {
        let aws = b"\xea\x00\x0d\x01vpce-08d2bf1";
        let crc = b"\x03\x00\x04\x01\x02\x03\x04";
        let ssl = b"\x20\x00\x05\x01\x00\x00\x00\x00";
        let (read, _) = read_of(&v2(0x21, 0x11, &[&V4[..], crc, aws, ssl, b"\xff\xff\xff"].concat()), 5).await;
        let told = read.unwrap();
        assert_eq!((told.vpc_endpoint.as_deref(), told.tls), (Some("vpce-08d2bf1"), true));
        assert!(told.addresses.is_some());
    }

    #[tokio::test]
    async fn what_is_no_header_is_called_so() {
        let mut long = v2(0x21, 0x11, &V4);
        long[14] = 0xff;
        let endless = [b"PROXY TCP4 ".to_vec(), vec![b'1'; 200]].concat();
        for (bytes, error) in [
            (&b""[..], "before it said anything"),
            (b"GET / HTTP/1.1\r\n\r\n", "does not begin with"),
            (b"\x16\x03\x01\x02\x00", "does not begin with"),
            (b"PROXY TCP4 203.0.113.7", "within the PROXY header"),
            (b"PROXY TCP4 203.0.113.7 10.0.0.1 x 443\r\n", "not valid"),
            (b"PROXY TCP4 203.0.113.7 10.0.0.1 1 443\n", "not valid"),
            (&endless, "too long"),
            (&long, "too long"),
            (&v2(0x21, 0x11, &[1, 2, 3]), "not valid"),
            (&v2(0x31, 0x11, &V4), "not valid"),
            (&v2(0x2f, 0x11, &V4), "not valid"),
        ] {
            for piece in [1, 1000] {
                let told = read_of(bytes, piece).await.0.unwrap_err().to_string();
                assert!(told.contains(error), "{}: {told}", bytes.escape_ascii());
            }
        }
    }
}
