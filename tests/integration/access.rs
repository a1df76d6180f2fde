//! Who may come in.
use super::{
    harness::{Running, eventually, one_route, request},
    refusals::asked,
};
use pulsegate::metrics::text::Format;

/// The answer to a handshake that a proxy in front passes on for a client.
fn from(gateway: &Running, client: &str, path: &str) -> (u16, String) {
    asked(gateway, &request(path, &format!("X-Forwarded-For: {client}\r\n")))
}

fn behind_a_proxy(extra: &str) -> String {
    one_route("builtin:echo", &format!("gateway.trusted_proxies = [\"127.0.0.1\"]\n{extra}"))
}

fn retry_after(answer: &str) -> u64 {
    let (_, rest) = answer.split_once("\r\nRetry-After: ").unwrap_or_else(|| panic!("{answer}"));
    rest.split_once("\r\n").unwrap().0.parse().unwrap()
}

/// A figure of the route's handshakes.
fn counted(gateway: &Running, result: &str) -> u64 {
    let text = gateway.operator().metrics(Format::Prometheus);
    let line = format!("pulsegate_handshakes_total{{route=\"all\",result=\"{result}\"}} ");
    let rest = text.split_once(&line).unwrap_or_else(|| panic!("{line} in {text}")).1;
    rest.lines().next().unwrap().parse().unwrap()
}

#[test]
fn addresses_that_are_not_let_in_get_403() {
    let lists = "defaults.access = { allow = [\"10.0.0.0/8\", \"2001:db8::/32\"], deny = [\"10.6.0.0/16\"] }";
    let gateway = Running::start(&behind_a_proxy(lists));
    for (client, expected) in
        [("10.5.0.1", 101), ("2001:db8::7", 101), ("10.6.0.1", 403), ("192.0.2.1", 403), ("2001:db9::1", 403)]
    {
        let (status, answer) = from(&gateway, client, "/");
        assert_eq!(status, expected, "{client}: {answer}");
    }
    assert_eq!(counted(&gateway, "address_denied"), 3);
}

#[test]
fn one_address_may_come_so_often_and_is_told_when_again() {
    let gateway = Running::start(&behind_a_proxy("gateway.rates.handshakes_per_address = \"2/m\""));
    assert_eq!(from(&gateway, "192.0.2.1", "/").0, 101);
    assert_eq!(from(&gateway, "192.0.2.1", "/").0, 101);
    let (status, answer) = from(&gateway, "192.0.2.1", "/");
    assert_eq!(status, 429, "{answer}");
    assert!((20..=31).contains(&retry_after(&answer)), "{answer}");
    assert_eq!(from(&gateway, "192.0.2.2", "/").0, 101);
    assert_eq!(from(&gateway, "2001:db8:1:2::1", "/").0, 101);
    assert_eq!(from(&gateway, "2001:db8:1:2::2", "/").0, 101);
    assert_eq!(from(&gateway, "2001:db8:1:2::3", "/").0, 429);
    assert_eq!(counted(&gateway, "address_rate"), 2);
}

#[test]
fn all_together_may_come_so_often_on_all_workers() {
    let gateway = Running::start(&behind_a_proxy("gateway = { rates.sessions = \"3/m\", workers = 3 }").replace(
        "gateway.trusted_proxies = [\"127.0.0.1\"]\ngateway = {",
        "gateway = { trusted_proxies = [\"127.0.0.1\"],",
    ));
    let statuses: Vec<u16> = (1..=6).map(|client| from(&gateway, &format!("192.0.2.{client}"), "/").0).collect();
    assert_eq!(statuses, [101, 101, 101, 503, 503, 503]);
    let (_, answer) = from(&gateway, "192.0.2.9", "/");
    assert!((10..=26).contains(&retry_after(&answer)), "{answer}");
    assert_eq!(counted(&gateway, "rate"), 4);
}

#[test]
fn a_rate_that_passes_lets_in_again() {
    let gateway = Running::start(&behind_a_proxy("gateway.rates.handshakes = \"10/s\""));
    let refused = (0..30).filter(|_| from(&gateway, "192.0.2.1", "/").0 == 503).count();
    assert!(refused > 0, "thirty in less than a second");
    eventually("there is room again", || from(&gateway, "192.0.2.1", "/").0 == 101);
}
