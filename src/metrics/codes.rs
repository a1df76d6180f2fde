//! Close codes as a label: each of RFC 6455's own, the others by their thousand, so that no peer can make up series.

/// What [`code`] counts into.
pub(super) const CODES: [&str; 17] = [
    "1000", "1001", "1002", "1003", "1005", "1007", "1008", "1009", "1010", "1011", "1012", "1013", "1014", "3xxx",
    "4xxx", "other", "none",
];

/// The place of a close code in [`CODES`]; `None`: no close frame.
pub(super) fn code(code: Option<u16>) -> usize {
    match code {
        Some(code @ 1000..=1003) => usize::from(code - 1000),
        Some(1005) => 4,
        Some(code @ 1007..=1014) => usize::from(code - 1007) + 5,
        Some(3000..=3999) => 13,
        Some(4000..=4999) => 14,
        Some(_) => 15,
        None => 16,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_code_has_its_name_or_its_thousand() {
        for number in 0..=u16::MAX {
            let name = CODES[code(Some(number))];
            let expected = match number {
                1000..=1003 | 1005 | 1007..=1014 => number.to_string(),
                3000..=3999 => "3xxx".to_owned(),
                4000..=4999 => "4xxx".to_owned(),
                _ => "other".to_owned(),
            };
            assert_eq!(name, expected);
        }
        assert_eq!(CODES[code(None)], "none");
    }
}
