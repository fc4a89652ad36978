//! Two ends of a tunnel under virtual time: everything arrives exactly or the stream is reset, credit and memory are conserved, nothing stalls.

#![expect(clippy::unwrap_used, reason = "tests")]

mod state_support;

use std::time::Duration;

use codec::domain::{Cleared, Domain};
use codec::frame::{DomainId, Reason, StreamId};
use codec::policy::Level;
use proptest::prelude::*;
use state_support::app::{Ending, Kind, Plan};
use state_support::{Setting, World, blocks_of, domain, send, spec};
use tunnel::budget::Use;
use tunnel::metrics::StreamResult;
use tunnel::state::{LevelChoice, Limits};

const SHARED: Option<DomainId> = Some(DomainId::SHARED);
const LONG: Duration = Duration::from_secs(600);

#[test]
fn a_byte_crosses_in_half_a_round_trip_and_streams_end() {
    let mut world = World::new(Setting {
        job_delay_max: Duration::ZERO,
        ..Setting::default()
    });
    world.open(0, spec(SHARED), send(1), send(1));
    world.run(LONG);
    world.assert_clean();
    let summary = &world.ends[0].closed[&StreamId(1)];
    assert_eq!(summary.result, StreamResult::Completed);
    assert_eq!(
        (summary.lan_to_wan_bytes, summary.lan_from_wan_bytes),
        (1, 1)
    );
    assert!(summary.duration < Duration::from_millis(100), "{summary:?}");
}

#[test]
fn half_close_is_kept_both_ways() {
    let mut world = World::new(Setting::default());
    // The server's end answers only once it has read everything up to the client's Finish, and the other way round.
    world.open(
        0,
        spec(SHARED),
        send(100_000),
        Plan {
            waits_for: 100_000,
            ..send(300_000)
        },
    );
    world.open(
        1,
        spec(SHARED),
        send(100_000),
        Plan {
            waits_for: 100_000,
            ..send(300_000)
        },
    );
    world.run(LONG);
    world.assert_clean();
    for (end, id) in [(0, 1), (1, 2)] {
        let summary = &world.ends[end].closed[&StreamId(id)];
        assert_eq!(
            (summary.lan_to_wan_bytes, summary.lan_from_wan_bytes),
            (100_000, 300_000)
        );
        assert_eq!(summary.result, StreamResult::Completed);
    }
}

/// Sends what no other has sent.
fn noise(bytes: u64) -> Plan {
    Plan {
        kind: Kind::Noise,
        ..send(bytes)
    }
}

/// Lets an idle tunnel live on for a while.
fn idle(world: &mut World, time: Duration) {
    let until = world.now + time;
    while world.now < until {
        world.step().unwrap();
    }
}

#[test]
fn what_is_cleared_on_either_side_is_given_up_by_both_although_nothing_is_sent() {
    for side in [0, 1] {
        let setting = Setting::default();
        let domains = [1, 2].map(|seed| domain(64 << 20, seed));
        let mut world = World::with_domains(setting, &domains);
        world.open(0, spec(SHARED), noise(3_000_000), noise(3_000_000));
        world.run(LONG);
        let held = |domain: &Domain| domain.stats().own_bytes + domain.stats().mirror_bytes;
        assert!(domains.iter().all(|domain| held(domain) > 1_000_000));
        assert_eq!(domains[side].clear(), Cleared::UnderWay);
        idle(&mut world, Duration::from_secs(30));
        // At most the pages that are not full.
        assert!(
            domains.iter().all(|domain| held(domain) <= 2 << 16),
            "{domains:?}"
        );
        // And it works as before.
        world.open(0, spec(SHARED), noise(300_000), noise(300_000));
        world.run(LONG);
        world.assert_clean();
        assert!(domains.iter().all(|domain| held(domain) > 300_000));
    }
}

