//! The shape of `gateway.toml`: tables read key by key, each mistake kept with its place.
use super::{
    keys::{self, Place},
    problem::{Sink, Wrong},
    suggest,
    value::shown,
};
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

/// A table of the file, or one that the file does not have, which is a table without keys.
pub(super) struct Table<'a> {
    place: &'static Place,
    path: String,
    entries: Option<&'a DeTable<'a>>,
    offset: usize,
    sink: &'a Sink,
}

impl<'a> Table<'a> {
    /// The file itself.
    pub(super) fn root(entries: &'a DeTable<'a>, sink: &'a Sink) -> Self {
        Self::new(&keys::ROOT, String::new(), Some(entries), 0, sink)
    }

    fn new(
        place: &'static Place,
        path: String,
        entries: Option<&'a DeTable<'a>>,
        offset: usize,
        sink: &'a Sink,
    ) -> Self {
        let table = Self { place, path, entries, offset, sink };
        for key in entries.into_iter().flat_map(DeTable::keys) {
            if !place.keys.contains(&key.get_ref().as_ref()) {
                sink.report(key.span().start, table.path_of(key.get_ref()), suggest::unknown(place, key.get_ref()));
            }
        }
        table
    }

    fn path_of(&self, key: &str) -> String {
        let bare = !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
        let key = if bare { key.to_owned() } else { super::value::quoted(key) };
        if self.path.is_empty() { key } else { format!("{}.{key}", self.path) }
    }

    fn value(&self, key: &str) -> Option<&'a Spanned<DeValue<'a>>> {
        debug_assert!(self.place.keys.contains(&key), "{key} is not in the list of keys of {}", self.place.title);
        self.entries?.get(key)
    }

    /// Whether the file has this key.
    pub(super) fn has(&self, key: &str) -> bool {
        self.value(key).is_some()
    }

    /// Whether the file has this table without this key, and no unknown key of it that was meant to be this one.
    pub(super) fn lacks(&self, key: &str) -> bool {
        let Some(entries) = self.entries else { return false };
        let unknown = |name: &str| !self.place.keys.contains(&name);
        let misspelt = |name: &str| unknown(name) && suggest::names(self.place, name, key);
        !self.has(key) && !entries.keys().any(|name| misspelt(name.get_ref()))
    }

    /// Whether the file has no table of a `[[key]]`, though nothing that was meant to be one.
    pub(super) fn has_none(&self, key: &str) -> bool {
        let empty = |value: &Spanned<DeValue<'_>>| value.get_ref().as_array().is_some_and(|list| list.is_empty());
        self.lacks(key) || self.value(key).is_some_and(empty)
    }

