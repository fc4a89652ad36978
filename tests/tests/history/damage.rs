//! Whatever happens to the files: every byte arrives, the edges run, and somebody is told.

use std::io::{Read, Seek, SeekFrom, Write};

use super::*;

/// The kinds of files, by the ends of their names.
const KINDS: [&str; 5] = ["manifest", ".seg", ".idx", "rooms", "lock"];

/// Turns around bits of a file, at its start, in its middle and at its end.
fn flip(path: &Path) {
    let Some(mut file) = opened(path) else { return };
    let length = file.metadata().unwrap().len();
    for at in [0, length / 3, length / 2, length.saturating_sub(1)] {
        let mut byte = [0];
        file.seek(SeekFrom::Start(at)).unwrap();
        if file.read(&mut byte).unwrap() == 1 {
            file.seek(SeekFrom::Start(at)).unwrap();
            file.write_all(&[byte[0] ^ 0x55]).unwrap();
        }
    }
}

fn cut(path: &Path) {
    if let Some(file) = opened(path) {
        let length = file.metadata().unwrap().len();
        file.set_len(length / 2).unwrap();
    }
}

/// `None` for a file that the edge has removed meanwhile.
fn opened(path: &Path) -> Option<std::fs::File> {
    match std::fs::File::options().read(true).write(true).open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        opened => Some(opened.unwrap()),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_to_any_kind_of_file_costs_savings_and_nothing_else() {
    let (mut pair, origin) = measured("", "").await;
    let file = File::random(&origin, 20, 4);
    file.cost(&pair).await;
    for kind in KINDS {
        for damage in [flip, cut] {
            stop_written(&mut pair).await;
            for directory in directories(&pair) {
                let hit: Vec<PathBuf> = files(&directory)
                    .into_iter()
                    .filter(|path| path.to_string_lossy().ends_with(kind))
                    .collect();
                assert!(!hit.is_empty(), "there is no {kind}");
                hit.iter().for_each(|path| damage(path));
            }
            restart_both(&mut pair).await;
            file.cost(&pair).await;
            file.is_warm(&pair).await;
        }
    }
    // A log that was not understood was set aside, and that was said.
    for edge in [pair.client(), pair.server()] {
        assert!(logged(edge, "set aside") > 0, "{}", edge.last_log_lines());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_under_a_running_edge_costs_savings_and_nothing_else() {
    // Little memory, so that pages come from the disk again.
    let small = "[memory]\nbudget = \"16MiB\"\n[history]\nsize = \"256MiB\"\n";
    let (pair, origin) = measured(small, small).await;
    let file = File::random(&origin, 21, 32);
    file.cost(&pair).await;
    written(&pair).await;
    for directory in directories(&pair) {
        for path in files(&directory) {
            if path.to_string_lossy().ends_with(".seg") {
                flip(&path);
            }
        }
    }
    file.cost(&pair).await;
    let [server, client] = directories(&pair);
    for directory in [server, client] {
        for path in files(&directory) {
            cut(&path);
        }
    }
    file.cost(&pair).await;
    let damaged = async |edge: &EdgeProcess| {
        let metrics = edge.metrics().await.unwrap();
        metrics
            .sum("wanproxy_integrity_failures_total", &[])
            .unwrap()
    };
    let sum = damaged(pair.client()).await + damaged(pair.server()).await;
    assert!(sum > 0.0, "nobody noticed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_is_gone_is_made_again() {
    let (mut pair, origin) = measured("", "").await;
    let file = File::random(&origin, 22, 4);
    for index in 0..2 {
        file.cost(&pair).await;
        stop_both(&mut pair).await;
        std::fs::remove_dir_all(&directories(&pair)[index]).unwrap();
        restart_both(&mut pair).await;
        let again = file.cost(&pair).await;
        assert!(again >= file.len(), "sent from nowhere: {again} bytes");
        file.is_warm(&pair).await;
    }
    // And while they run: what is not in memory is lost, and nothing else. Nobody makes a file while it is removed.
    written(&pair).await;
    for directory in directories(&pair) {
        std::fs::remove_dir_all(directory).unwrap();
    }
    file.cost(&pair).await;
    let next = File::random(&origin, 23, 4);
    next.cost(&pair).await;
    next.cost(&pair).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_cannot_be_used_is_said_and_does_not_stop_the_edge() {
    let (mut pair, origin) = measured("", "").await;
    let file = File::random(&origin, 24, 2);
    stop_both(&mut pair).await;
    let [server, client] = directories(&pair);
    std::fs::remove_dir_all(&server).unwrap();
    std::fs::write(&server, "not a directory").unwrap();
    std::fs::set_permissions(&client, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    restart_both(&mut pair).await;
    file.cost(&pair).await;
    file.is_warm(&pair).await;
    for (edge, says) in [(pair.server(), "history"), (pair.client(), "chmod 700")] {
        assert_eq!(logged(edge, "histories are in memory"), 1);
        let status = edge.status_json().await.unwrap();
        assert_eq!(status["history"]["directory"], Value::Null);
        let excuse = status["history"]["excuse"].as_str().unwrap();
        assert!(excuse.contains(says), "{excuse}");
    }
}
