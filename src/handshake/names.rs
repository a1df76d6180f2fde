//! Header names as their sender spelled them: nobody is to care, and old backends do.
use bytes::Bytes;

/// Room for the names of a usual head.
const USUAL: usize = 256;

/// The header names of one head, in their order and as they came; goes with it as an extension.
///
/// Each stands behind a byte that says how long it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Names(Bytes);

/// Takes names down one after the other.
#[derive(Debug, Default)]
pub(crate) struct Record(Vec<u8>);

impl Record {
    /// Keeps a name, if it is of a usual length.
    pub(crate) fn note(&mut self, name: &[u8]) {
        let Ok(length) = u8::try_from(name.len()) else { return };
        self.0.reserve(if self.0.is_empty() { USUAL } else { 1 + name.len() });
        self.0.push(length);
        self.0.extend_from_slice(name);
    }

    pub(crate) fn names(self) -> Names {
        Names(self.0.into())
    }
}

impl Names {
    /// Finds one spelling after the other.
    pub(crate) fn search(&self) -> Search<'_> {
        Search { all: &self.0, rest: &[], last: &[] }
    }
}

/// The lines of one name are asked for one after the other, each with its own spelling.
#[derive(Debug)]
pub(crate) struct Search<'a> {
    all: &'a [u8],
    /// What stands behind the name that was found last.
    rest: &'a [u8],
    last: &'a [u8],
}

impl<'a> Search<'a> {
    /// The first spelling of this name, or the next if it was asked for just before; none behind the last.
    pub(crate) fn find(&mut self, name: &[u8]) -> Option<&'a [u8]> {
        let again = !self.last.is_empty() && self.last.eq_ignore_ascii_case(name);
        (self.last, self.rest) = find(if again { self.rest } else { self.all }, name)?;
        Some(self.last)
    }
}

/// A name, and what stands behind it.
fn find<'a>(mut names: &'a [u8], name: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    while let Some((length, behind)) = names.split_first() {
        let (one, rest) = behind.split_at_checked(usize::from(*length))?;
        if one.len() == name.len() && one.eq_ignore_ascii_case(name) {
            return Some((one, rest));
        }
        names = rest;
    }
    None
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn each_line_of_a_name_has_its_own_spelling() {
        let mut record = Record::default();
        ["HOST", "x-One", "X-Two", "X-ONE"].into_iter().for_each(|name| record.note(name.as_bytes()));
        record.note(&[b'x'; 256]);
        let names = record.names();
        let mut search = names.search();
        let mut find = |name: &str| search.find(name.as_bytes()).map(|found| str::from_utf8(found).unwrap());
        assert_eq!(find("host"), Some("HOST"));
        assert_eq!((find("x-one"), find("x-one")), (Some("x-One"), Some("X-ONE")));
        assert_eq!(find("x-two"), Some("X-Two"), "though it came before the last that was found");
        assert_eq!((find("x-three"), find("")), (None, None));
        assert_eq!((find("x-one"), find("x-one"), find("x-one")), (Some("x-One"), Some("X-ONE"), None));
        assert_eq!(Names::default().search().find(b"host"), None);
    }
}
