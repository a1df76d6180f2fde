//! One record of the access log for a plain HTTP request that is over.
use super::record::{Put, Value, json_line, text_line, time_text};
use crate::{config::AccessLogFormat, http::RequestRecord, log::verdict::millis};
use std::time::SystemTime;

/// A request that was over `at` that time, on a line of its own.
pub(super) fn line(request: &RequestRecord, at: SystemTime, format: AccessLogFormat) -> String {
    match format {
        AccessLogFormat::Json => json_line(at, "request", |put| fields(request, at, put)),
        AccessLogFormat::Text => text_line(at, "request", |put| fields(request, at, put)),
    }
}

fn fields(request: &RequestRecord, at: SystemTime, put: Put<'_>) {
    put("request", Value::Text(&request.id));
    put("route", Value::Text(&request.route.name));
    put("method", Value::Text(request.method.as_str()));
    put("host", Value::Text(&request.host));
    put("path", Value::Text(&request.path));
    if let Some(status) = request.status {
        put("status", Value::Count(status.as_u16().into()));
    }
    put("result", Value::Text(request.result.label()));
    put("start", Value::Text(&time_text(at.checked_sub(request.duration).unwrap_or(at))));
    put("duration_ms", Value::Count(millis(request.duration)));
    if let Some(after) = request.answered_after {
        put("answered_after_ms", Value::Count(millis(after)));
    }
    put("client.address", Value::Text(&request.client));
    if let Some(agent) = &request.user_agent {
        put("client.user_agent", Value::Text(agent));
    }
    put("client.bytes", Value::Count(request.received));
    put("upstream.name", Value::Text(&request.route.upstream));
    if let Some(backend) = &request.backend {
        put("upstream.backend", Value::Text(backend));
    }
    put("upstream.bytes", Value::Count(request.sent));
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{
        http::RequestResult,
        route::{HostPattern, tests::route},
    };
    use std::{sync::Arc, time::Duration};

    fn request() -> RequestRecord {
        RequestRecord {
            id: "0123abcd".into(),
            client: "203.0.113.7".into(),
            method: http::Method::POST,
            host: "gate.test".into(),
            path: "/a\" b".into(),
            user_agent: Some("curl/8".into()),
            route: Arc::new(route(HostPattern::Any, "/")),
            backend: Some("ws://10.0.0.1:8000".into()),
            status: Some(http::StatusCode::OK),
            result: RequestResult::Answered,
            received: 3,
            sent: 12,
            duration: Duration::from_millis(1500),
            answered_after: Some(Duration::from_millis(40)),
        }
    }

    #[test]
    fn a_request_is_one_line() {
        let at = SystemTime::UNIX_EPOCH + Duration::from_millis(1_772_600_767_089);
        let json = line(&request(), at, AccessLogFormat::Json);
        assert_eq!(
            json,
            "{\"time\":\"2026-03-04T05:06:07.089Z\",\"record\":\"request\",\"request\":\"0123abcd\",\"route\":\"Any/\",\
             \"method\":\"POST\",\"host\":\"gate.test\",\"path\":\"/a\\\" b\",\"status\":200,\"result\":\"answered\",\
             \"start\":\"2026-03-04T05:06:05.589Z\",\"duration_ms\":1500,\"answered_after_ms\":40,\
             \"client.address\":\"203.0.113.7\",\"client.user_agent\":\"curl/8\",\"client.bytes\":3,\"upstream.name\":\"pool\",\
             \"upstream.backend\":\"ws://10.0.0.1:8000\",\"upstream.bytes\":12}\n"
        );
        let text = line(&request(), at, AccessLogFormat::Text);
        assert!(text.starts_with("2026-03-04T05:06:07.089Z request request=0123abcd route=Any/ method=POST"), "{text}");
    }

    #[test]
    fn every_field_is_explained() {
        let docs = include_str!("../../../docs/logs.md");
        let line = line(&request(), SystemTime::now(), AccessLogFormat::Json);
        let names = line.split('"').skip(1).step_by(2).zip(line.split('"').skip(2).step_by(2));
        for (name, _) in names.filter(|(_, after)| after.starts_with(':')) {
            assert!(docs.contains(&format!("`{name}`")), "{name}");
        }
    }
}
