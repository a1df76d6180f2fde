//! The program to start at an upgrade: this one, from where it was started.
use super::VARIABLE;
use std::{
    env,
    ffi::OsString,
    fs, io,
    os::{fd::OwnedFd, unix::fs::MetadataExt},
    path::{Path, PathBuf, absolute},
    process::{self, Child, Command, Stdio},
};

/// A program file and its arguments. The file may hold another program by the time it is started: that is the point.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    path: PathBuf,
    arguments: Vec<OsString>,
}

impl Program {
    /// The program of this process. To be called at its start, before somebody replaces the file.
    #[must_use]
    pub fn current() -> Option<Self> {
        let mut arguments = env::args_os();
        let name = arguments.next().unwrap_or_default();
        let search = env::var_os("PATH").unwrap_or_default();
        let path = locate(Path::new(&name), &search)?;
        Some(Self { path, arguments: arguments.collect() })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Starts it as a successor, with its end of the channel as standard input.
    pub(super) fn start(&self, generation: u32, channel: OwnedFd) -> io::Result<Child> {
        Command::new(&self.path)
            .args(&self.arguments)
            .env(VARIABLE, format!("{generation} {}", process::id()))
            // The socket activation was ours. A watchdog without an id is for whoever is the service.
            .env_remove("LISTEN_FDS")
            .env_remove("LISTEN_PID")
            .env_remove("LISTEN_FDNAMES")
            .env_remove("WATCHDOG_PID")
            .stdin(Stdio::from(channel))
            .stderr(Stdio::piped())
            .spawn()
    }
}

/// The file that `name` was found as. A symbolic link stays one, since it may point elsewhere by the time of an upgrade;
/// `/proc/self/exe`, which does not, is the last resort.
fn locate(name: &Path, search: &OsString) -> Option<PathBuf> {
    let itself = fs::metadata("/proc/self/exe").ok()?;
    let is_itself =
        |path: &Path| fs::metadata(path).is_ok_and(|found| (found.dev(), found.ino()) == (itself.dev(), itself.ino()));
    let found = if name.components().count() > 1 {
        absolute(name).ok()
    } else {
        env::split_paths(search).filter_map(|folder| absolute(folder.join(name)).ok()).find(|path| is_itself(path))
    };
    found.filter(|path| is_itself(path)).or_else(|| env::current_exe().ok())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_link_to_us_stays_a_link() {
        let folder = tempfile::tempdir().unwrap();
        let link = folder.path().join("gate");
        symlink(env::current_exe().unwrap(), &link).unwrap();
        assert_eq!(locate(&link, &OsString::new()), Some(link.clone()));
        let search = env::join_paths(["/nowhere".as_ref(), folder.path()]).unwrap();
        assert_eq!(locate(Path::new("gate"), &search), Some(link));
    }

    #[test]
    fn a_name_that_is_not_ours_is_not_believed() {
        let us = env::current_exe().unwrap();
        assert_eq!(locate(Path::new("/bin/sh"), &OsString::new()), Some(us.clone()));
        assert_eq!(locate(Path::new("sh"), &"/bin".into()), Some(us));
    }
}
