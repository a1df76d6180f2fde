//! The program: its arguments, and the exit code of what they ask for.
mod allocator;
mod cli;

use clap::Parser;
use cli::{Arguments, Command};
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    allocator::give_back_when_calm();
    let exit = match arguments.command {
        None => cli::run::run(&arguments.run),
        Some(Command::Run(run)) => cli::run::run(&run),
        Some(Command::Check(check)) => cli::check::check(&check),
        Some(Command::Try(trial)) => cli::trial::trial(&trial),
        Some(Command::Reload(arguments)) => cli::reload::reload(&arguments),
        Some(Command::Upgrade(upgrade)) => cli::upgrade::upgrade(&upgrade),
        Some(Command::Probe(arguments)) => cli::probe::probe_service(&arguments),
        Some(Command::Schema) => cli::generate::schema(),
        Some(Command::Generate(arguments)) => cli::generate::generate(&arguments),
        Some(Command::Sessions(sessions)) => cli::sessions::sessions(&sessions),
        Some(Command::Top(top)) => cli::top::top(&top),
        Some(Command::Drain(drain)) => cli::drain::drain(&drain),
    };
    exit.into()
}
