//! Whether a 101 keeps what it was asked (RFC 6455 section 4.1, the client's checks).
use http::{
    HeaderMap, HeaderName,
    header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_EXTENSIONS, SEC_WEBSOCKET_PROTOCOL, UPGRADE},
};
use tungstenite::handshake::derive_accept_key;

/// Checks the headers of a 101 against the key and the offers of its request.
///
/// # Errors
/// What is wrong, in words for the log.
pub(super) fn verify(answer: &HeaderMap, key: &str, offered: &HeaderMap) -> Result<(), String> {
    if !lists(answer, &UPGRADE, "websocket") {
        return Err("its 101 has no `Upgrade: websocket`".to_owned());
    }
    if !lists(answer, &CONNECTION, "upgrade") {
        return Err("its 101 has no `Connection: Upgrade`".to_owned());
    }
    let mut accepts = answer.get_all(SEC_WEBSOCKET_ACCEPT).iter();
    match (accepts.next(), accepts.next()) {
        (Some(accept), None) if accept.as_bytes() == derive_accept_key(key.as_bytes()).as_bytes() => {}
        (Some(_), _) => return Err("its Sec-WebSocket-Accept does not fit the key it was sent".to_owned()),
        (None, _) => return Err("its 101 has no Sec-WebSocket-Accept".to_owned()),
    }
    subprotocol(answer, offered)?;
    extensions(answer, offered)
}

fn subprotocol(answer: &HeaderMap, offered: &HeaderMap) -> Result<(), String> {
    let mut chosen = answer.get_all(SEC_WEBSOCKET_PROTOCOL).iter();
    let Some(first) = chosen.next() else { return Ok(()) };
    if chosen.next().is_some() {
        return Err("it chose several subprotocols; one is allowed".to_owned());
    }
    if items(offered, &SEC_WEBSOCKET_PROTOCOL).any(|offer| offer == first.as_bytes()) {
        return Ok(());
    }
    Err(format!("it chose the subprotocol `{}`, which was not offered", first.as_bytes().escape_ascii()))
}

fn extensions(answer: &HeaderMap, offered: &HeaderMap) -> Result<(), String> {
    // What we cannot read, the client might read otherwise: then the two would disagree on RSV1.
    if let Some(line) = answer.get_all(SEC_WEBSOCKET_EXTENSIONS).iter().find(|line| line.to_str().is_err()) {
        return Err(format!("its Sec-WebSocket-Extensions `{}` is not ASCII", line.as_bytes().escape_ascii()));
    }
    let names: Vec<&[u8]> = items(answer, &SEC_WEBSOCKET_EXTENSIONS).map(name).collect();
    for (index, chosen) in names.iter().enumerate() {
        if !items(offered, &SEC_WEBSOCKET_EXTENSIONS).any(|offer| name(offer).eq_ignore_ascii_case(chosen)) {
            return Err(format!("it chose the extension `{}`, which was not offered", chosen.escape_ascii()));
        }
        if names[..index].iter().any(|earlier| earlier.eq_ignore_ascii_case(chosen)) {
            return Err(format!("it names the extension `{}` twice", chosen.escape_ascii()));
        }
    }
    Ok(())
}

/// Whether a token stands in a list header, in any case and on any of its lines.
fn lists(headers: &HeaderMap, header: &HeaderName, token: &str) -> bool {
    items(headers, header).any(|item| item.eq_ignore_ascii_case(token.as_bytes()))
}

/// The items of a list header over all its lines, trimmed; commas in quoted strings do not split
/// (RFC 9110 section 5.6).
fn items<'a>(headers: &'a HeaderMap, header: &HeaderName) -> impl Iterator<Item = &'a [u8]> {
    headers.get_all(header).iter().flat_map(|line| {
        let (mut quoted, mut escaped) = (false, false);
        line.as_bytes()
            .split(move |&byte| {
                let splits = byte == b',' && !quoted;
                quoted ^= byte == b'"' && !escaped;
                escaped = byte == b'\\' && quoted && !escaped;
                splits
            })
            .map(<[u8]>::trim_ascii)
            .filter(|item| !item.is_empty())
    })
}

