//! What packages bring along: `pulsegate schema`, and the hidden `pulsegate generate`.
use super::{
    Arguments, Exit, GenerateArguments,
    output::{complain, say},
};
use clap::{Command, CommandFactory};
use clap_complete::Shell;
use pulsegate::config;
use std::{fs, io, path::Path};

/// Prints the JSON Schema of `gateway.toml`.
pub(crate) fn schema() -> Exit {
    say(format_args!("{:#}", config::schema()));
    Exit::Done
}

/// Writes man pages and completions into a folder.
pub(crate) fn generate(arguments: &GenerateArguments) -> Exit {
    match write(&arguments.folder) {
        Ok(()) => Exit::Done,
        Err(error) => {
            complain(format_args!("cannot write into {}: {error}", arguments.folder.display()));
            Exit::System
        }
    }
}

fn write(folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    let mut command = Arguments::command();
    command.build();
    pages(&command, "pulsegate", folder)?;
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        clap_complete::generate_to(shell, &mut command, "pulsegate", folder)?;
    }
    Ok(())
}

/// A page for the program, `pulsegate.1`, and one for each of its commands, `pulsegate-check.1`.
fn pages(command: &Command, name: &str, folder: &Path) -> io::Result<()> {
    let mut page = Vec::new();
    clap_mangen::Man::new(command.clone()).render(&mut page)?;
    fs::write(folder.join(format!("{name}.1")), page)?;
    for inner in command.get_subcommands().filter(|inner| !inner.is_hide_set() && inner.get_name() != "help") {
        pages(inner, &format!("{name}-{}", inner.get_name()), folder)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_command_has_a_page_and_every_shell_its_completions() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path()).unwrap();
        let read = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap();
        assert!(read("pulsegate.1").contains("keeps idle connections alive"));
        let listed = Arguments::command();
        for command in listed.get_subcommands().filter(|command| !command.is_hide_set()) {
            let name = command.get_name();
            assert!(read(&format!("pulsegate-{name}.1")).contains("NAME"), "{name}");
            for completions in ["pulsegate.bash", "_pulsegate", "pulsegate.fish"] {
                assert!(read(completions).contains(name), "{completions} does not know {name}");
            }
        }
        assert!(!folder.path().join("pulsegate-generate.1").exists());
    }
}
