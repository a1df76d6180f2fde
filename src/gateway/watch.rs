//! Notices that the files of a configuration were replaced, however that is done: written in place, renamed, or by a link
//! somewhere on their path that points elsewhere.
use notify::{
    Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher,
    event::{AccessKind, AccessMode},
};
use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::MetadataExt,
    path::{Component, Path, PathBuf},
    sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    thread,
    time::{Duration, Instant},
};

/// Files are read when their folders have been quiet for this long,
const QUIET: Duration = Duration::from_millis(250);
/// or at the latest this long after the first change.
const LONGEST: Duration = Duration::from_secs(2);
/// Links that are followed on the path of one file.
const LINKS: usize = 40;

/// A thread that watches; it ends with this.
pub(super) struct Watch(Sender<News>);

enum News {
    Event(notify::Result<Event>),
    /// These are the files from now on.
    Files(Vec<PathBuf>),
    End,
}

impl Watch {
    /// Calls `changed`, on the thread, when one of `files` is another than before.
    pub(super) fn start(files: Vec<PathBuf>, changed: impl Fn() + Send + 'static) -> notify::Result<Self> {
        let (sender, news) = channel();
        let events = sender.clone();
        // The thread may have ended.
        let hear = move |event| drop(events.send(News::Event(event)));
        let mut watching = Watching {
            watcher: notify::recommended_watcher(hear)?,
            folders: BTreeSet::new(),
            known: prints(&files),
            files,
            news,
        };
        watching.look();
        let watch = move || watching.run(&changed);
        thread::Builder::new().name("watch".into()).spawn(watch).map_err(notify::Error::io)?;
        Ok(Self(sender))
    }

    /// These are the files from now on.
    pub(super) fn files(&self, files: Vec<PathBuf>) {
        // A thread that has ended watches nothing.
        let _ = self.0.send(News::Files(files));
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.send(News::End);
    }
}

struct Watching {
    watcher: RecommendedWatcher,
    /// What is watched: files are replaced in their folders.
    folders: BTreeSet<PathBuf>,
    files: Vec<PathBuf>,
    known: Vec<Option<Print>>,
    news: Receiver<News>,
}

/// What tells a file from another, and from what it was.
type Print = (u64, u64, u64, i64, i64);

/// Whether the thread goes on.
type GoesOn = bool;

impl Watching {
    fn run(mut self, changed: &impl Fn()) {
        while self.wait() {
            // Links may lead elsewhere now. Watched first, so that nothing happens unseen in between.
            self.look();
            let prints = prints(&self.files);
            if prints != self.known {
                self.known = prints;
                changed();
            }
        }
    }

    /// Waits for a change, and until it is over.
    fn wait(&mut self) -> GoesOn {
        let mut since: Option<Instant> = None;
        loop {
            let news = match since {
                None => self.news.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(since) => {
                    let left = (since + LONGEST).saturating_duration_since(Instant::now());
                    self.news.recv_timeout(QUIET.min(left))
                }
            };
            match news {
                Ok(News::Event(event)) if matters(&event) => _ = since.get_or_insert_with(Instant::now),
                Ok(News::Event(_)) => {}
                Ok(News::Files(files)) => {
                    if files != self.files {
                        self.known = prints(&files);
                        self.files = files;
                        self.look();
                    }
                }
                Ok(News::End) | Err(RecvTimeoutError::Disconnected) => return false,
                Err(RecvTimeoutError::Timeout) => return true,
            }
            if since.is_some_and(|since| since.elapsed() >= LONGEST) {
                return true;
            }
        }
    }

    /// Watches the folders anew: one of the same name may be another.
    fn look(&mut self) {
        for folder in std::mem::take(&mut self.folders) {
            // It may be gone, and with it the watch.
            let _ = self.watcher.unwatch(&folder);
        }
        for folder in self.files.iter().flat_map(|file| folders(file)) {
            if self.folders.contains(&folder) {
                continue;
            }
            match self.watcher.watch(&folder, RecursiveMode::NonRecursive) {
                Ok(()) => _ = self.folders.insert(folder),
                Err(error) => tracing::warn!(%error, "gateway.watch: {} is not watched", folder.display()),
            }
        }
    }
}

/// Whether a file may be another after it. Reading one is none of it.
fn matters(event: &notify::Result<Event>) -> bool {
    event.as_ref().map_or(true, |event| match event.kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => true,
        EventKind::Access(_) => false,
        EventKind::Any | EventKind::Create(_) | EventKind::Modify(_) | EventKind::Remove(_) | EventKind::Other => true,
    })
}

fn prints(files: &[PathBuf]) -> Vec<Option<Print>> {
    let print = |file: &PathBuf| {
        let facts = fs::metadata(file).ok()?;
        let changed = facts.ctime().saturating_mul(1_000_000_000).saturating_add(facts.ctime_nsec());
        Some((facts.dev(), facts.ino(), facts.len(), facts.mtime(), changed))
    };
    files.iter().map(print).collect()
}

