//! Level `auto` between two ends under virtual time: the line, the pool, and what becomes of the level.

#![expect(clippy::unwrap_used, reason = "tests")]

mod state_support;

use std::time::Duration;

use codec::policy::Level;
use state_support::{Setting, World, send, spec};
use tunnel::state::LevelChoice;

const LONG: Duration = Duration::from_secs(600);

/// A transfer of text without histories, so that all of it is compressed; the levels that the sender went through, in order.
fn levels(setting: Setting) -> Vec<Level> {
    let mut world = World::new(Setting {
        level: LevelChoice::Auto,
        ..setting
    });
    world.open(0, spec(None), send(12 << 20), send(1));
    let mut levels = vec![world.ends[0].tunnel.stats().level];
    while !world.is_done() {
        assert!(world.now - world.start < LONG, "it ends");
        world.step().unwrap();
        let level = world.ends[0].tunnel.stats().level;
        if levels.last() != Some(&level) {
            levels.push(level);
        }
    }
    world.assert_clean();
    levels
}

#[test]
fn a_slow_line_is_given_less_to_carry() {
    let levels = levels(Setting {
        bytes_per_s: Some(250_000),
        job_delay_max: Duration::from_micros(300),
        ..Setting::default()
    });
    assert!(
        levels.starts_with(&[1, 2, 4, 6].map(Level::zstd)),
        "{levels:?}"
    );
}

#[test]
fn a_line_without_a_bound_is_never_kept_waiting_by_a_level() {
    let levels = levels(Setting {
        bytes_per_s: None,
        ..Setting::default()
    });
    assert_eq!(levels, [Level::zstd(1)]);
}

#[test]
fn a_busy_pool_gets_no_more_work() {
    let levels = levels(Setting {
        bytes_per_s: Some(250_000),
        job_delay_max: Duration::from_millis(40),
        ..Setting::default()
    });
    assert_eq!(levels, [Level::zstd(1)]);
}
