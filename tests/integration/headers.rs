//! Headers that a route removes, sets and adds.
use super::harness::{Backend, Raw, Running, request, soon};
use super::secure::Certificates;
use rustls::version::TLS13;
use std::io::{Read, Write};

const EDITS: &str = r#"
headers.request.remove = ["Cookie"]
headers.request.set = { X-User = "{client_address}/{scheme}", X-TLS = "{tls_version} {tls_name}", Host = "legacy.test", x-ID = "{session_id}" }
headers.request.add = { X-Tag = "{route}" }
headers.response.remove = ["Server"]
headers.response.set = { X-Frame-Options = "DENY", X-Session = "{session_id}" }
headers.response.add = { Set-Cookie = "gate={host}" }
"#;

const ASKED: &str =
    "Cookie: a=b\r\nX-USER: forged\r\nX_User: forged\r\nX-Tag: mine\r\nX-Tls: forged\r\nX-Request-Id: call-7\r\n";

fn lines(head: &[u8]) -> Vec<String> {
    String::from_utf8(head.to_vec()).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn both_ways_are_edited_and_spelled_as_in_the_file() {
    let (backend, heads) = Backend::recorder("Server: old/1.0\r\nSet-Cookie: b=c\r\nX-SESSION: forged\r\n");
    let gateway = Running::start(&format!(
        "[[listener]]\naddress = \"127.0.0.1:0\"\n[[route]]\nname = \"chat\"\nupstream = \"u\"\n{EDITS}\
         [upstream.u]\nservers = [{:?}]\n",
        backend.url()
    ));
    let mut client = Raw::connect(gateway.address());
    client.send(request("/", ASKED).as_bytes());
    let answer = lines(client.head().as_bytes());
    let head = lines(&soon(&heads));
    assert_eq!(head[1], "Host: legacy.test");
    for line in ["X-USER: 127.0.0.1/http", "X-Tag: mine", "X-Tag: chat", "x-ID: call-7"] {
        assert!(head.contains(&line.to_owned()), "{line} in {head:#?}");
    }
    for gone in ["cookie", "x_user", "x-tls", "forged"] {
        assert!(!head.iter().any(|line| line.to_lowercase().contains(gone)), "{gone} in {head:#?}");
    }
    for line in ["X-Frame-Options: DENY", "X-SESSION: call-7", "Set-Cookie: b=c", "Set-Cookie: gate=gateway.test"] {
        assert!(answer.contains(&line.to_owned()), "{line} in {answer:#?}");
    }
    assert!(!answer.iter().any(|line| line.starts_with("Server")), "{answer:#?}");
}

#[test]
fn the_host_is_the_one_that_the_request_was_routed_by() {
    let (backend, heads) = Backend::recorder("");
    let gateway = Running::start(&format!(
        "[[listener]]\naddress = \"127.0.0.1:0\"\n[[route]]\nhost = \"gate.test\"\nupstream = \"u\"\n\
         headers.request.set.X-Host = \"{{host}}\"\n[upstream.u]\nservers = [{:?}]\n",
        backend.url()
    ));
    let mut client = Raw::connect(gateway.address());
    // `Host: gateway.test` stands below it (RFC 9112 section 3.2.2).
    client.send(request("http://gate.test:81/", "").as_bytes());
    assert!(client.head().starts_with("HTTP/1.1 101 "));
    let head = lines(&soon(&heads));
    assert!(head.contains(&"X-Host: gate.test:81".to_owned()), "{head:#?}");
}

#[test]
fn a_refusal_of_a_route_is_edited_too() {
    let gateway = Running::start(
        "[[listener]]\naddress = \"127.0.0.1:0\"\n[[route]]\npath = \"/chat\"\nupstream = \"u\"\norigins = [\"https://a.test\"]\n\
         headers.response.set.X-Frame-Options = \"DENY\"\n[upstream.u]\nservers = [\"builtin:echo\"]\n",
    );
    for (path, status, edited) in [("/chat", "403", true), ("/", "404", false)] {
        let mut client = Raw::connect(gateway.address());
        client.send(request(path, "Origin: https://b.test\r\n").as_bytes());
        let head = client.head();
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head}");
        assert_eq!(head.contains("\r\nX-Frame-Options: DENY\r\n"), edited, "{head}");
    }
}

#[test]
fn what_tls_tells_is_in_variables() {
    let certificates = Certificates::of(&["gate.test"]);
    let (backend, heads) = Backend::recorder("");
    let gateway = Running::start(&format!(
        "{}[[route]]\nupstream = \"u\"\n{EDITS}[upstream.u]\nservers = [{:?}]\n",
        certificates.listener(&["gate.test"]),
        backend.url()
    ));
    for (version, told) in [(&TLS13, "X-Tls: TLSv1.3 gate.test"), (&rustls::version::TLS12, "X-Tls: TLSv1.2 gate.test")]
    {
        let client = certificates.client("gate.test", version);
        // Twice, as the second one resumes.
        for _ in 0..2 {
            let mut secure = super::secure::connect_with(&client, gateway.address(), "gate.test");
            secure.write_all(request("/", ASKED).as_bytes()).unwrap();
            secure.read_exact(&mut [0; 20]).unwrap();
            let head = lines(&soon(&heads));
            assert!(head.contains(&told.to_owned()), "{head:#?}");
            assert!(head.contains(&"X-USER: 127.0.0.1/https".to_owned()), "{head:#?}");
        }
    }
}
