//! Hostile configuration files: the operator's own hand, or what a broken tool left there.
use super::siege::{ATTACK, Attack, Plan, Siege};
use rustix::process::Signal;
use std::{fs, thread, time::Duration};

/// Files that are no configuration, each in its own way.
fn hostile() -> Vec<(&'static str, Vec<u8>)> {
    let deep = |open: &str, close: &str, count: usize| format!("x = {}{}", open.repeat(count), close.repeat(count));
    vec![
        ("nothing", Vec::new()),
        ("zeros", vec![0; 1 << 20]),
        ("no text", vec![0xff; 1 << 16]),
        ("arrays in arrays", deep("[", "]", 100_000).into()),
        ("tables in tables", deep("{a=", "}", 100_000).into()),
        ("a deep path", (vec!["a"; 100_000].join(".") + " = 1").into()),
        ("a deep header", format!("[{}]", vec!["a"; 100_000].join(".")).into()),
        ("many unknown keys", (0..20_000).map(|n| format!("key{n} = {n}\n")).collect::<String>().into()),
        ("one key many times", "x = 1\n".repeat(50_000).into()),
        (
            "many routes",
            (0..20_000)
                .map(|n| format!("[[route]]\npath = \"/{n}\"\nupstream = \"u{n}\"\n"))
                .collect::<String>()
                .into(),
        ),
        ("a long key", ("x".repeat(1 << 20) + " = 1").into()),
        ("a long text", format!("x = \"{}\"", "y".repeat(4 << 20)).into()),
        ("no end of a text", format!("x = \"\"\"{}", "\n".repeat(1 << 20)).into()),
        ("a huge number", format!("gateway.workers = {}", "9".repeat(1 << 20)).into()),
        ("a huge time", "defaults.timeouts.close = \"99999999999999999999999999y\"".into()),
    ]
}

#[test]
fn hostile_configuration_files_are_refused_and_change_nothing() {
    let siege = Siege::begin(&Plan::default());
    let place = siege.folder().join("gateway.toml");
    let good = fs::read(&place).unwrap();
    let files = hostile();
    let attack = Attack {
        threads: 1,
        wage: &|front, _| {
            for (_, file) in files.iter().cycle() {
                if !front.on() {
                    break;
                }
                fs::write(&place, file).unwrap();
                siege.signal(Signal::HUP);
                thread::sleep(Duration::from_millis(50));
                front.repelled();
            }
            fs::write(&place, &good).unwrap();
        },
        memory: 256 << 20,
        lasts: ATTACK,
    };
    assert!(siege.survives("hostile files", &attack) > 10);
}