#[test]
fn a_mirror_that_gets_smaller_is_emptied_by_its_owner() {
    let domains = [1, 2].map(|seed| domain(64 << 20, seed));
    let mut world = World::with_domains(Setting::default(), &domains);
    world.open(0, spec(SHARED), noise(8_000_000), noise(1));
    world.run(LONG);
    let before = domains[1].stats().mirror_bytes;
    assert!(before > 4 << 20, "{before}");
    domains[1].set_capacity(1 << 20, 1 << 20);
    idle(&mut world, Duration::from_secs(30));
    let (own, mirror) = (
        domains[0].stats().own_bytes,
        domains[1].stats().mirror_bytes,
    );
    assert!(
        own <= 1 << 20 && mirror <= 1 << 20,
        "{own} and {mirror}, {before} before"
    );
    world.assert_clean();
}

#[test]
fn bulk_fills_a_long_line() {
    let setting = Setting {
        delay: Duration::from_millis(40),
        bytes_per_s: Some(2_500_000),
        ..Setting::default()
    };
    let mut world = World::new(setting);
    world.open(
        0,
        spec(None),
        Plan {
            kind: Kind::Noise,
            ..send(10_000_000)
        },
        Plan {
            kind: Kind::Noise,
            ..send(0)
        },
    );
    world.run(LONG);
    world.assert_clean();
    let took = world.ends[0].closed[&StreamId(1)].duration;
    assert!(
        took < Duration::from_millis(4_800),
        "10 MB at 2.5 MB/s took {took:?}"
    );
    assert!(
        world.wires[0].lines[0].sent_bytes < 10_010_000,
        "{} bytes for 10,000,000",
        world.wires[0].lines[0].sent_bytes
    );
}

#[test]
fn what_was_sent_before_costs_little_either_way() {
    let mut world = World::new(Setting::default());
    let text = Plan {
        kind: Kind::Own,
        ..send(0)
    };
    // Streams 1 and 7 have other bytes; the same stream id never comes again, so the shared text is used.
    world.open(0, spec(SHARED), send(0), send(0));
    world.run(LONG);
    let before = world.wire_bytes();
    for _ in 0..2 {
        world.open(0, spec(SHARED), text.clone(), text.clone());
    }
    world.run(LONG);
    world.open(0, spec(SHARED), send(2_000_000), send(0));
    world.run(LONG);
    let first = world.wire_bytes() - before;
    world.ends[0].closed.clear();
    for _ in 0..2 {
        world.open(0, spec(SHARED), text.clone(), text.clone());
        world.run(LONG);
    }
    let middle = world.wire_bytes();
    world.open(0, spec(SHARED), send(0), send(2_000_000));
    world.run(LONG);
    let second = world.wire_bytes() - middle;
    world.assert_clean();
    assert!(
        second * 4 < first,
        "downloading what was uploaded: {second} after {first}"
    );
}

#[test]
fn a_new_tunnel_between_the_same_histories_is_warm_at_once() {
    let domains = [domain(16 << 20, 1), domain(16 << 20, 2)];
    let mut used = Vec::new();
    for seed in 0..2 {
        let mut world = World::with_domains(
            Setting {
                seed,
                ..Setting::default()
            },
            &domains,
        );
        world.open(0, spec(None), send(1), send(1));
        world.run(LONG);
        let before = world.wire_bytes();
        world.open(
            0,
            spec(SHARED),
            Plan {
                kind: Kind::Noise,
                ..send(1_000_000)
            },
            Plan {
                kind: Kind::Noise,
                ..send(0)
            },
        );
        world.run(LONG);
        world.assert_clean();
        used.push(world.wire_bytes() - before);
    }
    assert!(used[0] > 1_000_000 && used[1] < 20_000, "{used:?}");
}

#[test]
fn many_streams_fit_through_few_opens_and_tiny_windows() {
    let limits = Limits {
        initial_window_bytes: 100,
        streams_max: 3,
        ..Limits::default()
    };
    let mut world = World::new(Setting {
        limits,
        budget_bytes: 1 << 20,
        ..Setting::default()
    });
    for n in 0..40 {
        world.open(
            n % 2,
            spec(SHARED),
            Plan {
                write_max: 700,
                ..send(5_000)
            },
            send(1_000),
        );
    }
    world.run(LONG);
    world.assert_clean();
    assert_eq!(world.ends[0].closed.len(), 40);
}

