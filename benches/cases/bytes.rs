//! Payload, where it must be looked at: masking and UTF-8.

use super::{Case, KEY, Run, ascii, mixed};
use pulsegate::protocol::{mask, utf8::Validator};
use std::hint::black_box;

const SMALL: usize = 64;
const LARGE: usize = 64 * 1024;

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::new("mask/64", 1, || masking(SMALL)),
        Case::new("mask/64KiB", 1, || masking(LARGE)),
        Case::new("utf8/ascii-64", 1, || validation(ascii(SMALL))),
        Case::new("utf8/ascii-64KiB", 1, || validation(ascii(LARGE))),
        Case::new("utf8/mixed-64", 1, || validation(mixed(SMALL))),
        Case::new("utf8/mixed-64KiB", 1, || validation(mixed(LARGE))),
        Case::new("utf8/masked-64KiB", 1, || masked_validation(LARGE)),
    ]
}

fn masking(length: usize) -> Run {
    let (source, mut target) = (ascii(length), vec![0; length]);
    Box::new(move || {
        mask::apply(black_box(&source), KEY, 1, &mut target);
        black_box(&target);
    })
}

fn validation(text: Vec<u8>) -> Run {
    Box::new(move || {
        let mut validator = Validator::default();
        assert!(validator.push(black_box(&text)).is_ok() && validator.finish().is_ok());
    })
}

/// A masked text, unmasked piece by piece into a small room and checked there.
fn masked_validation(length: usize) -> Run {
    let mut text = vec![0; length];
    mask::apply(&ascii(length), KEY, 0, &mut text);
    Box::new(move || {
        let mut validator = Validator::default();
        let mut room = [0; 4096];
        for part in black_box(&text).chunks(room.len()) {
            let plain = &mut room[..part.len()];
            mask::apply(part, KEY, 0, plain);
            assert!(validator.push(plain).is_ok());
        }
        assert!(validator.finish().is_ok());
    })
}