    /// The table under a key, which may be absent.
    pub(super) fn child(&self, key: &str, place: &'static Place) -> Table<'a> {
        let value = self.value(key);
        let entries = value.and_then(|value| {
            let table = value.get_ref().as_table();
            if table.is_none() {
                let message = format!("{} stands where a table is needed", shown(value.get_ref()));
                let help = format!("write {key} = {{ {} = … }}", place.keys[0]);
                self.sink.report(value.span().start, self.path_of(key), Wrong::new(message, help));
            }
            table
        });
        let offset = value.map_or(self.offset, |value| value.span().start);
        Table::new(place, self.path_of(key), entries, offset, self.sink)
    }

    /// The tables of a `[[key]]`.
    pub(super) fn each(&self, key: &str, place: &'static Place) -> Vec<Table<'a>> {
        let Some(value) = self.value(key) else { return Vec::new() };
        let wrong = |value: &Spanned<DeValue<'_>>| {
            let message = format!("{} stands where a list of tables is needed", shown(value.get_ref()));
            let help = if self.path.is_empty() {
                format!("write [[{key}]] above its keys, once for each")
            } else {
                format!("write {key} = [{{ … }}, {{ … }}]")
            };
            self.sink.report(value.span().start, self.path_of(key), Wrong::new(message, help));
        };
        let Some(items) = value.get_ref().as_array() else {
            wrong(value);
            return Vec::new();
        };
        let mut tables = Vec::new();
        for item in items.iter() {
            match item.get_ref().as_table() {
                Some(entries) => {
                    let path = self.path_of(key);
                    tables.push(Table::new(place, path, Some(entries), item.span().start, self.sink));
                }
                None => wrong(item),
            }
        }
        tables
    }

    /// The tables of `[key.NAME]` with their names, in the order of the file.
    pub(super) fn named(&self, key: &str, place: &'static Place) -> Vec<(String, Table<'a>)> {
        let Some(value) = self.value(key) else { return Vec::new() };
        let help = format!("write [{key}.NAME] above its keys, with a name of your choice");
        let Some(entries) = value.get_ref().as_table() else {
            let message = format!("{} stands where a named table is needed", shown(value.get_ref()));
            self.sink.report(value.span().start, self.path_of(key), Wrong::new(message, help));
            return Vec::new();
        };
        let mut tables = Vec::new();
        for (name, value) in entries {
            let path = format!("{}.{}", self.path_of(key), name.get_ref());
            if name.get_ref().is_empty() || name.get_ref().chars().any(char::is_control) {
                let wrong = Wrong::new("this name is empty or holds control characters", help.clone());
                self.sink.report(name.span().start, self.path_of(key), wrong);
            } else if let Some(entries) = value.get_ref().as_table() {
                let table = Table::new(place, path, Some(entries), value.span().start, self.sink);
                tables.push((name.span().start, name.get_ref().to_string(), table));
            } else {
                let message = format!("{} stands where a table is needed", shown(value.get_ref()));
                self.sink.report(name.span().start, path, Wrong::new(message, help.clone()));
            }
        }
        tables.sort_by_key(|(offset, ..)| *offset);
        tables.into_iter().map(|(_, name, table)| (name, table)).collect()
    }

    /// A value, if the file has it and it is right.
    pub(super) fn read<T>(&self, key: &str, parse: impl FnOnce(&DeValue<'a>) -> Result<T, Wrong>) -> Option<T> {
        let value = self.value(key)?;
        parse(value.get_ref()).map_err(|wrong| self.sink.report(value.span().start, self.path_of(key), wrong)).ok()
    }

    /// Replaces `slot` by a value, if the file has it and it is right.
    pub(super) fn set<T>(&self, key: &str, slot: &mut T, parse: impl FnOnce(&DeValue<'a>) -> Result<T, Wrong>) {
        if let Some(value) = self.read(key, parse) {
            *slot = value;
        }
    }

    /// A value that must be there.
    pub(super) fn require<T>(
        &self,
        key: &str,
        help: &str,
        parse: impl FnOnce(&DeValue<'a>) -> Result<T, Wrong>,
    ) -> Option<T> {
        self.must_have(key, help);
        self.read(key, parse)
    }

    /// Reports that a key is missing, unless a mistake about another key already says that this one was meant.
    pub(super) fn must_have(&self, key: &str, help: &str) {
        if self.lacks(key) {
            self.sink.report_absent(self.offset, self.path_of(key), Wrong::new("this key is missing", help));
        }
    }

    /// The right ones among the values of a list, if the file has it.
    pub(super) fn list<T>(&self, key: &str, parse: impl Fn(&DeValue<'a>) -> Result<T, Wrong>) -> Option<Vec<T>> {
        let value = self.value(key)?;
        let Some(items) = value.get_ref().as_array() else {
            let one = shown(value.get_ref());
            let help = if value.get_ref().is_str() { format!("write [{one}]") } else { "write [\"…\"]".into() };
            self.report(key, Wrong::new(format!("{one} stands where a list is needed"), help));
            return None;
        };
        let mut right = Vec::new();
        for item in items.iter() {
            match parse(item.get_ref()) {
                Ok(one) => right.push(one),
                Err(wrong) => self.sink.report(item.span().start, self.path_of(key), wrong),
            }
        }
        Some(right)
    }

    /// The right ones among the items of a list, of which each is a value or a table with the keys of `place`.
    pub(super) fn list_of_either<T>(
        &self,
        key: &str,
        place: &'static Place,
        parse: impl Fn(&DeValue<'a>) -> Result<T, Wrong>,
        read: impl Fn(&Table<'a>) -> Option<T>,
    ) -> Option<Vec<T>> {
        let Some(items) = self.value(key).and_then(|value| value.get_ref().as_array()) else {
            return self.list(key, parse);
        };
        let of = |item: &'a Spanned<DeValue<'a>>| match item.get_ref().as_table() {
            Some(entries) => read(&Table::new(place, self.path_of(key), Some(entries), item.span().start, self.sink)),
            None => parse(item.get_ref())
                .map_err(|wrong| self.sink.report(item.span().start, self.path_of(key), wrong))
                .ok(),
        };
        Some(items.iter().filter_map(of).collect())
    }

    /// The right ones among the keys and values of a table whose keys the author chooses, if the file has it. `example` is one.
    pub(super) fn entries<T>(
        &self,
        key: &str,
        example: &str,
        parse: impl Fn(&str, &DeValue<'a>) -> Result<T, Wrong>,
    ) -> Vec<T> {
        let Some(value) = self.value(key) else { return Vec::new() };
        let Some(entries) = value.get_ref().as_table() else {
            let message = format!("{} stands where a table is needed", shown(value.get_ref()));
            self.report(key, Wrong::new(message, format!("write {key} = {{ {example} }}")));
            return Vec::new();
        };
        let mut right = Vec::new();
        for (name, value) in entries {
            match parse(name.get_ref(), value.get_ref()) {
                Ok(one) => right.push((name.span().start, one)),
                Err(wrong) => {
                    let path = format!("{}.{}", self.path_of(key), name.get_ref().escape_debug());
                    self.sink.report(value.span().start, path, wrong);
                }
            }
        }
        right.sort_by_key(|(offset, _)| *offset);
        right.into_iter().map(|(_, one)| one).collect()
    }

    /// A mistake about the value of a key, or about the table if it has none.
    pub(super) fn report(&self, key: &str, wrong: Wrong) {
        let offset = self.value(key).map_or(self.offset, |value| value.span().start);
        self.sink.report(offset, self.path_of(key), wrong);
    }

    /// A mistake of a key that refers to something which is not there.
    pub(super) fn report_absent(&self, key: &str, wrong: Wrong) {
        let offset = self.value(key).map_or(self.offset, |value| value.span().start);
        self.sink.report_absent(offset, self.path_of(key), wrong);
    }
}
