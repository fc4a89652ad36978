//! Things in place of history files that no edge has put there: not followed, not waited for, and in nobody's way for long.

use std::os::unix::fs::{DirBuilderExt, symlink};
use std::time::SystemTime;

use rustix::fs::{CWD, FileType, Mode, mknodat};

use super::commands::{Side, command, json};
use super::*;

/// What stands in place of a file.
#[derive(Clone, Copy, Debug)]
enum Thing {
    Pipe,
    Directory,
    File,
    Link,
}

const NO_FILES: [Thing; 3] = [Thing::Pipe, Thing::Directory, Thing::Link];

const NO_DIRECTORIES: [Thing; 3] = [Thing::Pipe, Thing::File, Thing::Link];

/// Puts a thing in place of what is at `path`, if anything is. A link leads to `outside`.
fn put(thing: Thing, path: &Path, outside: &Path) {
    if path.is_dir() {
        std::fs::remove_dir_all(path).unwrap();
    } else if path.exists() {
        std::fs::remove_file(path).unwrap();
    }
    match thing {
        Thing::Pipe => mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap(),
        Thing::Directory => {
            let below = path.join("some/thing");
            std::fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(below)
                .unwrap();
        }
        Thing::File => std::fs::write(path, "something").unwrap(),
        Thing::Link => symlink(outside, path).unwrap(),
    }
}

