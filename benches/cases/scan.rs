//! Frame headers, found and checked.

use super::{Case, KEY, Kind, Run, ascii, frame};
use pulsegate::protocol::{
    Role,
    scanner::{Rules, Scanner, Stop},
};
use std::hint::black_box;

const FRAMES: u32 = 1000;

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::new("scan/masked-64", FRAMES, || scan(Role::Server, Some(KEY))),
        Case::new("scan/unmasked-64", FRAMES, || scan(Role::Client, None)),
    ]
}

/// A thousand small frames in one chunk; `role` is ours.
fn scan(role: Role, key: Option<[u8; 4]>) -> Run {
    let rules = Rules {
        role,
        deflate: false,
        utf8: true,
        frame_limit: u64::MAX,
        message_limit: u64::MAX,
        fragment_limit: u16::MAX,
    };
    let mut scanner = Scanner::default();
    let chunk = frame(Kind::Binary, key, &ascii(64)).repeat(FRAMES as usize);
    Box::new(move || {
        let scan = scanner.scan(&rules, black_box(&chunk), 0, false);
        assert_eq!((scan.at, scan.stop), (chunk.len(), Stop::End));
    })
}