#[test]
fn a_tiny_budget_slows_and_does_not_stall() {
    let setting = Setting {
        budget_bytes: 400 << 10,
        bytes_per_s: Some(10_000_000),
        ..Setting::default()
    };
    let mut world = World::new(setting);
    for n in 0..8 {
        world.open(n % 2, spec(SHARED), send(400_000), send(300_000));
    }
    world.run(LONG);
    world.assert_clean();
}

#[test]
fn small_limits_of_the_peer_bound_what_is_unacknowledged() {
    let limits = Limits {
        unacknowledged_encoded_max_bytes: 300_000,
        unacknowledged_plain_max_bytes: 600_000,
        ..Limits::default()
    };
    let mut world = World::new(Setting {
        limits,
        delay: Duration::from_millis(40),
        ..Setting::default()
    });
    for _ in 0..4 {
        world.open(0, spec(SHARED), send(1_500_000), send(0));
    }
    let mut most = (0, 0);
    while !world.is_done() {
        world.step().unwrap();
        let stats = world.ends[0].tunnel.stats();
        most = (
            most.0.max(stats.unacknowledged_encoded_bytes),
            most.1.max(stats.unacknowledged_plain_bytes),
        );
    }
    world.assert_clean();
    assert!(
        most.0 <= 300_000 && most.1 <= 600_000 && most.1 > 200_000,
        "{most:?}"
    );
}

#[test]
fn a_slow_reader_does_not_slow_others() {
    let mut world = World::new(Setting {
        bytes_per_s: Some(5_000_000),
        ..Setting::default()
    });
    let slow = Plan {
        consumes_after: Duration::from_secs(3),
        ..send(0)
    };
    world.open(0, spec(SHARED), send(3_000_000), slow);
    world.open(0, spec(SHARED), send(3_000_000), send(0));
    world.run(LONG);
    world.assert_clean();
    let quick = world.ends[0].closed[&StreamId(3)].duration;
    assert!(quick < Duration::from_secs(3), "{quick:?}");
}

#[test]
fn a_small_request_overtakes_bulk() {
    let mut world = World::new(Setting {
        bytes_per_s: Some(1_250_000),
        ..Setting::default()
    });
    for _ in 0..3 {
        world.open(
            0,
            spec(None),
            Plan {
                kind: Kind::Noise,
                ..send(4_000_000)
            },
            Plan {
                kind: Kind::Noise,
                ..send(0)
            },
        );
    }
    world.try_run(Duration::from_millis(1_500)).unwrap();
    let asked = world.now;
    world.open(0, spec(SHARED), send(10), send(10));
    while !world.ends[0].closed.contains_key(&StreamId(7)) {
        world.step().unwrap();
    }
    // The socket's backlog of 256 KiB is 210 ms; without turns it would be many times that.
    let took = world.now - asked;
    assert!(took < Duration::from_millis(700), "{took:?}");
    world.run(LONG);
    world.assert_clean();
}

#[test]
fn a_refused_target_ends_the_stream_at_both_ends() {
    let mut world = World::new(Setting::default());
    world.ends[1].refuses = Some(Reason::Policy);
    world.open(0, spec(SHARED), send(10_000_000), send(0));
    world.run(LONG);
    world.assert_clean();
    for end in &world.ends {
        assert_eq!(end.closed[&StreamId(1)].result, StreamResult::Refused);
        assert_eq!(
            end.registry.service("files").streams(StreamResult::Refused),
            1
        );
    }
}

