//! Single values of `gateway.toml`: durations, sizes, counts, words.
use super::problem::Wrong;
use crate::{pacing::Rate, protocol::close::CloseCode, relay::Farewell};
use std::{num::NonZeroU32, time::Duration};
use toml::de::DeValue;

/// Longer than any timer needs and short enough that adding it to a clock never overflows.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 60 * 60);
const SHORTEST: Duration = Duration::from_millis(1);

/// A value as its author wrote it, for messages; long ones are cut.
pub(super) fn shown(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => quoted(text),
        DeValue::Integer(number) => clipped(&number.to_string()),
        DeValue::Float(number) => clipped(number.as_str()),
        DeValue::Boolean(truth) => truth.to_string(),
        DeValue::Datetime(time) => time.to_string(),
        DeValue::Array(_) => "an array".into(),
        DeValue::Table(_) => "a table".into(),
    }
}

/// Text in quotes, for messages.
pub(super) fn quoted(text: &str) -> String {
    format!("\"{}\"", clipped(text).escape_debug())
}

/// A time as it may be written in `gateway.toml`.
pub(super) fn time_text(time: Duration) -> String {
    jiff::fmt::friendly::SpanPrinter::new()
        .spacing(jiff::fmt::friendly::Spacing::None)
        .unsigned_duration_to_string(&time)
}

fn clipped(text: &str) -> String {
    const MOST: usize = 80;
    let kept: String = text.chars().take(MOST).collect();
    if kept.len() < text.len() { kept + "…" } else { kept }
}

pub(super) fn text(value: &DeValue<'_>) -> Result<String, Wrong> {
    let text = value
        .as_str()
        .ok_or_else(|| Wrong::new(format!("{} is not a text", shown(value)), "write a text in double quotes"))?;
    if text.is_empty() || text.chars().any(char::is_control) {
        return Err(Wrong::new(
            format!("{} is empty or holds control characters", quoted(text)),
            "write a text of visible characters",
        ));
    }
    Ok(text.to_owned())
}

pub(super) fn boolean(value: &DeValue<'_>) -> Result<bool, Wrong> {
    value.as_bool().ok_or_else(|| {
        Wrong::new(format!("{} is neither true nor false", shown(value)), "write true or false, unquoted")
    })
}

/// One of the given words.
pub(super) fn word<T: Copy>(words: &'static [(&'static str, T)]) -> impl Fn(&DeValue<'_>) -> Result<T, Wrong> {
    move |value| {
        let known = words.iter().find(|(word, _)| value.as_str() == Some(word));
        known.map(|(_, meaning)| *meaning).ok_or_else(|| {
            let names: Vec<String> = words.iter().map(|(word, _)| quoted(word)).collect();
            Wrong::new(format!("{} is not known here", shown(value)), format!("write {}", or_list(&names)))
        })
    }
}

/// `a, b or c`
pub(super) fn or_list(names: &[String]) -> String {
    match names {
        [] => String::new(),
        [one] => one.clone(),
        [rest @ .., last] => format!("{} or {last}", rest.join(", ")),
    }
}

/// A whole number in a range.
pub(super) fn count(value: &DeValue<'_>, least: u64, most: u64) -> Result<u64, Wrong> {
    let help = format!("write a whole number from {least} to {most}, unquoted");
    let Some(number) = value.as_integer() else {
        return Err(Wrong::new(format!("{} is not a whole number", shown(value)), help));
    };
    match u64::from_str_radix(number.as_str(), number.radix()) {
        Ok(number) if (least..=most).contains(&number) => Ok(number),
        Ok(_) | Err(_) => Err(Wrong::new(format!("{} is out of range", shown(value)), help)),
    }
}

