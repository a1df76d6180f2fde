//! W3C trace context: passed on, and with the feature `otel` continued and exported.
use super::{
    harness::{Backend, Raw, one_route, request, soon},
    program::Program,
};
use std::{
    io::{Read, Write},
    sync::{
        Mutex,
        mpsc::{Receiver, channel},
    },
};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

/// Takes one request a connection, hands its head and body to the test, and answers.
fn taking(answer: &'static str) -> (Backend, Receiver<(String, String)>) {
    let (sender, requests) = channel();
    let sender = Mutex::new(sender);
    let backend = Backend::raw(move |stream| {
        let mut raw = Raw(stream);
        let head = raw.head();
        let length = head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
        let mut body = vec![0; length.unwrap_or(0)];
        raw.0.read_exact(&mut body).unwrap();
        raw.0.write_all(answer.as_bytes()).unwrap();
        // A test that is over no longer listens.
        let _ = sender.lock().unwrap().send((head, String::from_utf8(body).unwrap()));
    });
    (backend, requests)
}

/// Asks for a session with these lines, and gives what the backend was asked.
fn asked(lines: &str, variables: &[(&str, &str)]) -> (Program, String) {
    let (backend, requests) = taking("HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n");
    let toml = one_route(&backend.url(), "") + "[[listener]]\naddress = \"127.0.0.1:0\"\n";
    let mut program = Program::start_with(&toml, &[], variables);
    let mut client = Raw::connect(program.address());
    client.send(request("/chat?secret=1", lines).as_bytes());
    assert!(client.head().starts_with("HTTP/1.1 401 "));
    (program, soon(&requests).0)
}

fn context() -> String {
    format!("TraceParent: 00-{TRACE}-{PARENT}-01\r\ntracestate: vendor=a,other=b\r\n")
}

#[test]
fn a_trace_context_crosses_untouched_where_nothing_is_exported() {
    let (_program, head) = asked(&context(), &[]);
    assert!(head.contains(&context()), "{head}");
}

#[cfg(feature = "otel")]
mod exported {
    use super::*;
    use rustix::process::Signal;

    /// The value of a field that follows this text.
    fn after<'a>(text: &'a str, part: &str) -> &'a str {
        let (_, rest) = text.split_once(part).unwrap_or_else(|| panic!("{part} is not in {text}"));
        rest.split('"').next().unwrap()
    }

    /// The span of this name, as JSON.
    fn span<'a>(body: &'a str, name: &str) -> &'a str {
        let spans = body.split("{\"traceId\":");
        spans
            .into_iter()
            .find(|span| span.contains(&format!("\"name\":\"{name}\"")))
            .unwrap_or_else(|| panic!("{body}"))
    }

    #[test]
    fn a_clients_trace_is_continued_and_its_handshake_exported() {
        let (collector, posts) = taking("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}");
        let endpoint = collector.url().replace("ws://", "http://");
        let (_program, head) = asked(&context(), &[("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint)]);
        let (post, body) = soon(&posts);
        assert!(post.starts_with("POST /v1/traces HTTP/1.1\r\n") && post.contains("application/json"), "{post}");
        assert!(!body.contains("secret"), "{body}");
        for part in
            [r#"{"key":"service.name","value":{"stringValue":"pulsegate"}}"#, r#""traceState":"vendor=a,other=b""#]
        {
            assert!(body.contains(part), "{part} is not in {body}");
        }
        let whole = span(&body, "websocket handshake");
        assert!(whole.starts_with(&format!("\"{TRACE}\"")) && whole.contains("\"kind\":2"), "{whole}");
        assert_eq!(after(whole, "\"parentSpanId\":\""), PARENT);
        assert!(whole.contains(r#""http.response.status_code","value":{"stringValue":"401"}"#), "{whole}");
        let (root, backend) = (after(whole, "\"spanId\":\""), span(&body, "backend"));
        assert_eq!(after(backend, "\"parentSpanId\":\""), root);
        let seen = format!("traceparent: 00-{TRACE}-{}-01", after(backend, "\"spanId\":\""));
        assert!(head.to_lowercase().contains(&seen), "{seen} is not in {head}");
        assert!(head.contains("tracestate: vendor=a,other=b"), "{head}");
        for (name, parent) in [("route", root), ("dial", after(backend, "\"spanId\":\""))] {
            assert_eq!(after(span(&body, name), "\"parentSpanId\":\""), parent);
        }
        span(&body, "backend handshake");
    }

    #[test]
    fn a_trace_begins_here_for_a_client_without_one_and_is_exported_before_the_exit() {
        let (collector, posts) = taking("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}");
        let endpoint = collector.url().replace("ws://", "http://");
        let (program, head) = asked("tracestate: stray=1\r\n", &[("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint)]);
        program.signal(Signal::TERM);
        let (_, body) = soon(&posts);
        let trace = span(&body, "websocket handshake").split('"').nth(1).unwrap().to_owned();
        assert!(head.to_lowercase().contains(&format!("traceparent: 00-{trace}-")), "{head}");
        assert!(!head.contains("stray"), "{head}");
        assert_eq!(program.end().0, Some(0));
    }

    #[test]
    fn a_client_that_does_not_sample_is_obeyed() {
        let (collector, posts) = taking("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        let endpoint = collector.url().replace("ws://", "http://");
        let unsampled = context().replace("-01", "-00");
        let (program, head) = asked(&unsampled, &[("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint)]);
        assert!(head.contains(&unsampled), "{head}");
        program.signal(Signal::TERM);
        assert_eq!(program.end().0, Some(0));
        assert!(posts.try_recv().is_err());
    }

    #[test]
    fn a_collector_that_is_gone_is_told_once_and_harms_nobody() {
        let (mut program, _) = asked("", &[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")]);
        program.logged("traces cannot be exported");
        program.signal(Signal::TERM);
        assert_eq!(program.end().0, Some(0));
    }

    #[test]
    fn a_wrong_endpoint_exits_with_78() {
        let toml = super::super::program::echo("");
        let variables = [("OTEL_EXPORTER_OTLP_ENDPOINT", "https://collector.test")];
        let (code, log) = Program::start_with(&toml, &[], &variables).end();
        assert_eq!(code, Some(78), "{log}");
        assert!(log.contains("http://HOST:4318"), "{log}");
    }
}
