//! CPU time and memory of processes and all their children, from /proc.
use std::{collections::HashMap, fs, path::Path};

/// What the processes have used so far.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    /// Seconds of CPU time, user and kernel.
    pub(crate) cpu: f64,
    /// KiB of anonymous memory: heap and stacks, without the program's file and without the kernel's socket buffers.
    pub(crate) memory: f64,
}

impl Usage {
    /// Of all of `roots` and what descends from them.
    pub(crate) fn of(roots: &[u32]) -> Self {
        let tree = if roots.is_empty() { Vec::new() } else { tree(roots) };
        Self { cpu: tree.iter().map(|pid| cpu(*pid)).sum(), memory: tree.iter().map(|pid| memory(*pid)).sum() }
    }

    /// CPU seconds of this process.
    pub(crate) fn own_cpu() -> f64 {
        cpu(std::process::id())
    }
}

pub(crate) fn exists(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

fn tree(roots: &[u32]) -> Vec<u32> {
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        // A process may end while we look.
        if let Some((parent, _)) = stat(pid) {
            children.entry(parent).or_default().push(pid);
        }
    }
    let mut found = roots.to_vec();
    let mut next = 0;
    while let Some(pid) = found.get(next) {
        let more: Vec<u32> =
            children.get(pid).into_iter().flatten().filter(|pid| !found.contains(pid)).copied().collect();
        found.extend(more);
        next += 1;
    }
    found
}

/// The parent and the clock ticks, of which Linux shows 100 a second on every machine.
fn stat(pid: u32) -> Option<(u32, u64)> {
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

fn parse_stat(text: &str) -> Option<(u32, u64)> {
    // The name, in parentheses, may hold spaces and parentheses.
    let fields: Vec<&str> = text.get(text.rfind(')')? + 2..)?.split(' ').collect();
    let ticks = |index: usize| fields.get(index)?.parse::<u64>().ok();
    Some((fields.get(1)?.parse().ok()?, ticks(11)? + ticks(12)?))
}

/// In nanoseconds from each thread's `schedstat` where the kernel keeps it, else in ticks.
fn cpu(pid: u32) -> f64 {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let nanoseconds: u64 = threads
        .filter_map(|thread| fs::read_to_string(thread.path().join("schedstat")).ok())
        .filter_map(|text| text.split(' ').next()?.parse::<u64>().ok())
        .sum();
    if nanoseconds > 0 { nanoseconds as f64 / 1e9 } else { stat(pid).map_or(0.0, |(_, ticks)| ticks as f64 / 100.0) }
}

fn memory(pid: u32) -> f64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_name_with_spaces_does_not_shift_the_fields() {
        let text = "42 (a) b (c) S 7 42 42 0 -1 4194304 900 0 0 0 150 50 0 0 20 0 1 0 100 0 0";
        assert_eq!(parse_stat(text), Some((7, 200)));
        assert_eq!(parse_stat("42 (a"), None);
    }

    #[test]
    fn this_process_uses_something() {
        let usage = Usage::of(&[std::process::id()]);
        assert!(usage.memory > 0.0 && usage.cpu >= 0.0, "{usage:?}");
        assert_eq!(Usage::of(&[]).memory, 0.0);
        assert!(exists(std::process::id()));
    }
}
