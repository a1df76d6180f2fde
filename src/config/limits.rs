//! `limits.client` and `limits.upstream`: what one side may send.
use super::{file::Table, problem::Wrong, value};
use crate::{
    protocol::rate::Rate,
    relay::{MessageLimits, OverRate, Side},
};
use std::num::NonZeroU64;
use toml::de::DeValue;

/// Replaces those of `limits` that `table` has.
pub(super) fn read(table: &Table<'_>, side: Side, limits: &mut MessageLimits) {
    table.set("message", &mut limits.message, value::unless("off", value::size));
    table.set("frame", &mut limits.frame, value::unless("off", value::size));
    table.set("fragments", &mut limits.fragments, value::unless("off", fragments));
    table.set("messages_per_second", &mut limits.messages_per_second, value::unless("off", messages));
    table.set("bytes_per_second", &mut limits.bytes_per_second, value::unless("off", bytes));
    table.set("over_rate", &mut limits.over_rate, value::word(over_rate(side)));
}

/// A client is never told of a rule that it was the backend who broke: that one can only be slowed down.
const fn over_rate(side: Side) -> &'static [(&'static str, OverRate)] {
    match side {
        Side::Downstream => &[("slow", OverRate::Slow), ("close", OverRate::Close)],
        Side::Upstream => &[("slow", OverRate::Slow)],
    }
}

/// One less than the scanner can count to, which stands for any number.
fn fragments(value: &DeValue<'_>) -> Result<u16, Wrong> {
    let most = u16::MAX - 1;
    value::count(value, 1, u64::from(most)).map(|count| u16::try_from(count).unwrap_or(most))
}

fn messages(value: &DeValue<'_>) -> Result<Rate, Wrong> {
    value::count(value, 1, 1_000_000_000).map(rate)
}

fn bytes(value: &DeValue<'_>) -> Result<Rate, Wrong> {
    value::size(value).map(rate)
}

fn rate(count: u64) -> Rate {
    Rate(NonZeroU64::new(count).unwrap_or(NonZeroU64::MIN))
}