/// The folders in which something must happen for the file to be another: its own, and that of each link on its path.
fn folders(file: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    let Ok(mut rest) = std::path::absolute(file) else { return found };
    for _ in 0..LINKS {
        let Some((link, behind)) = first_link(&rest) else {
            // No link is left, so this is the file, or what is missing of it.
            found.extend(plain(&rest).parent().map(Path::to_owned));
            return found;
        };
        let folder = link.parent().map(Path::to_owned).unwrap_or_default();
        let Ok(target) = fs::read_link(&link) else { return found };
        rest = folder.join(target).join(behind);
        found.insert(folder);
        if rest.file_name().is_none() {
            return found;
        }
    }
    found
}

/// A path without links, with its `..` taken back.
fn plain(path: &Path) -> PathBuf {
    path.components().fold(PathBuf::new(), |mut plain, part| {
        if part == Component::ParentDir {
            _ = plain.pop()
        } else {
            plain.push(part)
        }
        plain
    })
}

/// The first part of a path that is a link, and what follows it. `..` is taken back as the kernel does it: no link lies
/// before.
fn first_link(path: &Path) -> Option<(PathBuf, PathBuf)> {
    let mut before = PathBuf::new();
    let mut parts = path.components();
    while let Some(part) = parts.next() {
        if part == Component::ParentDir {
            before.pop();
            continue;
        }
        before.push(part);
        if before.is_symlink() {
            return Some((before, parts.as_path().to_owned()));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::os::unix::fs::symlink;

    const SOON: Duration = Duration::from_secs(10);

    struct Stage {
        folder: tempfile::TempDir,
        changes: Receiver<()>,
        _watch: Watch,
    }

    impl Stage {
        /// Watches `file` of a folder that `prepare` fills.
        fn new(file: &str, prepare: impl FnOnce(&Path)) -> Self {
            let folder = tempfile::tempdir().unwrap();
            prepare(folder.path());
            let (sender, changes) = channel();
            let watch = Watch::start(vec![folder.path().join(file)], move || sender.send(()).unwrap()).unwrap();
            Self { folder, changes, _watch: watch }
        }

        fn path(&self, name: &str) -> PathBuf {
            self.folder.path().join(name)
        }

        #[track_caller]
        fn notices(&self) {
            self.changes.recv_timeout(SOON).expect("a change");
        }
    }

    #[test]
    fn a_file_that_is_written_or_renamed_over_is_noticed_and_its_neighbours_are_not() {
        let stage = Stage::new("gateway.toml", |folder| fs::write(folder.join("gateway.toml"), "one").unwrap());
        fs::write(stage.path("neighbour"), "noise").unwrap();
        fs::read(stage.path("gateway.toml")).unwrap();
        fs::write(stage.path("gateway.toml"), "two").unwrap();
        stage.notices();
        fs::write(stage.path("new"), "six").unwrap();
        fs::rename(stage.path("new"), stage.path("gateway.toml")).unwrap();
        stage.notices();
        assert!(stage.changes.try_recv().is_err(), "each was one change");
    }

    /// As Kubernetes does it: `tls.crt` is a link to `..data/tls.crt`, and `..data` one to the newest folder.
    #[test]
    fn a_folder_that_is_exchanged_by_its_link_is_noticed_again_and_again() {
        let version = |folder: &Path, name: &str| {
            fs::create_dir(folder.join(name)).unwrap();
            fs::write(folder.join(name).join("tls.crt"), name).unwrap();
            symlink(name, folder.join("..data_tmp")).unwrap();
            fs::rename(folder.join("..data_tmp"), folder.join("..data")).unwrap();
        };
        let stage = Stage::new("tls.crt", |folder| {
            version(folder, "..1");
            symlink("..data/tls.crt", folder.join("tls.crt")).unwrap();
        });
        for (new, old) in [("..2", "..1"), ("..3", "..2")] {
            version(stage.folder.path(), new);
            fs::remove_dir_all(stage.path(old)).unwrap();
            stage.notices();
        }
    }

    #[test]
    fn every_link_on_the_way_is_watched_where_it_stands() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        for name in ["live", "archive", "releases/5"] {
            fs::create_dir_all(root.join(name)).unwrap();
        }
        fs::write(root.join("archive/3.pem"), "").unwrap();
        symlink("../archive/3.pem", root.join("live/chain.pem")).unwrap();
        symlink("releases/5", root.join("current")).unwrap();
        symlink(root.join("live"), root.join("releases/5/tls")).unwrap();
        let expected = BTreeSet::from([root.clone(), root.join("archive"), root.join("live"), root.join("releases/5")]);
        assert_eq!(folders(&root.join("current/tls/chain.pem")), expected);
        symlink("loop", root.join("loop")).unwrap();
        assert_eq!(folders(&root.join("loop")).len(), 1, "a link to itself ends the search");
    }
}
