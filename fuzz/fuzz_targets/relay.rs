//! A relay between two transports that do anything: bytes, partial writes, failures, times, ends.
#![no_main]
use arbitrary::{Result, Unstructured};
use libfuzzer_sys::fuzz_target;
use pulsegate_fuzz::{
    input,
    protocol::{close::CloseCode, heartbeat::Answers},
    relay::{EndReason, Loss, Side},
    settings,
    shell::{READ, Shell},
    wire::Item,
};

fuzz_target!(|bytes: &[u8]| {
    // An input that ends early is no finding.
    run(&mut Unstructured::new(bytes)).ok();
});

fn run(u: &mut Unstructured<'_>) -> Result<()> {
    let config = settings::relay(u)?;
    let deflate = u.arbitrary()?;
    let mut shell = Shell::new(config, deflate, u64::from(u.arbitrary::<u16>()?) << 48);
    while !u.is_empty() {
        if act(u, &mut shell).is_err() {
            break;
        }
        shell.turn();
        if shell.relay.is_done() {
            break;
        }
    }
    shell.end();
    Ok(())
}

fn act(u: &mut Unstructured<'_>, shell: &mut Shell) -> Result<()> {
    let side = *u.choose(&Side::BOTH)?;
    let transport = &mut shell.transports[side];
    match u.int_in_range(0..=23u8)? {
        0..=7 => {
            if transport.incoming.len() < 4 * READ {
                input::say(u, side == Side::Downstream, &mut transport.incoming)?;
            }
        }
        8..=11 => {
            let time = settings::millis(u)?;
            shell.wait(time);
        }
        12 | 13 => transport.room = usize::from(u.arbitrary::<u16>()?) >> u.int_in_range(0..=12)?,
        14 => transport.room = 0,
        15 => transport.holding ^= true,
        16 => transport.loss = Some(*u.choose(&[Loss::End, Loss::End, Loss::Failed, Loss::TimedOut])?),
        17 => transport.broken = true,
        18 => shell.path = settings::path(u)?,
        19 => shell.answers = *u.choose(&[Answers::Proven, Answers::Unproven])?,
        20 => {
            let time = settings::millis(u)?;
            shell.oversleep(time);
        }
        21 => pong(shell, side),
        22 => {
            let reason =
                *u.choose(&[EndReason::Draining, EndReason::Policy, EndReason::Terminated, EndReason::Internal])?;
            shell.relay.end(reason, CloseCode::new(u.arbitrary()?), shell.now);
        }
        _ => {
            shell.relay.cut(EndReason::Draining, shell.now);
            shell.turn();
            assert!(shell.relay.is_done(), "cut, but not done: {shell:#?}");
        }
    }
    Ok(())
}

/// The peer answers the newest ping it got.
fn pong(shell: &mut Shell, side: Side) {
    let transport = &mut shell.transports[side];
    let newest = transport.sent.items.iter().rev().find_map(|item| match item {
        Item::Ping(payload) => Some(payload.clone()),
        Item::Text(_) | Item::Binary(_) | Item::Compressed(_) | Item::Pong(_) | Item::Close(_) => None,
    });
    if let Some(payload) = newest {
        let key = (side == Side::Downstream).then_some([1, 2, 3, 4]);
        input::frame(0x8a, &payload, key, &mut transport.incoming);
    }
}
