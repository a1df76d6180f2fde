//! The file that says which process serves: `[gateway] pid_file`.
use std::{
    fs, io,
    path::{Path, PathBuf},
    process,
};

/// Our own id in a file, which is removed when this is dropped, unless another process has put its own there.
#[derive(Debug)]
pub struct PidFile(PathBuf);

impl PidFile {
    /// Writes our id, instead of whatever stands there. A reader sees the old id or ours, never half of one.
    ///
    /// # Errors
    /// When the folder may not be written.
    pub fn write(path: &Path) -> io::Result<Self> {
        // A relative path would be lost if the process changed its working directory.
        let path = std::path::absolute(path)?;
        let mut draft = path.clone().into_os_string();
        draft.push(format!(".{}", process::id()));
        fs::write(&draft, format!("{}\n", process::id()))?;
        fs::rename(&draft, &path).inspect_err(|_| {
            // The first error is the one to tell.
            let _ = fs::remove_file(&draft);
        })?;
        Ok(Self(path))
    }

    /// Gives the file to a process that serves instead of this one, and writes its own id there sooner or later.
    pub fn leave(mut self) {
        // To look and then to remove would be too late for an id that comes between.
        self.0 = PathBuf::new();
    }

    /// The id in a file.
    ///
    /// # Errors
    /// When it cannot be read, or holds no id.
    pub fn read(path: &Path) -> io::Result<u32> {
        let text = fs::read_to_string(path)?;
        text.trim().parse().map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it holds no process id"))
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        if self.0.as_os_str().is_empty() {
            return;
        }
        let ours = Self::read(&self.0).is_ok_and(|id| id == process::id());
        if ours && let Err(error) = fs::remove_file(&self.0) {
            tracing::warn!(path = %self.0.display(), %error, "the pid file could not be removed");
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn it_holds_our_id_until_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gate.pid");
        fs::write(&path, "stale").unwrap();
        assert!(PidFile::read(&path).is_err());
        let file = PidFile::write(&path).unwrap();
        assert_eq!(PidFile::read(&path).unwrap(), process::id());
        drop(file);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        assert!(PidFile::write(&folder.path().join("nowhere/gate.pid")).is_err());
    }

    #[test]
    fn the_id_of_another_process_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gate.pid");
        let file = PidFile::write(&path).unwrap();
        fs::write(&path, "1\n").unwrap();
        drop(file);
        assert_eq!(PidFile::read(&path).unwrap(), 1);
        PidFile::write(&path).unwrap().leave();
        assert_eq!(PidFile::read(&path).unwrap(), process::id());
    }
}
