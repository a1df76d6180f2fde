//! Mistakes of TOML syntax, without those that only follow from another one.
use super::{
    problem::{Lines, Wrong},
    suggest,
    value::quoted,
};
use toml::de::DeTable;

/// What the parser complained of.
pub(super) struct Syntax {
    pub(super) wrong: Vec<(usize, Wrong)>,
    /// Where a bracket was left open: from here on the parser's reading means nothing.
    pub(super) readable_until: usize,
}

/// How the parser says that the text ended within a value.
const UNCLOSED: [&str; 2] = ["unclosed array, ", "unclosed inline table, "];

/// Keeps one mistake for each line, and none after a bracket left open.
pub(super) fn mistakes(text: &str, document: &DeTable<'_>, errors: &[toml::de::Error]) -> Syntax {
    let lines = Lines::new(text);
    let mut found: Vec<(usize, Wrong)> = errors
        .iter()
        .map(|error| {
            let span = error.span().unwrap_or(0..0);
            (span.start.min(text.len()), explain(error.message(), text.get(span).unwrap_or_default()))
        })
        .collect();
    let unclosed = errors.iter().any(|error| UNCLOSED.iter().any(|of| error.message().starts_with(of)));
    let open = if unclosed { open_bracket(text, document) } else { None };
    if let Some(open) = open {
        found.retain(|(offset, _)| *offset < open);
        found.push((open, Wrong::new("this bracket is never closed", "close it before the next key")));
    }
    found.sort_by_key(|(offset, _)| *offset);
    let mut last = 0;
    let mut wrong = Vec::new();
    for (offset, one) in found {
        let line = lines.position(offset).0;
        if line != last {
            wrong.push((offset, foreign(lines.text_at(offset)).unwrap_or(one)));
            last = line;
        }
    }
    Syntax { wrong, readable_until: open.unwrap_or(usize::MAX) }
}

/// Where the first array or inline table starts that lacks its end or reaches to the end of the text.
fn open_bracket(text: &str, table: &DeTable<'_>) -> Option<usize> {
    let values = table.values().flat_map(|value| {
        let span = value.span();
        let to_end = text.get(span.end..).is_some_and(|rest| rest.trim().is_empty());
        let value_text = text.get(span.clone()).unwrap_or_default();
        let lacks_end = |open, close| value_text.starts_with(open) && (to_end || !value_text.ends_with(close));
        let bracket = lacks_end('[', ']') || lacks_end('{', '}');
        let inner = value.get_ref().as_table().and_then(|table| open_bracket(text, table));
        let listed = value.get_ref().as_array().into_iter().flat_map(|list| list.iter());
        let in_list = listed.filter_map(|item| open_bracket(text, item.get_ref().as_table()?)).min();
        [bracket.then_some(span.start), inner, in_list].into_iter().flatten()
    });
    values.min()
}

fn explain(message: &str, at: &str) -> Wrong {
    let word = !at.is_empty() && at.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"');
    let value = ["string values must be quoted", "invalid float", "invalid boolean", "invalid datetime"];
    if word && value.iter().any(|of| message.starts_with(of)) {
        return Wrong::new(format!("{at} is not a value of TOML"), format!("write {} if a text is meant", quoted(at)));
    }
    if message.starts_with("duplicate key") {
        return Wrong::new("this key is here for the second time", "write each key once; tables in a list as [[…]]");
    }
    if message.starts_with("cannot extend") {
        let help = "write a table in one way: all of it in braces, or all of it by headers and dotted keys";
        return Wrong::new("this table has another form elsewhere in the file", help);
    }
    Wrong::new(message, "write KEY = VALUE, texts in double quotes")
}

/// For a line in the manner of another program, such as `proxy_read_timeout 60s;`.
fn foreign(line: &str) -> Option<Wrong> {
    let mut words = line.split(['=', ' ', '\t', ':', ';']).filter(|word| !word.is_empty());
    let (first, second) = (words.next()?, words.next().unwrap_or_default());
    let ours = suggest::foreign(&format!("{first} {second}")).or_else(|| suggest::foreign(first))?;
    Some(Wrong::new(format!("{} is not how this file is written", quoted(line.trim())), ours))
}
