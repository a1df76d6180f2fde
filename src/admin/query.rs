//! What a list is asked for: `?route=chat&min_silence=30s&sort=silence`. The same words stand in the body of an ending.
use super::body::Problem;
use crate::{
    config::{self, Wrong},
    gateway::Query,
    session::select::{Clients, Filter, Sort},
};

/// Sessions on a page, unless asked otherwise.
const PAGE: usize = 100;
/// And at most.
const LARGEST_PAGE: usize = 1000;

/// Pairs of a query, decoded.
pub(super) fn pairs(query: &str) -> Result<Vec<(String, String)>, Problem> {
    let decoded =
        |text: &str| decode(text).ok_or_else(|| Problem::Wrong(format!("{text:?} is not percent-encoded UTF-8")));
    query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            Ok((decoded(key)?, decoded(value)?))
        })
        .collect()
}

/// Text from its form in URLs (WHATWG URL, section 5.1).
pub(super) fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let mut digit = || rest.next().and_then(|digit| char::from(digit).to_digit(16));
                let (high, low) = (digit()?, digit()?);
                u8::try_from(high * 16 + low).ok()?
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
}

/// A page of a list.
pub(super) fn page(query: &str) -> Result<Query, Problem> {
    let mut page = Query { filter: Filter::default(), sort: Sort::default(), after: None, limit: PAGE };
    for (key, value) in pairs(query)? {
        let wrong = |what: String| Problem::Wrong(format!("{key}={value}: {what}"));
        match key.as_str() {
            "sort" => page.sort = sort(&value).map_err(wrong)?,
            "after" => {
                let after = value.parse().map_err(|_| wrong("write what `next` of the page before says".into()))?;
                page.after = Some(after);
            }
            "limit" => {
                let limit = value.parse().ok().filter(|limit| (1..=LARGEST_PAGE).contains(limit));
                page.limit = limit.ok_or_else(|| wrong(format!("write a number from 1 to {LARGEST_PAGE}")))?;
            }
            _ => set(&mut page.filter, &key, &value)?,
        }
    }
    Ok(page)
}

fn sort(name: &str) -> Result<Sort, String> {
    let known = Sort::ALL.into_iter().find(|(known, _)| *known == name).map(|(_, sort)| sort);
    known.ok_or_else(|| format!("write one of {}", Sort::ALL.map(|(name, _)| name).join(", ")))
}

/// Sets one property of a filter.
pub(super) fn set(filter: &mut Filter, key: &str, value: &str) -> Result<(), Problem> {
    const KEYS: &str =
        "id, route, upstream, backend, client, min_age, max_age, min_round_trip, min_outbox, min_silence, paused";
    let wrong = |what: String| Problem::Wrong(format!("{key}={value}: {what}"));
    let explained = |error: Wrong| wrong(error.to_string());
    let text = || Some(value.to_owned());
    let time = || config::duration_text(value).map(Some).map_err(explained);
    match key {
        "id" => filter.id = text(),
        "route" => filter.route = text(),
        "upstream" => filter.upstream = text(),
        "backend" => filter.backend = text(),
        "client" if value == "unix" => filter.client = Some(Clients::Unix),
        "client" if value == "unknown" => filter.client = Some(Clients::Unknown),
        "client" => filter.client = Some(Clients::From(config::network(value).map_err(explained)?)),
        "min_age" => filter.min_age = time()?,
        "max_age" => filter.max_age = time()?,
        "min_round_trip" => filter.min_round_trip = time()?,
        "min_silence" => filter.min_silence = time()?,
        "min_outbox" => filter.min_outbox = Some(config::size_text(value).map_err(explained)?),
        "paused" => {
            let paused = value.parse().map_err(|_| wrong("write true or false".into()))?;
            filter.paused = Some(paused);
        }
        _ => return Err(Problem::Wrong(format!("{key} is not known here; known: {KEYS}"))),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::time::Duration;

    fn told(query: &str) -> String {
        let Problem::Wrong(text) = page(query).unwrap_err() else { panic!("{query} is no mistake of that kind") };
        text
    }

    #[test]
    fn a_page_is_read_whole() {
        let page =
            page("route=a%20b&client=10.0.0.0%2F8&min_silence=30s&min_outbox=64KiB&sort=silence&limit=7&after=9-1-2")
                .unwrap();
        assert_eq!((page.limit, page.sort), (7, Sort::Silence));
        assert_eq!(page.after.unwrap().to_string(), "9-1-2");
        assert_eq!(page.filter.route.as_deref(), Some("a b"));
        assert_eq!((page.filter.min_silence, page.filter.min_outbox), (Some(Duration::from_secs(30)), Some(65536)));
        assert!(page.filter.is_live());
    }

    #[test]
    fn mistakes_teach() {
        for (query, help) in [
            ("rout=a", "known: id, route"),
            ("limit=0", "1 to 1000"),
            ("sort=age", "oldest"),
            ("min_age=5", "unit"),
            ("client=x", "10.0.0.0/8"),
            ("paused=1", "true or false"),
            ("after=x", "next"),
            ("route=%zz", "percent-encoded"),
            ("route=%ff", "percent-encoded"),
            ("token=secret", "not known"),
        ] {
            assert!(told(query).contains(help), "{query}: {}", told(query));
        }
    }
}
