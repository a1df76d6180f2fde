//! What the system knows of this process. What it does not tell is left out.
use rustix::param::{clock_ticks_per_second, page_size};
use std::fs;

/// Bytes of memory that are resident.
pub(super) fn resident_bytes() -> Option<u64> {
    let statm = fs::read_to_string("/proc/self/statm").ok()?;
    Some(statm.split_whitespace().nth(1)?.parse::<u64>().ok()? * page_size() as u64)
}

/// Processor time used, by user and system together, in seconds.
pub(super) fn cpu_seconds() -> Option<f64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The name, in parentheses, may hold anything; user and system time are fields 14 and 15.
    let (_, fields) = stat.rsplit_once(')')?;
    let ticks = fields.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum::<u64>();
    Some(ticks as f64 / clock_ticks_per_second() as f64)
}

/// Descriptors that are open.
pub(super) fn open_descriptors() -> Option<u64> {
    let folder = "/proc/self/fd";
    // Since Linux 6.2 the size of the folder is their number; before, it is zero, and they have to be counted.
    match fs::metadata(folder).ok()?.len() {
        0 => Some(fs::read_dir(folder).ok()?.count() as u64),
        open => Some(open),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_system_tells() {
        assert!(resident_bytes().unwrap() > 1 << 20);
        assert!(cpu_seconds().unwrap() >= 0.0);
        let before = open_descriptors().unwrap();
        let files: Vec<_> = (0..50).map(|_| fs::File::open("/dev/null").unwrap()).collect();
        assert!(open_descriptors().unwrap() > before, "other tests open and close some too, but not so many");
        drop(files);
    }
}