#[test]
fn downloads_aborted_and_repeated_never_stall() {
    let mut world = World::new(Setting {
        bytes_per_s: Some(20_000_000),
        ..Setting::default()
    });
    for _ in 0..50 {
        world.open(
            0,
            spec(SHARED),
            Plan {
                stops_after: Some(100_000),
                ending: Ending::Finish,
                ..send(10)
            },
            send(1_000_000),
        );
        world.run(LONG);
    }
    world.open(0, spec(SHARED), send(10), send(1_000_000));
    world.run(LONG);
    world.assert_clean();
    let last = StreamId(101);
    assert_eq!(world.ends[0].closed[&last].lan_from_wan_bytes, 1_000_000);
}

#[test]
fn damaged_blocks_come_again() {
    let mut world = World::new(Setting {
        level: LevelChoice::Fixed(Level::Off),
        ..Setting::default()
    });
    // Agreement first: only blocks that are appended have checksums.
    world.open(0, spec(SHARED), send(1), send(1));
    world.run(LONG);
    for line in &mut world.wires[0].lines {
        line.damage_per_mille = 200;
    }
    for n in 0..6 {
        world.open(n % 2, spec(SHARED), send(2_000_000), send(2_000_000));
    }
    world.run(LONG);
    world.assert_clean();
    let damaged: u64 = world.lines().map(|line| line.damaged_blocks).sum();
    let refused: u64 = world
        .ends
        .iter()
        .map(|end| end.registry.integrity_failures.get())
        .sum();
    assert!(damaged > 3, "{damaged}");
    assert!(
        refused >= 2 * damaged,
        "each is counted at both ends: {refused} for {damaged}"
    );
    assert!(
        world
            .ends
            .iter()
            .flat_map(|end| end.closed.values())
            .all(|summary| summary.result == StreamResult::Completed)
    );
}

#[test]
fn a_small_history_is_turned_over_without_harm() {
    let mut world = World::new(Setting {
        history_bytes: 2 << 20,
        ..Setting::default()
    });
    for n in 0..6 {
        world.open(
            n % 2,
            spec(SHARED),
            Plan {
                kind: Kind::Noise,
                ..send(3_000_000)
            },
            Plan {
                kind: Kind::Noise,
                ..send(1_000_000)
            },
        );
    }
    world.run(LONG);
    world.assert_clean();
    let floors: u64 = world.wires[0]
        .lines
        .iter()
        .filter_map(|line| line.frames.get("Floor"))
        .sum();
    let answers: u64 = world.wires[0]
        .lines
        .iter()
        .filter_map(|line| line.frames.get("Floored"))
        .sum();
    assert!(
        floors > 2 && answers > 2,
        "{floors} floors, {answers} answers"
    );
}

/// Noise turns the history over while the same text is sent again and again: some of it is about to be dropped when it is found.
#[test]
fn nothing_is_copied_that_the_peer_has_dropped() {
    for seed in [3, 4] {
        let mut world = World::new(Setting {
            seed,
            history_bytes: 2 << 20,
            bytes_per_s: Some(20_000_000),
            job_delay_max: Duration::from_millis(20),
            ..Setting::default()
        });
        for _ in 0..3 {
            let noise = Plan {
                kind: Kind::Noise,
                ..send(4_000_000)
            };
            world.open(0, spec(SHARED), noise.clone(), noise);
            let text = Plan {
                write_max: 20_000,
                ..send(2_000_000)
            };
            world.open(1, spec(SHARED), text.clone(), text);
        }
        world.run(LONG);
        world.assert_clean();
        for end in &world.ends {
            let refused: u64 = end.registry.refused().iter().map(|(_, count)| count).sum();
            assert_eq!(refused, 0, "seed {seed}: {:?}", end.registry.refused());
            assert!(
                end.closed
                    .values()
                    .all(|summary| summary.result == StreamResult::Completed),
                "seed {seed}"
            );
        }
    }
}

