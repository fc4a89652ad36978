#![expect(clippy::unwrap_used, reason = "tests")]

use std::path::Path;

use super::*;

fn histories(size_bytes: u64, lean: Lean) -> Histories {
    Histories::new(HistoriesConfig {
        lean,
        size_bytes,
        small_bytes: 16 << 20,
        index_bytes: size_bytes / 8,
        cache_bytes: 0,
        quota_of: Arc::new(|_| None),
        home: Home::Memory { excuse: None },
    })
}

fn found(histories: &Histories, peer: &str, name: &str) -> Option<Arc<Domain>> {
    match histories.look_up(peer, name) {
        Lookup::Found(domain) => Some(domain),
        Lookup::Refused | Lookup::OnDisk => None,
    }
}

#[test]
fn the_same_peer_and_name_give_the_same_histories() {
    let histories = histories(64 << 20, Lean::Sending);
    let first = found(&histories, "a", "").unwrap();
    assert!(Arc::ptr_eq(&first, &found(&histories, "a", "").unwrap()));
    assert!(Arc::ptr_eq(
        &first,
        &found(&histories, "a", "shared").unwrap()
    ));
    assert!(!Arc::ptr_eq(&first, &found(&histories, "b", "").unwrap()));
    assert!(!Arc::ptr_eq(
        &first,
        &found(&histories, "a", "c:files").unwrap()
    ));
}

#[test]
fn a_peer_that_invents_names_gets_no_more_than_its_number() {
    let histories = histories(64 << 20, Lean::Sending);
    let made = (0..100)
        .filter_map(|n| found(&histories, "a", &format!("c:{n}")))
        .count();
    assert_eq!(made, rooms::DOMAINS_PER_PEER_MAX);
    assert!(found(&histories, "b", "").is_some());
}

/// Histories in a directory below `place`, as a program that starts opens them.
fn on_disk(place: &Path, size_bytes: u64, quota_of: QuotaOf) -> Result<Histories, OpenError> {
    let directory = OpenDirectory::open(&place.join("history"))?;
    Ok(Histories::new(HistoriesConfig {
        size_bytes,
        small_bytes: 16 << 20,
        index_bytes: size_bytes / 8,
        cache_bytes: 8 << 20,
        quota_of,
        home: Home::Disk(directory),
        ..HistoriesConfig::in_memory(Lean::Sending, size_bytes)
    }))
}

fn rooms(histories: &Histories) -> Vec<(String, String, u64)> {
    let all = histories.reports().into_iter();
    all.map(|report| (report.peer, report.name, report.room_bytes))
        .collect()
}

fn nobody() -> QuotaOf {
    Arc::new(|_| None)
}

#[test]
fn rooms_are_found_again_before_their_peers_come() {
    let place = tempfile::tempdir().unwrap();
    let before = {
        let histories = on_disk(place.path(), 1 << 30, nobody()).unwrap();
        for (peer, name) in [("a", ""), ("b", ""), ("a", "c:files")] {
            assert!(matches!(histories.look_up(peer, name), Lookup::OnDisk));
            histories.open_now(&key(peer, name)).unwrap();
        }
        histories.flush_now().unwrap();
        rooms(&histories)
    };
    let histories = on_disk(place.path(), 1 << 30, nobody()).unwrap();
    assert_eq!(rooms(&histories), before);
    assert!(histories.reports().iter().all(|report| !report.is_open));
    histories.open_now(&key("a", "shared")).unwrap();
    assert_eq!(rooms(&histories), before, "nothing was reserved twice");
    drop(histories);
    // The size was changed meanwhile.
    let histories = on_disk(place.path(), 1 << 29, nobody()).unwrap();
    for ((.., now), (.., then)) in rooms(&histories).iter().zip(&before) {
        assert!(now.abs_diff(then / 2) < 16, "{now} of {then}");
    }
    histories.flush_now().unwrap();
    drop(histories);
    // Without the file of rooms the manifests count.
    std::fs::remove_file(place.path().join("history/rooms")).unwrap();
    let histories = on_disk(place.path(), 1 << 30, nobody()).unwrap();
    assert_eq!(rooms(&histories).len(), before.len());
    let sum: u64 = rooms(&histories).iter().map(|(.., bytes)| bytes).sum();
    assert!(sum <= 1 << 30, "{sum}");
}

#[test]
fn a_quota_counts_on_disk_and_after_a_change_of_the_configuration() {
    let place = tempfile::tempdir().unwrap();
    let quota = |bytes: u64| -> QuotaOf { Arc::new(move |peer| (peer == "a").then_some(bytes)) };
    let histories = on_disk(place.path(), 1 << 30, quota(64 << 20)).unwrap();
    let domain = histories.open_now(&key("a", "")).unwrap();
    assert_eq!(domain.stats().capacity_bytes, (64 << 20) / 8 * 7);
    histories.resize_now(1 << 30, quota(32 << 20));
    assert_eq!(domain.stats().capacity_bytes, (32 << 20) / 8 * 7);
    histories.flush_now().unwrap();
    drop((histories, domain));
    let histories = on_disk(place.path(), 1 << 30, quota(16 << 20)).unwrap();
    assert_eq!(
        rooms(&histories),
        [("a".to_owned(), "shared".to_owned(), (16 << 20) / 8 * 7)]
    );
}

