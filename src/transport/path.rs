//! What TCP knows of a path, `TCP_INFO` and `SIOCOUTQ`, and `IP_BIND_ADDRESS_NO_PORT` (Linux). Unsafe
//! code, since no crate wraps the three, and all of them only touch memory that we own.
#![allow(unsafe_code)]

use crate::protocol::heartbeat::PathSample;
use std::{
    io, mem,
    os::fd::{AsRawFd, RawFd},
    time::Duration,
};
use tokio::net::TcpStream;

/// The head of `struct tcp_info` (linux/tcp.h), as far as it is used here; older kernels fill less of it.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct TcpInfo {
    bytes: [u8; 8],
    rto_ato_mss: [u32; 4],
    unacked: u32,
    sacked_to_fackets: [u32; 4],
    last_sent_and_received: [u32; 3],
    last_ack_recv: u32,
    metrics: [u32; 11],
    pacing: [u64; 2],
    bytes_acked: u64,
}

/// Asks the kernel about a connection; `None` if it does not say.
pub(super) fn sample(stream: &TcpStream) -> Option<PathSample> {
    let descriptor = stream.as_raw_fd();
    let info = tcp_info(descriptor)?;
    let queued = unacknowledged(descriptor)?;
    Some(PathSample {
        acked: info.bytes_acked,
        queued,
        in_flight: info.unacked > 0,
        since_ack: Duration::from_millis(info.last_ack_recv.into()),
    })
}

fn tcp_info(descriptor: RawFd) -> Option<TcpInfo> {
    let mut info = TcpInfo::default();
    let mut length = mem::size_of::<TcpInfo>() as libc::socklen_t;
    // SAFETY: `info` is plain integers, valid for any bytes, and `length` is its size; the kernel writes no more.
    let answer = unsafe {
        libc::getsockopt(
            descriptor,
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            (&raw mut info).cast::<libc::c_void>(),
            &raw mut length,
        )
    };
    (answer == 0 && length as usize == mem::size_of::<TcpInfo>()).then_some(info)
}

fn unacknowledged(descriptor: RawFd) -> Option<u64> {
    let mut queued: libc::c_int = 0;
    // SAFETY: SIOCOUTQ (the same number as TIOCOUTQ) writes one int to the address it is given.
    let answer = unsafe { libc::ioctl(descriptor, libc::TIOCOUTQ, &raw mut queued) };
    if answer == 0 { u64::try_from(queued).ok() } else { None }
}

/// Has the kernel choose the port of a bound socket when it connects: then it is taken towards that address alone, and
/// not from all (ip(7)).
///
/// # Errors
/// Those of `setsockopt`.
pub(crate) fn bind_without_port(socket: &impl AsRawFd) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: the kernel reads one int, of the size it is told, from the address it is given.
    let answer = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IP,
            libc::IP_BIND_ADDRESS_NO_PORT,
            (&raw const on).cast::<libc::c_void>(),
            mem::size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use tokio::{io::AsyncWriteExt, net::TcpListener};

    #[tokio::test]
    async fn acknowledgements_advance_and_an_unread_backlog_shows() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let _far = listener.accept().await.unwrap();
        let before = sample(&near).unwrap();
        near.write_all(&[0; 1000]).await.unwrap();
        let after = loop {
            let sample = sample(&near).unwrap();
            if sample.queued == 0 {
                break sample;
            }
            tokio::task::yield_now().await;
        };
        assert_eq!(after.acked - before.acked, 1000);
        assert!(!after.in_flight);
        // The far end never reads: sooner or later the window is closed and bytes stay queued.
        while near.try_write(&[0; 65536]).is_ok() {}
        assert!(sample(&near).unwrap().queued > 0);
    }
}
