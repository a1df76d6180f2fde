//! Pulsegate: a WebSocket gateway that relays frames between clients and backends and adds its own ping/pong
//! heartbeat on both legs, so that idle connections survive the idle timeouts on their path and half-open peers
//! are found and torn down on both sides.
//!
//! # The two paths
//!
//! **A frame, five stops.** [`session`] reads into the worker's scratch room → a `protocol::leg` scans headers →
//! the [`relay`] decides what passes → the other leg's outbox, if its socket does not take it at once → the
//! session writes. The core says where; the shell moves the payload: it is not copied, not unmasked, and no
//! message is ever assembled.
//!
//! **An opening handshake, six stops.** [`listener`] accepts, for the worker that has least to do → TLS under a deadline → its head is read, a tower stack
//! limits → [`handshake`] makes it an upgrade request for a [`route`], or a 4xx → [`upstream`] picks a backend,
//! dials, shakes hands, fails over → 101. The client gets its 101 only after the backend gave one.
//!
//! What most handshakes consist of, a first request for a session whose head comes in one piece, and a 101, is read and written here, with the
//! parser that hyper has (`handshake/first.rs`, `upstream/handshake.rs`): hyper's connections, made for whatever HTTP may bring, cost a
//! fourth of a handshake. Whatever else comes is hyper's, from its first byte: other requests, other answers, and how they are answered.
//!
//! A plain HTTP request, where a route takes such, leaves that path at its route: [`http`](mod@http) passes it to a backend over a kept
//! connection and streams the answer back.
//!
//! # The rings
//!
//! Imports point inward only; `tests/architecture.rs` checks it.
//!
//! | ring | what | knows nothing of |
//! | --- | --- | --- |
//! | [`protocol`] | RFC 6455 on one leg: frames, heartbeat, closing, outbox | IO, clocks, random numbers, the other leg |
//! | [`relay`] | what crosses between two legs, what ends a session, which codes are said | IO, clocks, random numbers |
//! | [`session`], [`transport`] | one task per session: sockets, timer, verdict | HTTP, configuration files |
//! | [`metrics`] | what workers count, and the text of it | IO but of `/proc`, HTTP, configuration files |
//! | [`pem`], [`tasks`], [`pacing`] | files, tasks and turns that several of the next need | all of the next |
//! | [`handshake`], [`http`](mod@http), [`listener`], [`upstream`], [`route`] | from an accepted connection to a session, or to the answer of a plain request | frames |
//! | [`access`] | who may come in: addresses, rates | routes, backends, frames |
//! | [`probe`] | asks any WebSocket service what is on its path | sessions, configuration |
//! | [`config`] | `gateway.toml`: everything it says, checked, typed | what is done with it |
//! | [`worker`], [`shutdown`] | one thread with its sockets and sessions; the drain of all of them | frames, HTTP |
//! | [`gateway`] | builds every part from a configuration, starts the workers, reloads, waits for their end | bytes |
//! | [`upgrade`] | hands the listening sockets to a new process, and takes them over from an old one | bytes |
//! | [`log`], [`descriptors`], [`supervisor`], [`pid_file`], [`otel`] | what concerns the whole process: its logs, its descriptor limit, systemd, its id, traces of handshakes | frames, HTTP |
//! | [`admin`] | HTTP for operators: the session API, health, the dashboard | how the gateway does what it asks |
//! | `cli`, in the program only | `run`, `check`, `try`, `upgrade`, `reload`, `sessions`, `top`, `drain`, `probe`, `schema`: arguments, answers, exit codes | how any of it is done |
//!
//! Settings live in the module that obeys them; [`config`] only assembles them. Other programs embed a gateway with
//! [`config::parse`] and [`gateway::Gateway`]; `examples/embed.rs` shows how. What the gateway decides, and why, stands
//! in `docs/behaviour.md`.

pub mod access;
pub mod admin;
pub mod config;
pub mod descriptors;
pub mod gateway;
pub mod handshake;
pub mod http;
pub mod listener;
pub mod log;
pub mod metrics;
pub mod otel;
pub mod pacing;
pub mod pem;
pub mod pid_file;
pub mod probe;
pub mod protocol;
pub mod relay;
pub mod route;
pub mod session;
pub mod shutdown;
pub mod supervisor;
pub mod tasks;
pub mod transport;
pub mod upgrade;
pub mod upstream;
pub mod worker;