/// A value, or a word that stands for none, such as `"off"`.
pub(super) fn unless<T>(
    none: &'static str,
    parse: impl Fn(&DeValue<'_>) -> Result<T, Wrong>,
) -> impl Fn(&DeValue<'_>) -> Result<Option<T>, Wrong> {
    move |value| {
        if value.as_str() == Some(none) {
            return Ok(None);
        }
        let no_switch = value.as_bool() == Some(false) && none == "off";
        if no_switch {
            return Err(Wrong::new("false is not how this is switched off", "write \"off\""));
        }
        parse(value).map(Some).map_err(|wrong| Wrong::new(wrong.message, format!("{}, or \"{none}\"", wrong.help)))
    }
}

/// A time above zero.
pub(super) fn duration(value: &DeValue<'_>) -> Result<Duration, Wrong> {
    let time = duration_or_zero(value)?;
    if time.is_zero() {
        return Err(Wrong::new("a time of zero means nothing here", "write a time above zero, such as \"20s\""));
    }
    Ok(time)
}

/// A time, zero too.
pub(super) fn duration_or_zero(value: &DeValue<'_>) -> Result<Duration, Wrong> {
    if let DeValue::Integer(number) = value {
        return Err(without_unit(&clipped(&number.to_string())));
    }
    if let DeValue::Float(number) = value {
        return Err(without_unit(&clipped(number.as_str())));
    }
    let Some(text) = value.as_str() else {
        return Err(Wrong::new(format!("{} is not a duration", shown(value)), "write a text such as \"20s\""));
    };
    parse_duration(text)
}

fn without_unit(number: &str) -> Wrong {
    Wrong::new(format!("{number} has no unit"), format!("write \"{number}s\" if seconds are meant"))
}

pub(super) fn parse_duration(text: &str) -> Result<Duration, Wrong> {
    const FORM: &str = "write a duration such as \"20s\", \"1m30s\" or \"500ms\"";
    if text == "off" {
        return Err(Wrong::new("this cannot be switched off", FORM));
    }
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        return Err(without_unit(&clipped(text)));
    }
    if text.contains(':') || text.starts_with(['P', 'p']) {
        return Err(Wrong::new(format!("{} is not in the form used here", quoted(text)), FORM));
    }
    let Ok(time) = jiff::fmt::friendly::SpanParser::new().parse_unsigned_duration(text) else {
        let calendar = text.contains(['d', 'w', 'y']) || text.contains("mo");
        let help = if calendar { "hours are the largest unit: write \"24h\" for a day" } else { FORM };
        return Err(Wrong::new(format!("{} is not a duration", quoted(text)), help));
    };
    if time > LONGEST {
        return Err(Wrong::new(format!("{} is longer than a year", quoted(text)), "write at most \"8760h\""));
    }
    if !time.is_zero() && time < SHORTEST {
        return Err(Wrong::new(format!("{} is shorter than a timer can be", quoted(text)), "write at least \"1ms\""));
    }
    Ok(time)
}

/// So many in a second or a minute.
pub(super) fn rate(value: &DeValue<'_>) -> Result<Rate, Wrong> {
    const FORM: &str = "write how many in each second or minute, such as \"100/s\" or \"600/m\"";
    if let DeValue::Integer(number) = value {
        let number = clipped(&number.to_string());
        return Err(Wrong::new(format!("{number} has no unit"), format!("write \"{number}/s\" if seconds are meant")));
    }
    let wrong = || Wrong::new(format!("{} is not a rate", shown(value)), FORM);
    let (number, unit) = value.as_str().and_then(|text| text.split_once('/')).ok_or_else(wrong)?;
    let per = match unit.trim() {
        "s" | "sec" | "second" => Duration::from_secs(1),
        "m" | "min" | "minute" => Duration::from_secs(60),
        _ => return Err(wrong()),
    };
    let count = number.trim().parse::<NonZeroU32>().map_err(|_| wrong())?;
    Ok(Rate { count, per })
}

/// A time as `gateway.toml` writes it, zero too: `20s`, `1m30s`.
///
/// # Errors
/// Says what is wrong with the text and what would be right.
pub fn duration_text(text: &str) -> Result<Duration, Wrong> {
    parse_duration(text)
}

/// A number of bytes as `gateway.toml` writes it: `64KiB`.
///
/// # Errors
/// Says what is wrong with the text and what would be right.
pub fn size_text(text: &str) -> Result<u64, Wrong> {
    size(&DeValue::String(text.into()))
}

