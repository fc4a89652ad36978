//! Nobody takes more than is theirs: sizes, quotas, a full disk, and one directory for two programs.

use wanproxy_tests::skip;

use super::commands::{Side, command, json};
use super::*;

/// Has a small file system of its own until it is dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(at: &Path, mebibytes: u32) -> Result<Self, String> {
        std::fs::create_dir_all(at).map_err(|error| error.to_string())?;
        let options = format!("size={mebibytes}m,mode=0700");
        let mounted = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "tmpfs"])
            .arg(at)
            .output()
            .map_err(|error| error.to_string())?;
        if mounted.status.success() {
            Ok(Self(at.to_owned()))
        } else {
            Err(String::from_utf8_lossy(&mounted.stderr).trim().to_owned())
        }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: the edge that uses it ends later.
        let _gone = std::process::Command::new("umount")
            .arg("-l")
            .arg(&self.0)
            .status();
    }
}

/// Waits until the edge's histories are read-only, or are not any more.
async fn is_read_only(edge: &EdgeProcess, wanted: bool) {
    eventually("the disk is full, or not", async || {
        let status = edge.status_json().await.unwrap();
        if status["history"]["read_only"] == wanted {
            Ok(())
        } else {
            Err(edge.last_log_lines())
        }
    })
    .await;
}

/// Waits until the edge has said it so many times, which is a moment after it is so, and not more often.
async fn is_said(edge: &EdgeProcess, text: &str, times: usize) {
    eventually(text, async || {
        if logged(edge, text) >= times {
            Ok(())
        } else {
            Err(edge.last_log_lines())
        }
    })
    .await;
    assert_eq!(logged(edge, text), times, "{}", edge.log());
}