/// The directories of the domains in a history directory.
fn domains(directory: &Path) -> Vec<PathBuf> {
    let all = std::fs::read_dir(directory).unwrap();
    all.map(|entry| entry.unwrap().path())
        .filter(|path| path.is_dir() && path.file_name().is_some_and(|name| name.len() == 32))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_file_of_ours_is_in_nobodys_way() {
    let (mut pair, origin) = measured("", "").await;
    let file = File::random(&origin, 80, 2);
    let outside = pair.scratch().join("outside");
    std::fs::write(&outside, "theirs").unwrap();
    let rounds: [&[&str]; 3] = [
        // Of the log's files, those beside the manifest; then the manifest; then all of it.
        &["0000000000.seg", "0000000000.idx", "manifest.new"],
        &["manifest"],
        &[""],
    ];
    for thing in NO_FILES {
        for names in rounds {
            file.cost(&pair).await;
            stop_written(&mut pair).await;
            for directory in directories(&pair) {
                for name in ["rooms", "rooms.new"] {
                    put(thing, &directory.join(name), &outside);
                }
                for domain in domains(&directory) {
                    for (log, name) in ["own", "mirror"]
                        .iter()
                        .flat_map(|log| names.iter().map(move |name| (log, name)))
                    {
                        let path = domain.join(log).join(name);
                        put(
                            thing,
                            Path::new(path.to_str().unwrap().trim_end_matches('/')),
                            &outside,
                        );
                    }
                }
            }
            restart_both(&mut pair).await;
            file.cost(&pair).await;
            file.is_warm(&pair).await;
            written(&pair).await;
            for edge in [pair.client(), pair.server()] {
                let log = edge.log();
                assert!(!log.contains("panicked"), "{thing:?} {names:?}: {log}");
                assert!(
                    !log.contains("cannot be written to disk"),
                    "{thing:?} {names:?}: {log}"
                );
            }
            // It is on disk, in files of ours.
            restart_both(&mut pair).await;
            file.is_warm(&pair).await;
        }
    }
    assert_eq!(std::fs::read(&outside).unwrap(), b"theirs");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_directory_of_ours_is_named_and_left_alone() {
    let (mut pair, origin) = measured("", "").await;
    let file = File::random(&origin, 81, 2);
    let [server, client] = directories(&pair);
    file.cost(&pair).await;
    stop_both(&mut pair).await;
    let [domain] = domains(&server).try_into().unwrap();
    put(Thing::Pipe, &domain, Path::new(""));
    let lock = client.join("lock");
    put(Thing::Directory, &lock, Path::new(""));
    pair.restart_server().await.unwrap();
    pair.restart_client().await.unwrap();
    settled(&pair).await;
    file.cost(&pair).await;
    file.is_warm(&pair).await;
    for (edge, says, path) in [
        (pair.server(), "a history cannot be opened", &domain),
        (pair.client(), "histories are in memory", &lock),
    ] {
        assert_eq!(logged(edge, says), 1, "{}", edge.log());
        let named = edge.log();
        let line = named.lines().find(|line| line.contains(says)).unwrap();
        assert!(line.contains(path.to_str().unwrap()), "{line}");
    }
    assert!(lock.join("some/thing").is_dir() && domain.exists());
    stop_both(&mut pair).await;
    std::fs::remove_file(domain).unwrap();
    std::fs::remove_dir_all(lock).unwrap();
    restart_both(&mut pair).await;
    file.cost(&pair).await;
    restart_written(&mut pair).await;
    file.is_warm(&pair).await;
}

/// The histories of a stopped server, and what the commands say of them.
struct Stopped<'p> {
    pair: &'p Pair,
    directory: PathBuf,
    /// As the server has left it.
    snapshot: PathBuf,
    outside: PathBuf,
}

impl Stopped<'_> {
    /// Puts things in place of logs of the only domain, and nothing else is strange.
    fn put(&self, thing: Thing, logs: &[&str]) {
        std::fs::remove_dir_all(&self.directory).unwrap();
        copy(&self.snapshot, &self.directory);
        let [domain] = domains(&self.directory).try_into().unwrap();
        for log in logs {
            put(thing, &domain.join(log), &self.outside);
        }
    }

    /// Exit code and JSON of a command, which says at most a line for each log and one for itself.
    async fn says(&self, word: &str, logs: &[&str]) -> (Option<i32>, Value) {
        let output = command(self.pair, Side::Server, &[word, "--json"], None).await;
        // The last one is why it failed.
        assert!(
            output.stderr.lines().count() <= logs.len() + 1,
            "{output:?}"
        );
        (output.code, json(&output))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_of_a_stopped_edge_that_are_no_directories_are_named_and_healed() {
    let (mut pair, origin) = measured("", "").await;
    let file = File::random(&origin, 87, 2);
    file.cost(&pair).await;
    stop_written(&mut pair).await;
    let [directory, _] = directories(&pair);
    let [domain] = domains(&directory).try_into().unwrap();
    let domain = domain.file_name().unwrap().to_str().unwrap().to_owned();
    let snapshot = pair.scratch().join("snapshot");
    copy(&directory, &snapshot);
    // Links lead to a log that is as good as ours.
    let outside = snapshot.join(&domain).join("own");
    let before: Vec<_> = files(&snapshot)
        .iter()
        .map(std::fs::read)
        .map(Result::unwrap)
        .collect();
    let stopped = Stopped {
        pair: &pair,
        directory,
        snapshot: snapshot.clone(),
        outside,
    };
    for thing in NO_DIRECTORIES {
        for logs in [&["own"][..], &["mirror"], &["mirror", "own"]] {
            // Of whom a domain is, the log that is left says.
            let known = usize::from(logs.len() == 1);
            let why = format!("{thing:?} {logs:?}");
            stopped.put(thing, logs);
            let (code, stats) = stopped.says("stats", logs).await;
            assert_eq!(
                (code, stats["domains"].as_array().unwrap().len()),
                (Some(0), known),
                "{why} {stats}"
            );

            stopped.put(thing, logs);
            let manifests: Vec<_> = logs
                .iter()
                .map(|log| format!("{domain}/{log}/manifest"))
                .collect();
            let (code, found) = stopped.says("verify", logs).await;
            assert_eq!(
                (code, &found["damaged_manifests"]),
                (Some(1), &serde_json::json!(manifests)),
                "{why} {found}"
            );
            let (code, found) = stopped.says("verify", logs).await;
            // What is nobody's the edge heals.
            assert_eq!(
                code,
                Some(1 - i32::try_from(known).unwrap()),
                "{why} {found}"
            );

            stopped.put(thing, logs);
            let (code, cleared) = stopped.says("clear", logs).await;
            assert_eq!(
                (code, cleared["cleared"].as_array().unwrap().len()),
                (Some(0), known),
                "{why} {cleared}"
            );
            assert_eq!(cleared["failed"], serde_json::json!([]), "{why}");
        }
    }
    let after: Vec<_> = files(&snapshot)
        .iter()
        .map(std::fs::read)
        .map(Result::unwrap)
        .collect();
    assert!(before == after, "somebody wrote through a link");
    stopped.put(Thing::File, &["mirror", "own"]);
    restart_both(&mut pair).await;
    file.cost(&pair).await;
    restart_written(&mut pair).await;
    file.is_warm(&pair).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_another_machine_give_nothing_and_take_nothing() {
    let size = "[history]\nsize = \"256MiB\"\n";
    let (mut pair, origin) = measured(size, size).await;
    let (mut others, their_origin) = measured(size, size).await;
    let (file, theirs) = (
        File::random(&origin, 82, 4),
        File::random(&their_origin, 83, 4),
    );
    file.cost(&pair).await;
    theirs.cost(&others).await;
    stop_written(&mut pair).await;
    stop_written(&mut others).await;
    let [server, _] = directories(&pair);
    let [their_server, their_client] = directories(&others);
    // Of the same names: another server's history with its own branch-1.
    std::fs::remove_dir_all(&server).unwrap();
    copy(&their_server, &server);
    restart_both(&mut pair).await;
    let theirs = File::random(&origin, 83, 4);
    for file in [&theirs, &file] {
        let cold = file.cost(&pair).await;
        assert!(cold >= file.len(), "of {} bytes {cold} came", file.len());
        file.is_warm(&pair).await;
    }
    // A client's history at a server: all the room is that of a peer which never comes.
    stop_both(&mut pair).await;
    std::fs::remove_dir_all(&server).unwrap();
    copy(&their_client, &server);
    restart_both(&mut pair).await;
    file.cost(&pair).await;
    file.cost(&pair).await;
    assert_eq!(logged(pair.server(), "no room is left"), 1);
    let line = shared_with(pair.server(), CLIENT_NAME).await;
    assert_eq!(line["place"], "memory", "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn files_from_the_future_and_from_long_ago_are_as_good_as_others() {
    let (mut pair, origin) = measured("", "").await;
    let file = File::random(&origin, 84, 2);
    file.cost(&pair).await;
    let years = |count: u64| Duration::from_secs(count * 365 * 24 * 3600);
    let now = SystemTime::now();
    for (seed, time) in [(85, now + years(20)), (86, now - years(20))] {
        stop_written(&mut pair).await;
        for directory in directories(&pair) {
            for path in files(&directory) {
                let opened = std::fs::File::options().write(true).open(path).unwrap();
                opened.set_modified(time).unwrap();
            }
        }
        restart_both(&mut pair).await;
        file.is_warm(&pair).await;
        let next = File::random(&origin, seed, 2);
        next.cost(&pair).await;
        restart_written(&mut pair).await;
        next.is_warm(&pair).await;
    }
}
