//! Two ends of a tunnel under virtual time, and a line that is lost and found again: nothing is lost, doubled or reordered, memory stays bounded,
//! nothing stalls, and what is not to be resumed ends.

#![expect(clippy::unwrap_used, reason = "tests")]

mod state_support;

use std::time::Duration;

use codec::frame::{DomainId, Reason, StreamId};
use proptest::prelude::*;
use state_support::app::{Ending, Kind, Plan};
use state_support::{LINK, Setting, World, blocks_of, send, spec};
use tunnel::budget::Use;
use tunnel::metrics::StreamResult;
use tunnel::state::{Limits, LinkId};

const SHARED: Option<DomainId> = Some(DomainId::SHARED);
const LONG: Duration = Duration::from_secs(600);
const WINDOW: Duration = Duration::from_secs(300);

fn resumable() -> Setting {
    Setting {
        resume_window: WINDOW,
        bytes_per_s: Some(2_000_000),
        ..Setting::default()
    }
}

fn millis(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Both directions of every stream were delivered to the end.
fn assert_all_complete(world: &World, streams: usize) {
    world.assert_clean();
    for (side, end) in world.ends.iter().enumerate() {
        assert!(!end.lost, "end {side} is lost");
        assert_eq!(end.closed.len(), streams, "end {side}");
        for (id, summary) in &end.closed {
            assert_eq!(
                summary.result,
                StreamResult::Completed,
                "end {side}, stream {id}"
            );
        }
    }
}

#[test]
fn streams_go_on_after_the_line_was_cut() {
    let mut world = World::new(resumable());
    for n in 0..6 {
        world.open(n % 2, spec(SHARED), send(1_000_000), send(700_000));
    }
    world.run(millis(400));
    world.cut();
    assert!(world.ends.iter().all(|end| end.tunnel.is_detached()));
    world.run(Duration::from_secs(60));
    assert!(
        world.ends.iter().all(|end| end.closed.is_empty()),
        "nothing ends while the line is away"
    );
    world.reconnect();
    world.run(LONG);
    assert_all_complete(&world, 6);
}

#[test]
fn a_line_that_is_cut_again_and_again_is_no_matter() {
    let mut world = World::new(resumable());
    for n in 0..4 {
        world.open(n % 2, spec(SHARED), send(600_000), send(600_000));
    }
    // Some of these links live for less than a round trip.
    for n in 0..60 {
        world.run(millis(7 * (n % 9)));
        world.black_hole();
        world.notice(usize::try_from(n % 2).unwrap());
        world.run(millis(n));
        world.reconnect();
    }
    world.run(LONG);
    assert_all_complete(&world, 4);
}

/// One end has dialed anew while the other still believes in the old link.
#[test]
fn a_black_hole_is_left_as_soon_as_one_end_notices() {
    let mut world = World::new(resumable());
    for n in 0..4 {
        world.open(n % 2, spec(SHARED), send(1_000_000), send(1_000_000));
    }
    world.run(millis(300));
    world.black_hole();
    world.run(Duration::from_secs(4));
    world.notice(0);
    assert!(world.ends[0].tunnel.is_detached() && !world.ends[1].tunnel.is_detached());
    world.run(Duration::from_secs(1));
    world.reconnect();
    world.run(LONG);
    assert_all_complete(&world, 4);
}

#[test]
fn what_is_kept_without_a_line_is_bounded_and_holds_the_applications_back() {
    let limits = Limits {
        unacknowledged_encoded_max_bytes: 1 << 20,
        unacknowledged_plain_max_bytes: 4 << 20,
        ..Limits::default()
    };
    let mut world = World::new(Setting {
        limits,
        budget_bytes: 32 << 20,
        bytes_per_s: Some(200_000_000),
        ..resumable()
    });
    let noise = Plan {
        kind: Kind::Noise,
        ..send(4_000_000)
    };
    for n in 0..6 {
        world.open(n % 2, spec(SHARED), noise.clone(), noise.clone());
    }
    world.run(millis(100));
    world.cut();
    world.run(Duration::from_secs(200));
    for end in &world.ends {
        let stats = end.tunnel.stats();
        assert!(
            stats.unacknowledged_encoded_bytes <= (1 << 20) + (1 << 19),
            "{stats:?}"
        );
        assert!(stats.queued_bytes <= 6 << 20, "{stats:?}");
        let used = end.budget.snapshot();
        assert!(
            used.used_for(Use::Retained) > 0 && used.used_for(Use::Send) > 0,
            "what a detached tunnel keeps counts: {used:?}"
        );
    }
    world.reconnect();
    world.run(LONG);
    assert_all_complete(&world, 6);
}

#[test]
fn streams_opened_without_a_line_begin_when_it_is_back() {
    let mut world = World::new(resumable());
    world.open(0, spec(SHARED), send(1000), send(1000));
    world.run(millis(5));
    world.cut();
    world.open(0, spec(SHARED), send(100_000), send(100_000));
    world.open(1, spec(SHARED), send(100_000), send(100_000));
    world.run(Duration::from_secs(10));
    world.reconnect();
    world.run(LONG);
    assert_all_complete(&world, 3);
}

#[test]
fn after_the_window_everything_ends_on_both_sides() {
    let mut world = World::new(resumable());
    for n in 0..4 {
        world.open(n % 2, spec(SHARED), send(1_000_000), send(1_000_000));
    }
    world.run(millis(300));
    world.cut();
    world.run(WINDOW - Duration::from_secs(1));
    assert!(world.ends.iter().all(|end| !end.lost));
    world.run(Duration::from_secs(2));
    for end in &world.ends {
        assert!(end.lost && end.tunnel.is_over() && end.tunnel.poll_timeout().is_none());
        let lost = end
            .registry
            .service("files")
            .streams(StreamResult::TunnelLost);
        assert_eq!(lost, 4);
        let used: usize = end.budget.snapshot().used_bytes.iter().sum();
        assert_eq!(used, 0);
    }
    // It is too late for this one.
    let now = world.now;
    world.ends[0].tunnel.link_up(LinkId::from(9), now);
    assert!(world.ends[0].tunnel.is_over() && !world.ends[0].tunnel.is_detached());
}

#[test]
fn a_tunnel_that_goes_away_is_not_resumed() {
    for notices in [0, 1] {
        let mut world = World::new(resumable());
        let noise = Plan {
            kind: Kind::Noise,
            ..send(5_000_000)
        };
        world.open(0, spec(SHARED), noise.clone(), noise);
        world.run(millis(200));
        let now = world.now;
        world.ends[0].tunnel.go_away(Reason::GoingAway, now);
        world.run(millis(500));
        world.black_hole();
        world.notice(notices);
        assert!(world.ends[notices].tunnel.is_over());
    }
}

#[test]
fn a_detached_tunnel_that_goes_away_is_over_at_once() {
    let mut world = World::new(resumable());
    world.open(0, spec(SHARED), send(1_000_000), send(1_000_000));
    world.run(millis(200));
    world.cut();
    let now = world.now;
    world.ends[0].tunnel.go_away(Reason::GoingAway, now);
    assert!(world.ends[0].tunnel.is_over());
}

/// The agreement on histories may be what is lost.
#[test]
fn histories_are_agreed_on_and_stay_warm_whenever_the_line_is_cut() {
    for cut_after_ms in [1, 9, 11, 19, 21, 31, 41] {
        let mut world = World::new(Setting {
            bytes_per_s: None,
            ..resumable()
        });
        world.open(0, spec(SHARED), send(1), send(1));
        world.run(millis(cut_after_ms));
        world.cut();
        world.run(Duration::from_secs(3));
        world.reconnect();
        world.run(LONG);
        // Streams 7 and 13 have the same text, both ways, and what was not agreed on is not found again.
        let mut costs = Vec::new();
        for id in [3, 5, 7, 9, 11, 13] {
            let before = world.wire_bytes();
            let bytes = if id % 6 == 1 { 500_000 } else { 1 };
            world.open(0, spec(SHARED), send(bytes), send(bytes));
            world.run(LONG);
            costs.push(world.wire_bytes() - before);
        }
        assert_all_complete(&world, 7);
        assert!(
            costs[5] * 10 < costs[2],
            "cut after {cut_after_ms} ms: {costs:?}"
        );
    }
}

/// What went over before the cut costs nothing after it: the same histories go on.
#[test]
fn what_was_sent_before_the_cut_is_found_again_after_it() {
    let mut world = World::new(Setting {
        bytes_per_s: None,
        ..resumable()
    });
    // Streams 1 and 7 have the same text.
    world.open(0, spec(SHARED), send(2_000_000), send(0));
    world.run(LONG);
    let cold = world.wire_bytes();
    for _ in 0..2 {
        world.open(0, spec(SHARED), send(0), send(0));
    }
    world.run(LONG);
    world.cut();
    world.run(Duration::from_secs(30));
    world.reconnect();
    let before = world.wire_bytes();
    let text = Plan {
        kind: Kind::Shared,
        ..send(2_000_000)
    };
    world.open(0, spec(SHARED), text, send(0));
    world.run(LONG);
    let warm = world.wire_bytes() - before;
    assert_all_complete(&world, 4);
    assert!(warm * 10 < cold, "cold {cold}, warm {warm}");
}

#[test]
fn damaged_blocks_come_again_also_over_a_line_that_is_cut() {
    let mut world = World::new(Setting {
        level: tunnel::state::LevelChoice::Fixed(codec::policy::Level::Off),
        ..resumable()
    });
    world.open(0, spec(SHARED), send(1), send(1));
    world.run(LONG);
    for line in &mut world.wires[0].lines {
        line.damage_per_mille = 300;
    }
    for n in 0..4 {
        world.open(n % 2, spec(SHARED), send(1_000_000), send(1_000_000));
    }
    for n in 0..20 {
        world.run(millis(30 + n * 3));
        world.cut();
        world.run(millis(20));
        world.reconnect();
    }
    world.run(LONG);
    assert_all_complete(&world, 5);
    let damaged: u64 = world.lines().map(|line| line.damaged_blocks).sum();
    assert!(damaged > 3, "{damaged}");
}

#[test]
fn credit_given_back_before_the_cut_is_conserved_after_it() {
    let mut world = World::new(Setting {
        bytes_per_s: Some(10_000_000),
        ..resumable()
    });
    // The first stream waits for the last byte of the other's answer, which waits for the second part.
    world.open(
        0,
        spec(SHARED),
        send(2_000_000),
        Plan {
            waits_for: 2_000_000,
            ..send(2_000_000)
        },
    );
    for n in 0..40 {
        world.run(millis(50 + n));
        world.black_hole();
        // Yields and Credits of this time are lost.
        world.run(millis(1_200));
        world.reconnect();
    }
    world.run(LONG);
    assert_all_complete(&world, 1);
}

/// The sender has lowered its limit; a receiver that has not heard of it would hold memory for nothing.
#[test]
fn a_yield_that_was_lost_is_said_again() {
    let mut world = World::new(resumable());
    let never = Plan {
        waits_for: 200_001,
        ..send(1)
    };
    world.open(0, spec(SHARED), send(200_000), never);
    world.run(millis(500));
    let growth = |world: &World| world.ends[0].tunnel.stats().window_growth_bytes;
    assert!(growth(&world) > 0);
    world.black_hole();
    world.run(Duration::from_secs(3));
    assert!(growth(&world) > 0, "nobody has told it");
    world.reconnect();
    world.run(Duration::from_secs(1));
    assert_eq!(growth(&world), 0);
}

#[test]
fn frames_of_a_link_that_is_lost_are_dropped() {
    let mut world = World::new(resumable());
    world.open(0, spec(SHARED), send(100_000), send(0));
    world.run(millis(25));
    world.reconnect();
    let now = world.now;
    let stale = codec::frame::Frame::Reset {
        number: 1,
        stream: StreamId(1),
        reason: Reason::Cancelled,
    };
    world.ends[1]
        .tunnel
        .handle_frame(LinkId::from(LINK), stale, now)
        .unwrap();
    world.run(LONG);
    assert_all_complete(&world, 1);
}

fn plan() -> impl Strategy<Value = Plan> {
    (
        prop_oneof![Just(0), 1..2_000u64, 1..400_000u64],
        prop_oneof![4 => Just(Ending::Finish), 1 => Just(Ending::Reset)],
        prop_oneof![Just(0), 1..3_000u64],
        prop_oneof![6 => Just(None), 1 => (0..100_000u64).prop_map(Some)],
        0..30u64,
    )
        .prop_map(
            |(bytes, ending, write_max, stops_after, consumes_after)| Plan {
                // Small writes of much would only take long.
                bytes: if write_max == 0 {
                    bytes
                } else {
                    bytes.min(write_max * 50)
                },
                ending,
                write_max,
                stops_after,
                consumes_after: Duration::from_millis(consumes_after),
                ..Plan::default()
            },
        )
}

/// When the line is lost, who learns it by itself, for how long it is away, and how many streams come meanwhile.
#[derive(Debug, Clone)]
struct Loss {
    after_us: u64,
    noticed_by: [bool; 2],
    away_us: u64,
    opens: usize,
}

fn loss() -> impl Strategy<Value = Loss> {
    (0..120_000u64, any::<[bool; 2]>(), 0..200_000u64, 0..2usize).prop_map(
        |(after_us, noticed_by, away_us, opens)| Loss {
            after_us,
            noticed_by,
            away_us,
            opens,
        },
    )
}

fn setting() -> impl Strategy<Value = Setting> {
    (
        any::<u64>(),
        0..40u64,
        prop_oneof![Just(None), (200_000..20_000_000u64).prop_map(Some)],
        prop_oneof![Just(256usize << 20), (4usize << 20)..(16 << 20)],
        prop_oneof![Just(16u64 << 20), Just(1 << 20), Just(0)],
        0..5u64,
        prop_oneof![Just(64usize << 10), 1_000..70_000usize],
    )
        .prop_map(
            |(seed, delay, bytes_per_s, budget_bytes, history_bytes, job_delay, transmit_bytes)| {
                Setting {
                    seed: seed >> 1,
                    blocks: blocks_of(seed),
                    delay: Duration::from_millis(delay),
                    bytes_per_s,
                    budget_bytes,
                    history_bytes,
                    job_delay_max: Duration::from_millis(job_delay),
                    transmit_bytes,
                    ..resumable()
                }
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

    /// Whatever the streams do and whenever the line is lost: bytes are exact, memory comes back, nothing stalls.
    #[test]
    fn a_line_lost_at_any_point_changes_nothing(
        setting in setting(),
        streams in proptest::collection::vec((0..2usize, any::<bool>(), plan(), plan()), 1..10),
        losses in proptest::collection::vec(loss(), 1..12),
    ) {
        let mut world = World::new(setting);
        let mut coming = streams.clone().into_iter();
        let open = |world: &mut World, coming: &mut std::vec::IntoIter<_>| {
            if let Some((from, shared, here, there)) = coming.next() {
                world.open(from, spec(if shared { SHARED } else { None }), here, there);
            }
        };
        for _ in 0..streams.len() / 2 {
            open(&mut world, &mut coming);
        }
        for loss in losses {
            world.run(Duration::from_micros(loss.after_us));
            world.black_hole();
            for side in [0, 1] {
                if loss.noticed_by[side] {
                    world.notice(side);
                }
            }
            for _ in 0..loss.opens {
                open(&mut world, &mut coming);
            }
            world.run(Duration::from_micros(loss.away_us));
            world.reconnect();
        }
        while coming.len() > 0 {
            open(&mut world, &mut coming);
        }
        world.run(LONG);
        world.assert_clean();
        for end in &world.ends {
            prop_assert!(!end.lost);
            prop_assert_eq!(end.registry.integrity_failures.get(), 0);
        }
        // Without an end that was asked for, everything is complete.
        let calm = streams.iter().all(|(_, _, here, there)| [here, there].iter().all(|plan| plan.ending == Ending::Finish && plan.stops_after.is_none()));
        if calm {
            for end in &world.ends {
                prop_assert_eq!(end.closed.len(), streams.len());
                prop_assert!(end.closed.values().all(|summary| summary.result == StreamResult::Completed));
            }
        }
    }
}
