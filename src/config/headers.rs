//! `headers.request` and `headers.response`: names that may be changed, and values with variables.
use super::{file::Table, keys, problem::Wrong, suggest, value};
use crate::route::{Edits, HeaderEdits, Line, Template, TemplateError, Variable};
use http::{HeaderName, header};
use toml::de::DeValue;

/// Which way headers go.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    ToBackend,
    ToClient,
}

/// What is done with a header.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Doing {
    Remove,
    Set,
    Add,
}

/// The edits of `base`, with those replaced that `table` has: of `set` and `add` name by name, of `remove` all.
pub(super) fn read(table: &Table<'_>, base: &HeaderEdits) -> HeaderEdits {
    let headers = table.child("headers", &keys::HEADERS);
    let mut edits = base.clone();
    read_way(&headers.child("request", &keys::HEADERS_WAY), Way::ToBackend, &mut edits.request);
    read_way(&headers.child("response", &keys::HEADERS_WAY), Way::ToClient, &mut edits.response);
    edits
}

fn read_way(table: &Table<'_>, way: Way, edits: &mut Edits) {
    for (key, doing, lines) in [("set", Doing::Set, &mut edits.set), ("add", Doing::Add, &mut edits.add)] {
        for line in table.entries(key, "X-Client = \"{client_address}\"", |name, value| line(way, doing, name, value)) {
            lines.retain(|known| known.name != line.name);
            lines.push(line);
        }
    }
    let name = |value: &DeValue<'_>| header_name(way, Doing::Remove, &value::text(value)?);
    if let Some(names) = table.list("remove", name) {
        edits.remove = names;
    }
    edits.spellings = edits.set.iter().chain(&edits.add).map(|line| line.spelling.clone()).collect();
}

fn line(way: Way, doing: Doing, name: &str, value: &DeValue<'_>) -> Result<Line, Wrong> {
    let template = if doing == Doing::Set && value.as_str() == Some("") { String::new() } else { value::text(value)? };
    let value = Template::parse(&template).map_err(|error| wrong_template(&template, error))?;
    Ok(Line { name: header_name(way, doing, name)?, spelling: name.into(), value })
}

fn wrong_template(text: &str, error: TemplateError) -> Wrong {
    match error {
        TemplateError::Unpaired => {
            let help = "write a variable such as {client_address}, or {{ and }} for braces themselves";
            Wrong::new(format!("{} has a brace without its other one", value::quoted(text)), help)
        }
        TemplateError::Unknown(name) => {
            let known = Variable::ALL.map(Variable::name);
            let help = match suggest::nearest(&name, known) {
                Some(near) => format!("did you mean {{{near}}}?"),
                None => format!("known here: {}", known.join(", ")),
            };
            Wrong::new(format!("there is no variable {}", value::quoted(&name)), help)
        }
    }
}

fn header_name(way: Way, doing: Doing, text: &str) -> Result<HeaderName, Wrong> {
    let name: HeaderName = text.parse().map_err(|_| {
        Wrong::new(format!("{} is not the name of a header", value::quoted(text)), "write a name such as X-Client")
    })?;
    if name == header::HOST && (way, doing) != (Way::ToBackend, Doing::Set) {
        let help = "write host_header, or set.Host in headers.request";
        return Err(Wrong::new("a request has exactly one Host, and an answer none", help));
    }
    if is_ours(&name) {
        let help = "leave it out: the gateway writes it as the connection needs it";
        return Err(Wrong::new(
            format!("{} belongs to the connection, not to what crosses", value::quoted(text)),
            help,
        ));
    }
    Ok(name)
}

/// Headers of one hop, and of the opening handshake itself.
fn is_ours(name: &HeaderName) -> bool {
    const OURS: [HeaderName; 7] = [
        header::CONNECTION,
        header::UPGRADE,
        header::TE,
        header::TRAILER,
        header::TRANSFER_ENCODING,
        header::CONTENT_LENGTH,
        header::EXPECT,
    ];
    let text = name.as_str();
    OURS.contains(name) || text == "keep-alive" || text == "proxy-connection" || text.starts_with("sec-websocket-")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use crate::config::parse;
    use std::path::Path;

    fn read(extra: &str) -> Result<crate::config::Config, String> {
        let text = format!(
            "listener = [{{ address = \"127.0.0.1:1\" }}]\nupstream.u.servers = [\"builtin:echo\"]\n\
             defaults.headers.request.set = {{ X-A = \"default\", X-B = \"{{host}}\" }}\n\
             defaults.headers.request.remove = [\"X-Old\"]\n[[route]]\nupstream = \"u\"\n{extra}\n"
        );
        parse("g", &text, Path::new("")).map_err(|errors| errors.to_string())
    }

    #[test]
    fn a_route_replaces_single_lines_of_the_defaults() {
        let config =
            read("headers.request.set.x-a = \"route\"\nheaders.request.remove = []\nheaders.response.add.Vary = \"a\"");
        let edits = &config.unwrap().routes[0].options.headers;
        let names: Vec<_> = edits.request.set.iter().map(|line| &*line.spelling).collect();
        assert_eq!(names, ["X-B", "x-a"]);
        assert!(edits.request.remove.is_empty());
        assert_eq!((edits.response.add.len(), &*edits.response.spellings[0]), (1, "Vary"));
    }

    #[test]
    fn mistakes_tell_what_would_be_right() {
        for (text, told) in [
            ("headers.request.set.X-A = \"{client_adress}\"", "did you mean {client_address}?"),
            ("headers.request.set.X-A = \"{remote_addr}\"", "known here: client_address, "),
            ("headers.request.set.X-A = \"{host\"", "{{ and }}"),
            ("headers.request.set.X-A = 7", "headers.request.set.X-A: 7 is not a text"),
            ("headers.request.set.Upgrade = \"h2c\"", "belongs to the connection"),
            ("headers.response.set.Sec-WebSocket-Accept = \"x\"", "belongs to the connection"),
            ("headers.request.remove = [\"Host\"]", "host_header"),
            ("headers.request.add.Host = \"a\"", "host_header"),
            ("headers.request.set.\"X A\" = \"a\"", "not the name of a header"),
            ("headers.request.set = \"X-A: 1\"", "write set = { X-Client = "),
            ("headers.set.X-A = \"1\"", "headers.request or headers.response"),
            ("headers.request.del = [\"X-A\"]", "set, add, remove"),
        ] {
            let wrong = read(text).unwrap_err();
            assert!(wrong.contains(told), "{text}: {wrong}");
        }
        assert!(read("headers.request.set = { Host = \"legacy.test\", X-A = \"\" }").is_ok());
    }
}