#[test]
fn a_directory_has_one_program_at_a_time() {
    let place = tempfile::tempdir().unwrap();
    let first = on_disk(place.path(), 1 << 30, nobody()).unwrap();
    match on_disk(place.path(), 1 << 30, nobody()) {
        Err(OpenError::InUse { pid, .. }) => assert_eq!(pid, Some(std::process::id())),
        other => panic!("{other:?}"),
    }
    drop(first);
    on_disk(place.path(), 1 << 30, nobody()).unwrap();
}

#[test]
fn clearing_frees_the_room_of_those_who_have_not_come() {
    let place = tempfile::tempdir().unwrap();
    {
        let histories = on_disk(place.path(), 1 << 30, nobody()).unwrap();
        histories.open_now(&key("gone", "")).unwrap();
        histories.open_now(&key("here", "")).unwrap();
        histories.flush_now().unwrap();
    }
    let histories = on_disk(place.path(), 1 << 30, nobody()).unwrap();
    let domain = histories.open_now(&key("here", "")).unwrap();
    let lease = domain.try_lease().unwrap();
    let cleared = histories.clear_now(Some("nobody"));
    assert_eq!(cleared, Cleared::default());
    let cleared = histories.clear_now(None);
    assert_eq!(cleared.failed, [""; 0]);
    assert_eq!(
        cleared.done.len() + cleared.under_way.len(),
        2,
        "{cleared:?}"
    );
    assert!(cleared.done.contains(&"gone shared".to_owned()));
    let left: Vec<String> = rooms(&histories)
        .into_iter()
        .map(|(peer, ..)| peer)
        .collect();
    assert_eq!(left, ["here"]);
    drop(lease);
    let directories = std::fs::read_dir(place.path().join("history")).unwrap();
    let domains = directories
        .filter(|entry| entry.as_ref().unwrap().path().is_dir())
        .count();
    assert_eq!(domains, 1);
}

#[test]
fn a_hundred_peers_have_what_is_theirs_and_indexes_keep_to_their_memory() {
    let place = tempfile::tempdir().unwrap();
    let size_bytes = 1 << 30;
    let index_bytes = 1 << 20;
    let open = || {
        let directory = OpenDirectory::open(&place.path().join("history")).unwrap();
        Histories::new(HistoriesConfig {
            index_bytes,
            cache_bytes: 8 << 20,
            quota_of: Arc::new(|_| Some(8 << 20)),
            home: Home::Disk(directory),
            ..HistoriesConfig::in_memory(Lean::Sending, size_bytes)
        })
    };
    for _start in 0..2 {
        let histories = open();
        let mut capacity_bytes = 0;
        for n in 0..100 {
            let domain = histories
                .open_now(&key(&format!("branch-{n}"), ""))
                .unwrap();
            assert_eq!(domain.stats().capacity_bytes, (8 << 20) / 8 * 7);
            capacity_bytes += domain.stats().capacity_bytes;
        }
        assert!(capacity_bytes <= size_bytes);
        assert!(
            histories.stats().index_bytes <= index_bytes,
            "{}",
            histories.stats().index_bytes
        );
        histories.flush_now().unwrap();
    }
}

/// A pool of one thread, for as long as the test runs.
fn pool() -> Pool {
    let config = crate::pool::PoolConfig {
        name: "storage",
        threads: std::num::NonZeroUsize::MIN,
        queue_limit: std::num::NonZeroUsize::MIN,
        second_limit: None,
        thread_start: None,
    };
    Pool::start(&tokio::runtime::Handle::current(), config)
}

/// Waits until the keeper has nothing left to do.
async fn kept(histories: &Histories) {
    let waiting = async {
        loop {
            let reports = histories.reports();
            if !histories.stats().is_loading && reports.iter().all(|report| !report.is_dirty) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), waiting)
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_keeper_writes_what_is_opened_and_ends_with_the_program() {
    let place = tempfile::tempdir().unwrap();
    let pool = pool();
    let histories = Arc::new(on_disk(place.path(), 1 << 30, Arc::new(|_| Some(8 << 20))).unwrap());
    histories.start_keeper(&pool);
    for n in 0..20 {
        let opened = histories.open(&pool, &format!("branch-{n}"), "").await;
        assert!(opened.is_some());
    }
    kept(&histories).await;
    let keeper = pool.jobs();
    assert_eq!(keeper.len(), 1);
    assert_eq!(keeper[0].name.why, "keep");
    // What comes at the very end is written, too.
    histories.open(&pool, "late", "").await.unwrap();
    histories.close().await;
    assert!(histories.reports().iter().all(|report| !report.is_dirty));
    assert!(pool.jobs().is_empty());
    let found = codec::survey::survey(&*histories.disk.as_ref().unwrap().storage).unwrap();
    assert_eq!(found.len(), 21);
    pool.destroy(Duration::from_secs(10)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_verification_is_a_job_that_can_be_asked_about_after_its_end() {
    let place = tempfile::tempdir().unwrap();
    let pool = pool();
    let histories = Arc::new(on_disk(place.path(), 1 << 30, nobody()).unwrap());
    histories.open(&pool, "a", "").await.unwrap();
    for _ in 0..20 {
        let token = histories.verify(&pool).await.unwrap();
        let ended = async {
            loop {
                let all = histories.verifications();
                let one = all.iter().find(|one| one.token == token).unwrap();
                if let Some(state) = one.ended {
                    return state;
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let state = tokio::time::timeout(Duration::from_secs(60), ended).await;
        assert_eq!(state.unwrap(), crate::pool::JobState::Finished);
    }
    assert!(histories.verifications().len() <= 8, "they are bounded");
    pool.destroy(Duration::from_secs(10)).await;
    assert!(histories.verify(&pool).await.is_err());
}