#[test]
fn an_idle_stream_gives_its_growth_back_and_has_it_again() {
    let mut world = World::new(Setting {
        bytes_per_s: Some(10_000_000),
        ..Setting::default()
    });
    world.open(
        0,
        spec(SHARED),
        send(2_000_000),
        Plan {
            waits_for: 2_000_001,
            ..send(0)
        },
    );
    world.try_run(Duration::from_secs(5)).unwrap();
    assert!(world.wires[0].lines[0].frames.contains_key("Finish"));
    world.open(
        1,
        spec(SHARED),
        Plan {
            waits_for: 1,
            ..send(1)
        },
        Plan {
            waits_for: 1,
            ..send(0)
        },
    );
    world.try_run(Duration::from_secs(5)).unwrap();
    for end in &world.ends {
        let growth = end.tunnel.stats().window_growth_bytes;
        assert!(
            growth <= 300_000,
            "{growth} bytes of growth are kept for idle streams"
        );
    }
    let yields: u64 = world.wires[0]
        .lines
        .iter()
        .filter_map(|line| line.frames.get("Yield"))
        .sum();
    assert!(yields >= 2, "{yields}");
}

#[test]
fn a_cut_line_ends_everything_and_gives_memory_back() {
    let mut world = World::new(Setting {
        bytes_per_s: Some(1_000_000),
        ..Setting::default()
    });
    for n in 0..10 {
        world.open(n % 2, spec(SHARED), send(5_000_000), send(5_000_000));
    }
    world.try_run(Duration::from_millis(700)).unwrap();
    world.cut();
    for end in &mut world.ends {
        assert!(end.lost && end.tunnel.is_over() && end.tunnel.poll_timeout().is_none());
        assert_eq!(
            end.registry
                .service("files")
                .streams(StreamResult::TunnelLost),
            10
        );
        assert_eq!(end.registry.service("files").streams_open.get(), 0);
    }
}

#[test]
fn a_silent_peer_is_noticed_within_three_heartbeats() {
    let mut world = World::new(Setting::default());
    world.open(
        0,
        spec(SHARED),
        send(1),
        Plan {
            waits_for: 2,
            ..send(0)
        },
    );
    world.try_run(Duration::from_secs(20)).unwrap();
    let end = &mut world.ends[0];
    assert!(!end.lost, "the other one answers pings");
    let silent_from = world.now;
    let mut out = Vec::new();
    while !end.tunnel.is_over() {
        let next = end.tunnel.poll_timeout().unwrap();
        end.tunnel.handle_timeout(next);
        end.tunnel
            .poll_transmit(tunnel::state::LinkId::from(0), 1 << 20, next, &mut out);
        world.now = next;
    }
    assert!(world.now - silent_from <= Duration::from_secs(16));
}

#[test]
fn twenty_thousand_idle_streams_are_small() {
    let mut world = World::new(Setting {
        budget_bytes: 2 << 30,
        ..Setting::default()
    });
    for n in 0..20_000 {
        world.open(
            n % 2,
            spec(SHARED),
            Plan {
                waits_for: 1,
                ..send(0)
            },
            Plan {
                waits_for: 1,
                ..send(0)
            },
        );
    }
    world.try_run(Duration::from_secs(1)).unwrap();
    assert_eq!(world.ends[0].tunnel.stats().streams_open, 20_000);
    let bytes = std::hint::black_box(tunnel::state::STREAM_SIZE_BYTES);
    assert!(bytes <= 1024, "{bytes}");
}

fn plan() -> impl Strategy<Value = Plan> {
    let size = prop_oneof![0..3u64, 0..70_000u64, 0..1_200_000u64];
    let ending = prop_oneof![4 => Just(Ending::Finish), 1 => Just(Ending::Reset)];
    let stops = prop_oneof![4 => Just(None), 1 => (0..200_000u64).prop_map(Some)];
    let slow = prop_oneof![3 => Just(0u64), 1 => 1..200u64];
    let write = prop_oneof![Just(0u64), 1..50_000u64];
    (size, ending, stops, slow, write).prop_map(
        |(bytes, ending, stops_after, slow_ms, write_max)| Plan {
            // Small writes of much would only take long.
            bytes: if write_max == 0 {
                bytes
            } else {
                bytes.min(write_max * 50)
            },
            ending,
            write_max,
            stops_after,
            consumes_after: Duration::from_millis(slow_ms),
            ..Plan::default()
        },
    )
}

