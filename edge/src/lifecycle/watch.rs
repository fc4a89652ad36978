//! Notices that the files behind a running edge have changed.
//!
//! It looks at them every two seconds instead of asking the system to tell (inotify and its like): a look at a few dozen files costs
//! microseconds, and it is right on every file system, also on those that tell nothing (NFS, overlays, a directory that was mounted anew), for
//! a file that is replaced by another one of its name, and for links that are switched, as Kubernetes does with what it mounts. What has changed
//! is used once it has stayed the same for a whole period, so that a file is not read while somebody writes it.
//!
//! It looks on a thread of its own: where a file system hangs, looking ends when that does, and meanwhile there is no second look and everything else
//! goes on.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::Duration;

use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Instant, sleep_until};

/// From one look to the next. An operator who has changed a file waits for it, with patience for a few of these.
const PERIOD: Duration = Duration::from_secs(2);

/// What a file is known by, as long as nobody changes it: device, inode, length, and when its bytes and it itself were changed. Nothing when it is not
/// there, or may not be looked at.
type Stamp = Option<(u64, u64, u64, [i64; 4])>;

type Look = BTreeMap<PathBuf, Stamp>;

fn look(files: Vec<PathBuf>) -> Look {
    let stamp = |file: &PathBuf| {
        let found = fs::metadata(file).ok()?;
        let changed = [
            found.mtime(),
            found.mtime_nsec(),
            found.ctime(),
            found.ctime_nsec(),
        ];
        Some((found.dev(), found.ino(), found.len(), changed))
    };
    files
        .into_iter()
        .map(|file| {
            let stamp = stamp(&file);
            (file, stamp)
        })
        .collect()
}

/// The files as they were when they were last read.
#[derive(Debug)]
pub(super) struct Watch {
    used: Look,
    /// A look that was not like `used`, until it is used or another one was not like it.
    changed: Option<Look>,
    next: Instant,
    /// The look that is under way.
    looking: Option<JoinHandle<Look>>,
    /// Files were read since that look began: what it says is old.
    is_old: bool,
    look: fn(Vec<PathBuf>) -> Look,
}

impl Watch {
    /// Watches what is read at this moment.
    ///
    /// The first look is at once: a program has the thread for it from its beginning, and no more threads later.
    pub(super) fn new(files: Vec<PathBuf>) -> Self {
        Self {
            next: Instant::now(),
            ..Self::looking_by(look, files)
        }
    }

    fn looking_by(look: fn(Vec<PathBuf>) -> Look, files: Vec<PathBuf>) -> Self {
        Self {
            used: look(files),
            changed: None,
            next: Instant::now() + PERIOD,
            looking: None,
            is_old: false,
            look,
        }
    }

    /// Resolves when a change has settled. Can be dropped and asked again. Whether what has changed can be used or not, it is said once.
    pub(super) async fn changed(&mut self) {
        loop {
            let looking = match &mut self.looking {
                Some(looking) => looking,
                None => {
                    sleep_until(self.next).await;
                    self.next = Instant::now() + PERIOD;
                    self.is_old = false;
                    let (look, files) = (self.look, self.files());
                    self.looking.insert(spawn_blocking(move || look(files)))
                }
            };
            let looked = looking.await;
            self.looking = None;
            if let Ok(now) = looked
                && !self.is_old
                && self.step(now)
            {
                return;
            }
        }
    }

    fn files(&self) -> Vec<PathBuf> {
        self.used.keys().cloned().collect()
    }

    /// Whether what was found now is a change that has settled.
    fn step(&mut self, now: Look) -> bool {
        if now == self.used {
            self.changed = None;
            return false;
        }
        if self.changed.as_ref() == Some(&now) {
            self.used = now;
            self.changed = None;
            return true;
        }
        self.changed = Some(now);
        false
    }

    /// To be called before files are read for another reason: what is there now is what will be read.
    pub(super) fn about_to_read(&mut self) {
        self.used = (self.look)(self.files());
        self.changed = None;
        self.is_old = true;
    }

    /// From now on these are the files. What was watched before is known as it was read, so that nothing that has changed since is missed.
    pub(super) fn set_files(&mut self, files: Vec<PathBuf>) {
        let mut next = (self.look)(files);
        for (file, stamp) in &mut next {
            if let Some(read) = self.used.get(file) {
                *stamp = *read;
            }
        }
        self.used = next;
        self.changed = None;
        self.is_old = true;
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Condvar, Mutex};

    use super::*;

    fn step(watch: &mut Watch) -> bool {
        let now = look(watch.files());
        watch.step(now)
    }

