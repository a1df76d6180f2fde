//! Instructions of each case, counted by valgrind's callgrind: figures that hold still on a busy machine.
//!
//! ```text
//! cargo bench --bench instructions [-- [FILTER] [--check | --save]]
//! ```
//!
//! Prints what one unit (frame, beat, entry) costs, and how that compares with `benches/instructions.toml`. `--check` fails
//! if a case costs over a tenth more than it says there; `--save` writes it anew. Counts of another compiler or
//! processor are shown and never failed. Without valgrind it says so, and succeeds.
//!
//! Valgrind counts each byte that `rep movsb` and `rep stosb` copy or clear as one instruction, so what copies or clears a
//! few KiB (the session cases copy in their transports) counts for more than it takes.
//!
//! `valgrind --tool=callgrind target/release/deps/instructions-* --run CASE TIMES` profiles one case.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "printing is what this program is for")]

mod cases;

use cases::Case;
use std::{
    collections::BTreeMap,
    env,
    error::Error,
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

/// Units that are counted, in at least two runs.
const UNITS: u32 = 100;
/// What a case may cost at most, in shares of what it did.
const TOLERANCE: f64 = 1.1;
/// Instructions per unit below which a share says little.
const SLACK: f64 = 2.0;

type Outcome<T> = Result<T, Box<dyn Error>>;

fn main() -> ExitCode {
    match obey(env::args().skip(1).collect()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn obey(arguments: Vec<String>) -> Outcome<ExitCode> {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    if let ["--run", name, times] = words[..] {
        run(&cases::all().into_iter().find(|case| case.name == name).ok_or("no such case")?, times.parse()?);
        return Ok(ExitCode::SUCCESS);
    }
    let has = |flag| words.contains(&flag);
    let filter = words.iter().copied().find(|word| !word.starts_with("--"));
    let cases = cases::all().into_iter().filter(|case| filter.is_none_or(|filter| case.name.contains(filter)));
    if !has("--bench") {
        // `cargo test --benches`: does everything work?
        cases.for_each(|case| run(&case, 1));
        return Ok(ExitCode::SUCCESS);
    }
    if Command::new("valgrind").arg("--version").output().is_err() {
        println!("valgrind is not installed: no instruction counts");
        return Ok(ExitCode::SUCCESS);
    }
    let before = Baseline::load()?;
    let mut now = Baseline { counted_by: counted_by(), ..Baseline::default() };
    let comparable = before.counted_by == now.counted_by;
    println!("{}", now.counted_by);
    if !comparable && !before.counted_by.is_empty() {
        println!("the baseline was counted by {}: shares mean little", before.counted_by);
    }
    println!("{:36} {:>14} {:>14} {:>8}", "instructions per unit", "now", "baseline", "");
    let mut worse = Vec::new();
    for case in cases {
        let count = count(&case)?;
        let old = before.counts.get(case.name).copied();
        let share = old.map_or("new".to_owned(), |old| format!("{:+.1} %", (count / old - 1.0) * 100.0));
        let old_shown = old.map_or(String::new(), |old| format!("{old:.1}"));
        println!("{:36} {count:>14.1} {old_shown:>14} {share:>8}", case.name);
        if old.is_some_and(|old| count > old * TOLERANCE + SLACK) {
            worse.push(case.name);
        }
        now.counts.insert(case.name.to_owned(), count);
    }
    if has("--save") {
        if filter.is_some() {
            return Err("a baseline is saved whole: leave the filter out".into());
        }
        now.save()?;
    }
    if has("--check") && comparable && !worse.is_empty() {
        return Err(format!("over a tenth more than before: {}", worse.join(", ")).into());
    }
    Ok(ExitCode::SUCCESS)
}

fn run(case: &Case, times: u32) {
    let mut run = case.warm();
    for _ in 0..times {
        run();
    }
}

/// Instructions per unit: what more runs cost more, so that start and preparation cancel out.
fn count(case: &Case) -> Outcome<f64> {
    let runs = (UNITS / case.units).max(2);
    let few = collected(case.name, runs)?;
    let many = collected(case.name, 2 * runs)?;
    Ok(many.saturating_sub(few) as f64 / f64::from(runs * case.units))
}

/// Instructions of a process that runs a case so many times.
fn collected(name: &str, times: u32) -> Outcome<u64> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(env::current_exe()?)
        .args(["--run", name, &times.to_string()])
        .output()?;
    let told = String::from_utf8_lossy(&output.stderr);
    let count = told.lines().find_map(|line| line.split_once("Collected :")?.1.trim().parse().ok());
    match count {
        Some(count) if output.status.success() => Ok(count),
        Some(_) | None => Err(format!("valgrind did not count {name}:\n{told}").into()),
    }
}

/// What counts depend on besides the code: the compiler, and whether SIMD code has wide registers.
fn counted_by() -> String {
    let compiler = Command::new(env::var_os("RUSTC").unwrap_or_else(|| "rustc".into())).arg("--version").output();
    let compiler = compiler.map_or_else(
        |_| "an unknown compiler".to_owned(),
        |output| String::from_utf8_lossy(&output.stdout).trim().to_owned(),
    );
    #[cfg(target_arch = "x86_64")]
    let simd = if std::arch::is_x86_feature_detected!("avx2") { "with AVX2" } else { "without AVX2" };
    #[cfg(not(target_arch = "x86_64"))]
    let simd = "";
    format!("{compiler}, {} {simd}", env::consts::ARCH).trim_end().to_owned()
}

/// Counts to compare with.
#[derive(Default)]
struct Baseline {
    counted_by: String,
    counts: BTreeMap<String, f64>,
}

impl Baseline {
    fn path() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/instructions.toml")
    }

    fn load() -> Outcome<Self> {
        let text = fs::read_to_string(Self::path()).unwrap_or_default();
        let mut baseline = Self::default();
        for line in text.lines() {
            // Only what `save` writes.
            match line.split_once(" = ") {
                Some(("counted_by", value)) => baseline.counted_by = value.trim_matches('"').to_owned(),
                Some((name, value)) => {
                    baseline.counts.insert(name.trim_matches('"').to_owned(), value.parse()?);
                }
                None => {}
            }
        }
        Ok(baseline)
    }

    fn save(&self) -> Outcome<()> {
        let mut text = format!(
            "# Instructions per unit, written by `cargo bench --bench instructions -- --save`.\ncounted_by = \"{}\"\n\n\
             [instructions]\n",
            self.counted_by
        );
        for (name, count) in &self.counts {
            text += &format!("\"{name}\" = {count:.1}\n");
        }
        Ok(fs::write(Self::path(), text)?)
    }
}