/// An extension without its parameters.
fn name(extension: &[u8]) -> &[u8] {
    extension.split(|&byte| byte == b';').next().unwrap_or_default().trim_ascii()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use http::HeaderValue;

    const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
    const GOOD: [(&str, &str); 3] = [
        ("upgrade", "WebSocket"),
        ("connection", "keep-alive,\tUpgrade"),
        ("sec-websocket-accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="),
    ];

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (name.parse::<HeaderName>().unwrap(), value.parse::<HeaderValue>().unwrap()))
            .collect()
    }

    /// Verifies the good answer with `more` lines against the offers.
    fn with(more: &[(&str, &str)], offered: &[(&str, &str)]) -> Result<(), String> {
        verify(&headers(&[&GOOD[..], more].concat()), KEY, &headers(offered))
    }

    #[test]
    fn extensions_that_cannot_be_read_are_refused() {
        let offered = [("sec-websocket-extensions", "permessage-deflate")];
        let mut answer = headers(&GOOD);
        let line = HeaderValue::from_bytes("permessage-deflate; x=\"é\"".as_bytes()).unwrap();
        answer.insert(SEC_WEBSOCKET_EXTENSIONS, line);
        let error = verify(&answer, KEY, &headers(&offered)).unwrap_err();
        assert!(error.contains("not ASCII"), "{error}");
    }

    #[test]
    fn the_sample_of_the_rfc_passes() {
        assert_eq!(with(&[], &[]), Ok(()));
    }

    #[test]
    fn each_missing_or_wrong_header_is_named() {
        for (index, word) in ["Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Accept"].iter().enumerate() {
            let mut without = GOOD.to_vec();
            without.remove(index);
            let error = verify(&headers(&without), KEY, &HeaderMap::new()).unwrap_err();
            assert!(error.contains(word), "{error}");
            let mut wrong = GOOD.to_vec();
            wrong[index].1 = "upgraded";
            assert!(verify(&headers(&wrong), KEY, &HeaderMap::new()).is_err());
        }
        assert!(with(&[GOOD[2]], &[]).is_err(), "two accept lines");
    }

    #[test]
    fn a_subprotocol_was_offered_and_is_single() {
        let offers = [("sec-websocket-protocol", "a, b"), ("sec-websocket-protocol", "c")];
        for good in ["a", "b", "c"] {
            assert_eq!(with(&[("sec-websocket-protocol", good)], &offers), Ok(()));
        }
        for bad in ["d", "A", "a, b", ""] {
            assert!(with(&[("sec-websocket-protocol", bad)], &offers).is_err(), "{bad}");
        }
        assert!(with(&[("sec-websocket-protocol", "a"), ("sec-websocket-protocol", "b")], &offers).is_err());
        assert!(with(&[("sec-websocket-protocol", "a")], &[]).is_err());
    }

    #[test]
    fn an_extension_was_offered_and_is_named_once() {
        let header = "sec-websocket-extensions";
        let offers = [(header, "permessage-deflate; client_max_window_bits, x; y=\"a,b\"")];
        assert_eq!(with(&[(header, "permessage-deflate; server_no_context_takeover")], &offers), Ok(()));
        assert_eq!(with(&[(header, "x; y=\"permessage-deflate, permessage-deflate\"")], &offers), Ok(()));
        for bad in ["permessage-deflate, permessage-deflate; a", "b", "y", "permessage-bzip2"] {
            assert!(with(&[(header, bad)], &offers).is_err(), "{bad}");
        }
        assert!(with(&[(header, "x"), (header, "X")], &offers).is_err());
        assert!(with(&[(header, "permessage-deflate")], &[]).is_err());
    }
}
