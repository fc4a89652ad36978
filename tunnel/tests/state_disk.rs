//! Tunnels whose histories are on disk: work that has to wait for it comes back, and nothing is lost, doubled or out of order.

#![expect(clippy::unwrap_used, reason = "tests")]

mod state_support;

use std::sync::Arc;
use std::time::Duration;

use codec::cache::PageCache;
use codec::domain::{Domain, DomainConfig, Place};
use codec::frame::DomainId;
use codec::fuzzing::disk::MemoryDisk;
use codec::storage::Storage;
use state_support::{Setting, World, send, spec};

const SHARED: Option<DomainId> = Some(DomainId::SHARED);
const LONG: Duration = Duration::from_secs(600);

/// Both ends' domains on one disk, with nothing in memory but what is still to be written.
fn domains(disk: &MemoryDisk, opening: u8) -> [Arc<Domain>; 2] {
    let storage: Arc<dyn Storage> = Arc::new(disk.clone());
    let cache = Arc::new(PageCache::new(0).with_unsaved_max(32 << 20, 64 << 20));
    [("client", 0), ("server", 1)].map(|(dir, side)| {
        let config = DomainConfig {
            own_capacity_bytes: 32 << 20,
            mirror_capacity_bytes: 32 << 20,
            index_capacity_bytes: 4 << 20,
            epoch: [2 * opening + side; 16],
        };
        let place = Place {
            storage: Arc::clone(&storage),
            dir: dir.into(),
            peer: "peer".to_owned(),
            name: String::new(),
            cache: Arc::clone(&cache),
        };
        let (domain, warnings) = Domain::open(config, place).unwrap();
        assert!(warnings.is_empty(), "{warnings:?}");
        while domain.load_index_step() {}
        Arc::new(domain)
    })
}

fn world(disk: &MemoryDisk, seed: u8) -> (World, [Arc<Domain>; 2]) {
    let domains = domains(disk, seed);
    let setting = Setting {
        seed: u64::from(seed),
        ..Setting::default()
    };
    let mut world = World::with_domains(setting, &domains);
    // Six streams: text that all share, text of their own and noise, one of each from both ends.
    for from in [0, 1, 0, 1, 0, 1] {
        world.open(from, spec(SHARED), send(400_000), send(300_000));
    }
    (world, domains)
}

fn flush(domains: &[Arc<Domain>; 2]) {
    for domain in domains {
        let flush = domain.flush();
        assert!(flush.error.is_none(), "{flush:?}");
    }
}

#[test]
fn work_that_has_to_wait_for_a_disk_comes_back_and_nothing_is_lost() {
    let disk = MemoryDisk::default();
    for opening in 1..4 {
        let (mut world, domains) = world(&disk, opening);
        world.run(LONG);
        world.assert_clean();
        let waited = world.ends.each_ref().map(|end| end.waited);
        let is_warm = opening > 1;
        assert_eq!(waited.map(|waited| waited > 0), [is_warm; 2], "{waited:?}");
        flush(&domains);
        let held = domains[0].stats().own_bytes;
        assert!(held < 4 << 20, "repeats are copies: {held}");
    }
}

#[test]
fn what_cannot_be_read_is_sent_again_and_nothing_is_lost() {
    let disk = MemoryDisk::default();
    let (mut first, kept) = world(&disk, 1);
    first.run(LONG);
    flush(&kept);
    drop((first, kept));
    for path in disk.files() {
        let is_mirror = path.starts_with("client/mirror") || path.starts_with("server/mirror");
        if is_mirror && path.extension().is_some_and(|extension| extension == "seg") {
            // One page in two, behind the table of checksums.
            disk.damage(&path, |bytes| {
                bytes
                    .iter_mut()
                    .skip(70_000)
                    .step_by(2 << 16)
                    .for_each(|byte| *byte ^= 1);
            });
        }
    }
    let (mut world, domains) = world(&disk, 2);
    world.run(LONG);
    world.assert_clean();
    let damaged: u64 = domains
        .iter()
        .map(|domain| domain.stats().damaged_pages)
        .sum();
    assert!(damaged > 0);
    assert!(world.ends.iter().all(|end| !end.lost));
}