/// A number of bytes above zero.
pub(super) fn size(value: &DeValue<'_>) -> Result<u64, Wrong> {
    const FORM: &str = "write a size such as \"256B\", \"64KiB\" or \"1MiB\"";
    if let DeValue::Integer(number) = value {
        let number = clipped(&number.to_string());
        return Err(Wrong::new(format!("{number} has no unit"), format!("write \"{number}B\" if bytes are meant")));
    }
    let Some(text) = value.as_str() else {
        return Err(Wrong::new(format!("{} is not a size", shown(value)), FORM));
    };
    let digits = text.len() - text.trim_start_matches(|letter: char| letter.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let factor: u64 = match unit {
        "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return Err(wrong_unit(text, number, unit)),
    };
    let bytes = number.parse::<u64>().ok().and_then(|number| number.checked_mul(factor));
    match bytes {
        Some(0) => Err(Wrong::new("a size of zero means nothing here", FORM)),
        Some(bytes) => Ok(bytes),
        None => Err(Wrong::new(format!("{} is not a size", quoted(text)), FORM)),
    }
}

fn wrong_unit(text: &str, number: &str, unit: &str) -> Wrong {
    let meant = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" | "byte" | "bytes" => "B",
        "k" | "kb" | "kib" => "KiB",
        "m" | "mb" | "mib" => "MiB",
        "g" | "gb" | "gib" => "GiB",
        _ => "",
    };
    if number.is_empty() || meant.is_empty() {
        let help = "write a whole number with B, KiB, MiB or GiB, such as \"64KiB\"";
        return Wrong::new(format!("{} is not a size", quoted(text)), help);
    }
    let number = clipped(number);
    let message = if unit.is_empty() { "has no unit" } else { "has no unit known here" };
    Wrong::new(format!("{} {message}", quoted(text)), format!("write \"{number}{meant}\""))
}

/// A number with a fraction, in a range.
pub(super) fn share(value: &DeValue<'_>, most: f64) -> Result<f64, Wrong> {
    let number = match value {
        DeValue::Float(number) => number.as_str().parse::<f64>().ok(),
        DeValue::Integer(number) => number.as_str().parse::<f64>().ok(),
        DeValue::String(_) | DeValue::Boolean(_) | DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => None,
    };
    number.filter(|number| (0.0..=most).contains(number)).ok_or_else(|| {
        let help = format!("write a number from 0.0 to {most}, unquoted: 0.1 is 10 %");
        Wrong::new(format!("{} is not a share in range", shown(value)), help)
    })
}

/// A code that may stand in a close frame.
pub(super) fn close_code(value: &DeValue<'_>) -> Result<CloseCode, Wrong> {
    const VALID: &str = "1000 to 1003, 1007 to 1014 and 3000 to 4999 may be on the wire";
    let Some(number) = value.as_integer() else {
        return Err(Wrong::new(format!("{} is not a close code", shown(value)), format!("write a number: {VALID}")));
    };
    u16::from_str_radix(number.as_str(), number.radix())
        .ok()
        .and_then(CloseCode::new)
        .ok_or_else(|| Wrong::new(format!("{} is not a close code that can be sent", shown(value)), VALID))
}