fn setting() -> impl Strategy<Value = Setting> {
    let rate = prop_oneof![Just(None), (200_000..50_000_000u64).prop_map(Some)];
    let budget = prop_oneof![Just(256usize << 20), (600usize << 10)..(4 << 20)];
    let window = prop_oneof![Just(16u64 << 10), 1..4_000u64];
    let history = prop_oneof![Just(16u64 << 20), Just(1 << 20), Just(0)];
    (
        any::<u32>(),
        0..100u64,
        rate,
        budget,
        window,
        history,
        0..20_000u64,
        1..300_000usize,
    )
        .prop_map(
            |(
                seed,
                delay_ms,
                bytes_per_s,
                budget_bytes,
                initial_window_bytes,
                history_bytes,
                job_us,
                transmit_bytes,
            )| Setting {
                seed: seed.into(),
                blocks: blocks_of(seed.into()),
                delay: Duration::from_millis(delay_ms),
                bytes_per_s,
                budget_bytes,
                limits: Limits {
                    initial_window_bytes,
                    streams_max: 6,
                    ..Limits::default()
                },
                history_bytes,
                job_delay_max: Duration::from_micros(job_us),
                transmit_bytes,
                ..Setting::default()
            },
        )
}

/// Few in an ordinary run, since each is a whole world; PROPTEST_CASES asks for more.
fn cases() -> ProptestConfig {
    let asked = std::env::var_os("PROPTEST_CASES").is_some();
    let config = ProptestConfig::default();
    ProptestConfig {
        cases: if asked { config.cases } else { 48 },
        ..config
    }
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn whatever_is_sent_arrives_or_is_reset(
        setting in setting(),
        streams in proptest::collection::vec((0..2usize, any::<bool>(), plan(), plan()), 1..12),
        damage in prop_oneof![3 => Just(0u64), 1 => Just(100u64)],
    ) {
        let level = LevelChoice::Fixed(if damage > 0 { Level::Off } else { Level::default() });
        let mut world = World::new(Setting { level, ..setting });
        for line in &mut world.wires[0].lines {
            line.damage_per_mille = damage;
        }
        for (from, is_shared, here, there) in streams {
            world.open(from, spec(SHARED.filter(|_| is_shared)), here, there);
        }
        world.run(Duration::from_secs(3600));
        world.assert_clean();
    }
    /// A cut at any moment leaves nothing behind.
    #[test]
    fn a_cut_at_any_time_gives_everything_back(
        setting in setting(),
        streams in proptest::collection::vec((0..2usize, plan(), plan()), 1..8),
        cut_ms in 0..3_000u64,
    ) {
        let mut world = World::new(setting);
        for (from, here, there) in streams {
            world.open(from, spec(SHARED), here, there);
        }
        world.run(Duration::from_millis(cut_ms));
        world.cut();
        for end in &mut world.ends {
            prop_assert!(end.tunnel.is_over() && end.tunnel.poll_timeout().is_none() && end.tunnel.poll_job(world.now).is_none());
            let snapshot = end.budget.snapshot();
            prop_assert!(Use::ALL.into_iter().all(|usage| snapshot.used_for(usage) == 0), "{snapshot:?}");
            prop_assert_eq!(end.registry.service("files").streams_open.get(), 0);
        }
    }

    /// A job that panics ends its stream and nothing else.
    #[test]
    fn panicking_jobs_end_streams_and_never_the_tunnel(
        setting in setting(),
        streams in proptest::collection::vec((0..2usize, plan(), plan()), 1..8),
    ) {
        let mut world = World::new(Setting { lost_jobs_per_mille: 50, ..setting });
        for (from, here, there) in streams {
            world.open(from, spec(SHARED), here, there);
        }
        world.run(Duration::from_secs(3600));
        world.assert_clean();
    }
}