    #[test]
    fn a_change_is_told_once_and_when_it_has_settled() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("edge.toml");
        fs::write(&file, "a").unwrap();
        let mut watch = Watch::new(vec![file.clone()]);
        assert!(!step(&mut watch));
        // Somebody writes it, in pieces.
        for text in ["ab", "abc", "abcd"] {
            fs::write(&file, text).unwrap();
            assert!(!step(&mut watch), "{text}");
        }
        assert!(step(&mut watch));
        assert!(!step(&mut watch) && !step(&mut watch));
        let moved = directory.path().join("moved");
        fs::rename(&file, &moved).unwrap();
        assert!(!step(&mut watch));
        assert!(step(&mut watch));
        assert!(!step(&mut watch));
    }

    #[test]
    fn replacing_removing_and_switching_a_link_are_changes() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        for name in ["one", "other"] {
            fs::write(at(name), "same").unwrap();
        }
        std::os::unix::fs::symlink(at("one"), at("link")).unwrap();
        let mut watch = Watch::new(vec![at("file"), at("link")]);
        let told = |watch: &mut Watch| !step(watch) && step(watch) && !step(watch);
        // It was not there.
        fs::write(at("file"), "same").unwrap();
        assert!(told(&mut watch));
        // Same length, another file.
        fs::write(at("new"), "same").unwrap();
        fs::rename(at("new"), at("file")).unwrap();
        assert!(told(&mut watch));
        std::os::unix::fs::symlink(at("other"), at("switched")).unwrap();
        fs::rename(at("switched"), at("link")).unwrap();
        assert!(told(&mut watch));
        fs::remove_file(at("file")).unwrap();
        assert!(told(&mut watch));
    }

    #[test]
    fn what_is_read_for_another_reason_is_not_told_again_and_what_comes_later_is() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        fs::write(at("a"), "1").unwrap();
        let mut watch = Watch::new(vec![at("a")]);
        fs::write(at("a"), "12").unwrap();
        assert!(!step(&mut watch));
        watch.about_to_read();
        // It changes while it is read, and names another file.
        fs::write(at("a"), "123").unwrap();
        fs::write(at("b"), "1").unwrap();
        watch.set_files(vec![at("a"), at("b")]);
        assert!(!step(&mut watch));
        assert!(step(&mut watch));
        fs::write(at("b"), "12").unwrap();
        assert!(!step(&mut watch));
        assert!(step(&mut watch));
    }

    /// Looks that have begun.
    static LOOKS: AtomicUsize = AtomicUsize::new(0);
    static HANGS: Mutex<bool> = Mutex::new(false);
    static GOES_ON: Condvar = Condvar::new();

    fn look_that_hangs(files: Vec<PathBuf>) -> Look {
        LOOKS.fetch_add(1, Ordering::SeqCst);
        let hangs = HANGS.lock().unwrap();
        drop(GOES_ON.wait_while(hangs, |hangs| *hangs).unwrap());
        look(files)
    }

    #[tokio::test(start_paused = true)]
    async fn a_file_system_that_hangs_holds_up_one_look_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("edge.toml");
        let mut watch = Watch::looking_by(look_that_hangs, vec![file.clone()]);
        assert_eq!(LOOKS.load(Ordering::SeqCst), 1);
        fs::write(&file, "a").unwrap();
        *HANGS.lock().unwrap() = true;
        for _ in 0..5 {
            // Another branch, as that of a signal, is served meanwhile.
            tokio::select! {
                () = watch.changed() => panic!("it has not looked yet"),
                () = tokio::time::advance(PERIOD) => {}
            }
        }
        let looking = watch.looking.as_ref().unwrap();
        assert!(!looking.is_finished());
        *HANGS.lock().unwrap() = false;
        GOES_ON.notify_all();
        watch.changed().await;
        // The one that hung has seen the change, and another one that it has settled.
        assert_eq!(LOOKS.load(Ordering::SeqCst), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_look_from_before_files_were_read_is_not_believed() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("edge.toml");
        fs::write(&file, "a").unwrap();
        let mut watch = Watch::new(vec![file.clone()]);
        let old = [(file.clone(), None)].into();
        watch.looking = Some(spawn_blocking(move || old));
        watch.about_to_read();
        watch.set_files(vec![file]);
        let ten = tokio::time::sleep(10 * PERIOD);
        tokio::select! {
            () = watch.changed() => panic!("nothing has changed"),
            () = ten => {}
        }
        assert_eq!(watch.changed, None);
    }
}