/// Waits until what has come is remembered.
pub(super) async fn is_remembered(file: &File, pair: &Pair) {
    eventually("new bytes are remembered again", async || {
        file.cost(pair).await;
        let cost = file.cost(pair).await;
        if cost <= file.len() / 100 {
            Ok(())
        } else {
            Err(cost)
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_said_once_and_streams_go_on() {
    let place = tempfile::tempdir().unwrap();
    let disk = place.path().join("disk");
    // Without the ballast there is room for all that may wait in memory by then.
    let _mounted = match SmallDisk::mount(&disk, 64) {
        Ok(mounted) => mounted,
        Err(why) => return skip("histories on a full disk", &why),
    };
    let ballast = disk.join("ballast");
    std::fs::write(&ballast, vec![1; 56 << 20]).unwrap();
    let config = format!(
        "[history]\ndirectory = \"{}\"\nsize = \"256MiB\"\n",
        disk.join("history").display()
    );
    let (pair, origin) = measured("", &config).await;
    for seed in 30..34 {
        File::random(&origin, seed, 8).cost(&pair).await;
    }
    is_read_only(pair.client(), true).await;
    let warning = "cannot be written to disk";
    is_said(pair.client(), warning, 1).await;
    // The other side has room, and knows that this one takes nothing.
    File::random(&origin, 35, 8).cost(&pair).await;
    std::fs::remove_file(&ballast).unwrap();
    is_read_only(pair.client(), false).await;
    is_said(pair.client(), "written to disk again", 1).await;
    is_said(pair.client(), warning, 1).await;
    let file = File::random(&origin, 36, 2);
    is_remembered(&file, &pair).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_is_full_at_the_end_and_at_the_start_loses_nothing_and_can_be_emptied() {
    let place = tempfile::tempdir().unwrap();
    let disk = place.path().join("disk");
    let _mounted = match SmallDisk::mount(&disk, 16) {
        Ok(mounted) => mounted,
        Err(why) => return skip("histories on a disk that is full at the start", &why),
    };
    let config = format!(
        "[history]\ndirectory = \"{}\"\nsize = \"256MiB\"\n",
        disk.join("history").display()
    );
    let (mut pair, origin) = measured("", &config).await;
    let file = File::random(&origin, 37, 4);
    file.cost(&pair).await;
    written(&pair).await;
    for seed in 38..40 {
        File::random(&origin, seed, 8).cost(&pair).await;
    }
    is_read_only(pair.client(), true).await;
    restart_both(&mut pair).await;
    file.is_warm(&pair).await;
    // What was in memory only at the end may have found room, and then nothing is waiting for any.
    File::random(&origin, 42, 8).cost(&pair).await;
    is_read_only(pair.client(), true).await;
    is_said(pair.client(), "cannot be written to disk", 2).await;
    let admin = Some(pair.client().admin_address().unwrap());
    let verified = command(&pair, Side::Client, &["verify", "--json"], admin).await;
    assert_eq!(json(&verified)["damaged_pages"], 0, "{verified:?}");
    // What takes the room is what is forgotten.
    let cleared = command(&pair, Side::Client, &["clear"], admin).await;
    assert_eq!(cleared.code, Some(0), "{cleared:?}");
    is_read_only(pair.client(), false).await;
    let small = File::random(&origin, 41, 1);
    is_remembered(&small, &pair).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_commands_on_a_stopped_edge_need_no_room_on_its_disk() {
    let place = tempfile::tempdir().unwrap();
    let disk = place.path().join("disk");
    let _mounted = match SmallDisk::mount(&disk, 32) {
        Ok(mounted) => mounted,
        Err(why) => return skip("commands on a full disk", &why),
    };
    let directory = disk.join("history");
    let config = format!(
        "[history]\ndirectory = \"{}\"\nsize = \"256MiB\"\n",
        directory.display()
    );
    let (mut pair, origin) = measured("", &config).await;
    let file = File::random(&origin, 44, 4);
    file.cost(&pair).await;
    written(&pair).await;
    stop_both(&mut pair).await;
    let mut ballast = std::fs::File::create(disk.join("ballast")).unwrap();
    let full = std::io::copy(&mut std::io::repeat(1), &mut ballast).unwrap_err();
    assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
    let run = async |words: &[&str]| command(&pair, Side::Client, words, None).await;
    let verified = run(&["verify", "--json"]).await;
    assert_eq!(verified.code, Some(0), "{verified:?}");
    assert_eq!(verified.stderr, "");
    let found = json(&verified);
    assert_eq!(found["damaged_pages"], 0);
    assert!(
        found["checked_bytes"].as_u64().unwrap() >= file.len(),
        "{found}"
    );
    let stats = run(&["stats", "--json"]).await;
    assert_eq!(stats.code, Some(0), "{stats:?}");
    // What is damaged is told, and so is that it cannot be noted.
    let segment = files(&directory)
        .into_iter()
        .filter(|path| path.extension().is_some_and(|end| end == "seg"))
        .max_by_key(|path| std::fs::metadata(path).unwrap().len())
        .unwrap();
    let opened = std::fs::File::options().write(true).open(segment).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&opened, b"damage", 1 << 20).unwrap();
    let verified = run(&["verify"]).await;
    assert_eq!(verified.code, Some(1), "{verified:?}");
    assert!(
        verified.stdout.contains("1 page of 64 KiB was damaged"),
        "{verified:?}"
    );
    assert!(verified.stderr.contains("cannot be noted"), "{verified:?}");
    let cleared = run(&["clear"]).await;
    assert_eq!(cleared.code, Some(0), "{cleared:?}");
    assert_eq!(
        json(&run(&["stats", "--json"]).await)["domains"],
        serde_json::json!([])
    );
    drop(ballast);
    std::fs::remove_file(disk.join("ballast")).unwrap();
    restart_both(&mut pair).await;
    is_remembered(&file, &pair).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_are_held_to_their_quotas_and_the_rest_is_left_alone() {
    let quotas = "[history]\nsize = \"256MiB\"\n[[client]]\nname = \"branch-*\"\nallow = [\"127.0.0.1:*\"]\nhistory = \"12MiB\"\n";
    let (pair, origin) = measured(quotas, "").await;
    let mut clients = Vec::new();
    for name in ["branch-2", "branch-3"] {
        let client = pair.start_client(name, &listener(&origin)).await.unwrap();
        eventually("its tunnel has its histories", async || {
            let here = shared_with(&client, "server").await;
            let there = shared_with(pair.server(), name).await;
            if here["in_use"] == true && there["in_use"] == true {
                Ok(())
            } else {
                Err(format!("client {here}, server {there}"))
            }
        })
        .await;
        clients.push(client);
    }
    for seed in 40..43 {
        let file = File::random(&origin, seed, 8);
        file.cost(&pair).await;
        for client in &clients {
            file.fetch_from(client.address("http").unwrap()).await;
        }
    }
    written(&pair).await;
    for peer in [CLIENT_NAME, "branch-2", "branch-3"] {
        let line = shared_with(pair.server(), peer).await;
        let number = |key: &str| line[key].as_u64().unwrap();
        assert!(number("capacity_bytes") <= 12 * MEBIBYTE, "{line}");
        assert!(
            number("own_bytes") + number("mirror_bytes") <= 12 * MEBIBYTE,
            "{line}"
        );
        assert!(number("disk_bytes") <= 13 * MEBIBYTE, "{line}");
        assert!(
            number("own_bytes") >= 2 * MEBIBYTE,
            "nothing is kept: {line}"
        );
    }
    // What fits is remembered, once what it takes the place of has gone.
    let small = File::random(&origin, 43, 2);
    eventually("what fits is remembered", async || {
        let cost = small.cost(&pair).await;
        if cost <= small.len() / 100 {
            Ok(())
        } else {
            Err(cost)
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_smaller_size_takes_effect_while_it_runs() {
    let (pair, origin) = measured("[history]\nsize = \"256MiB\"\n", "").await;
    for seed in 50..54 {
        File::random(&origin, seed, 8).cost(&pair).await;
    }
    let config = pair.server().config().to_owned();
    let text = std::fs::read_to_string(&config).unwrap();
    let smaller = text.replace("\"256MiB\"", "\"32MiB\"");
    assert_ne!(text, smaller);
    std::fs::write(&config, smaller).unwrap();
    pair.server().signal(Signal::HUP).unwrap();
    let mut seed = 54;
    eventually("the server has given up what is too much", async || {
        // Traffic, by which both sides agree on what goes.
        File::random(&origin, seed, 1).cost(&pair).await;
        seed += 1;
        let status = pair.server().status_json().await.unwrap();
        let history = &status["history"];
        let (bytes, capacity) = (&history["bytes"], &history["capacity_bytes"]);
        if *capacity == 32 * MEBIBYTE && bytes.as_u64().unwrap() <= 32 * MEBIBYTE {
            Ok(())
        } else {
            Err(status)
        }
    })
    .await;
    // Nothing is kept while both sides agree on what goes for it.
    is_remembered(&File::random(&origin, 99, 2), &pair).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_second_program_on_a_directory_works_in_memory_and_says_who_has_it() {
    let (pair, origin) = measured("", "").await;
    let [_, directory] = directories(&pair);
    let extra = format!(
        "{}[history]\ndirectory = \"{}\"\n",
        listener(&origin),
        directory.display()
    );
    let second = pair.start_client("branch-2", &extra).await.unwrap();
    let pid = pair.client().id().unwrap().to_string();
    let status = second.status_json().await.unwrap();
    let excuse = status["history"]["excuse"].as_str().unwrap();
    assert!(
        excuse.contains("in use") && excuse.contains(&pid),
        "{excuse}"
    );
    assert_eq!(logged(&second, "histories are in memory"), 1);
    let file = File::random(&origin, 60, 4);
    for _ in 0..2 {
        file.fetch_from(second.address("http").unwrap()).await;
    }
    file.cost(&pair).await;
    file.is_warm(&pair).await;
}
