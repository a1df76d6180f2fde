//! Gateways start, listen, and say why they do not.
use super::harness::{Running, configured, one_route};
use pulsegate::gateway::{Gateway, StartError};
use std::net::TcpStream;

const ECHO: &str = "builtin:echo";

#[test]
fn port_zero_is_a_free_port_that_can_be_asked_for() {
    let gateway = Running::start(&one_route(ECHO, "gateway.workers = 2"));
    assert_ne!(gateway.address().port(), 0);
    TcpStream::connect(gateway.address()).unwrap();
}

#[test]
fn two_gateways_in_one_process_do_not_know_of_each_other() {
    let (first, second) = (Running::start(&one_route(ECHO, "")), Running::start(&one_route(ECHO, "")));
    assert_ne!(first.address(), second.address());
    let address = first.address();
    assert_eq!(first.drained().failed_workers, 0);
    assert!(TcpStream::connect(address).is_err(), "the drained one no longer listens");
    TcpStream::connect(second.address()).unwrap();
}

#[test]
fn an_address_in_use_stops_the_start_and_says_so() {
    let first = Running::start(&one_route(ECHO, ""));
    let listener = format!("\n[[listener]]\naddress = \"{}\"\n", first.address());
    let error = Gateway::start(configured(&(one_route(ECHO, "") + &listener))).unwrap_err();
    assert!(matches!(error, StartError::Bind(_)), "{error}");
    assert!(error.to_string().contains("--listen"), "{error}");
}

#[test]
fn a_dropped_gateway_no_longer_listens() {
    let gateway = Running::start(&one_route(ECHO, ""));
    let address = gateway.address();
    drop(gateway);
    assert!(TcpStream::connect(address).is_err());
}