/// A close code, or `"cut"`.
pub(super) fn farewell(value: &DeValue<'_>) -> Result<Farewell, Wrong> {
    if value.as_str() == Some("cut") {
        return Ok(Farewell::Cut);
    }
    close_code(value)
        .map(Farewell::Code)
        .map_err(|wrong| Wrong::new(wrong.message, format!("{}; \"cut\" resets without a close frame", wrong.help)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Reads a value as it is written in TOML.
    fn of<T>(read: impl Fn(&DeValue<'_>) -> Result<T, Wrong>, toml: &str) -> Result<T, Wrong> {
        read(DeValue::parse(toml).unwrap().get_ref())
    }

    #[test]
    fn durations_have_units() {
        let millis = |toml| of(duration, toml).unwrap().as_millis();
        assert_eq!(millis("\"20s\""), 20_000);
        assert_eq!(millis("\"1m30s\""), 90_000);
        assert_eq!(millis("\"1h 1ms\""), 3_600_001);
        assert_eq!(millis("\"1.5s\""), 1500);
        assert_eq!(millis("\"8760h\""), 31_536_000_000);
        assert_eq!(of(duration_or_zero, "\"0s\""), Ok(Duration::ZERO));
    }

    #[test]
    fn durations_in_other_forms_are_told_how_to_be_right() {
        let wrong = [
            ("20", "write \"20s\""),
            ("1.5", "write \"1.5s\""),
            ("\"20\"", "write \"20s\""),
            ("\"PT20S\"", "1m30s"),
            ("\"00:00:30\"", "1m30s"),
            ("00:00:30", "such as \"20s\""),
            ("\"1d\"", "24h"),
            ("\"1w\"", "24h"),
            ("\"-5s\"", "1m30s"),
            ("\"5s ago\"", "1m30s"),
            ("\"\"", "1m30s"),
            ("\"0s\"", "above zero"),
            ("\"1ns\"", "1ms"),
            ("\"8761h\"", "8760h"),
            ("\"99999999999999999999h\"", "1m30s"),
            ("\"off\"", "such as"),
            ("true", "20s"),
            ("[]", "20s"),
        ];
        for (toml, help) in wrong {
            let wrong = of(duration, toml).unwrap_err();
            assert!(wrong.help.contains(help), "{toml}: {wrong}");
        }
        assert_eq!(of(unless("off", duration), "\"off\""), Ok(None));
        assert!(of(unless("off", duration), "1").unwrap_err().help.ends_with(", or \"off\""));
    }

    #[test]
    fn sizes_are_counted_in_binary_units() {
        let sizes = [("256B", 256), ("64KiB", 65_536), ("1MiB", 1 << 20), ("2GiB", 2 << 30)];
        for (text, bytes) in sizes {
            assert_eq!(of(size, &format!("\"{text}\"")), Ok(bytes));
        }
        let wrong = [
            ("1024", "write \"1024B\""),
            ("\"1024\"", "write \"1024B\""),
            ("\"64KB\"", "write \"64KiB\""),
            ("\"64k\"", "write \"64KiB\""),
            ("\"64 MiB\"", "write \"64MiB\""),
            ("\"1.5MiB\"", "whole number"),
            ("\"MiB\"", "such as"),
            ("\"-1B\"", "whole number"),
            ("\"1TiB\"", "whole number"),
            ("\"0B\"", "such as"),
            ("\"99999999999GiB\"", "such as"),
            ("false", "such as"),
        ];
        for (toml, help) in wrong {
            let wrong = of(size, toml).unwrap_err();
            assert!(wrong.help.contains(help), "{toml}: {wrong}");
        }
    }

    #[test]
    fn rates_are_so_many_a_time() {
        let shown = |toml| of(rate, toml).unwrap().to_string();
        assert_eq!((shown("\"100/s\""), shown("\"600/min\"")), ("100/s".into(), "600/m".into()));
        assert!(of(rate, "100").unwrap_err().help.contains("\"100/s\""));
        for wrong in ["\"100\"", "\"0/s\"", "\"1.5/s\"", "\"-1/s\"", "\"100/h\"", "\"/s\"", "\"off\"", "true"] {
            assert!(of(rate, wrong).unwrap_err().help.contains("such as \"100/s\""), "{wrong}");
        }
    }

    #[test]
    fn numbers_keep_to_their_range() {
        assert_eq!(of(|value| count(value, 1, 9), "0x9"), Ok(9));
        assert!(of(|value| count(value, 1, 9), "10").is_err());
        assert!(of(|value| count(value, 1, 9), "-1").is_err());
        assert!(of(|value| count(value, 1, 9), "\"2\"").unwrap_err().help.contains("unquoted"));
        assert_eq!(of(|value| share(value, 0.5), "0.25"), Ok(0.25));
        for wrong in ["0.51", "-0.1", "nan", "inf", "\"10%\""] {
            assert!(of(|value| share(value, 0.5), wrong).is_err(), "{wrong}");
        }
        assert_eq!(of(farewell, "\"cut\""), Ok(Farewell::Cut));
        assert_eq!(of(close_code, "4999").map(CloseCode::get), Ok(4999));
        for wrong in ["999", "1004", "1005", "1006", "1015", "2999", "5000", "70000", "-1"] {
            assert!(of(close_code, wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn long_values_are_cut_in_messages() {
        let long = format!("\"{}\"", "é".repeat(1000));
        assert!(of(size, &long).unwrap_err().message.len() < 250);
    }
}
