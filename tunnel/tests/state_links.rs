//! Two ends of a tunnel under virtual time, and several links between them: blocks are striped, order is kept, and a link that is lost costs its share
//! of the line and nothing else.

#![expect(clippy::unwrap_used, reason = "tests")]

mod state_support;

use std::time::Duration;

use codec::frame::{DomainId, Reason, StreamId};
use state_support::app::{Ending, Plan};
use state_support::{Setting, World, noise, send, spec};
use tunnel::metrics::StreamResult;

const SHARED: Option<DomainId> = Some(DomainId::SHARED);
const LONG: Duration = Duration::from_secs(600);
const RATE: u64 = 2_000_000;

fn millis(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// One link of 2 MB/s and 10 ms each way.
fn setting() -> Setting {
    Setting {
        resume_window: Duration::from_secs(300),
        bytes_per_s: Some(RATE),
        ..Setting::default()
    }
}

/// Lets an idle tunnel live on for a while.
fn idle(world: &mut World, time: Duration) {
    let until = world.now + time;
    while world.now < until {
        world.step().unwrap();
    }
}

fn assert_all_complete(world: &World, streams: usize) {
    world.assert_clean();
    for (side, end) in world.ends.iter().enumerate() {
        assert!(!end.lost, "end {side} is lost");
        assert_eq!(end.closed.len(), streams, "end {side}");
        for (id, summary) in &end.closed {
            let result = summary.result;
            assert_eq!(result, StreamResult::Completed, "end {side}, stream {id}");
        }
    }
}

/// Bytes that each line has carried from `side`.
fn sent(world: &World, side: usize) -> Vec<u64> {
    let wires = world.wires.iter();
    wires.map(|wire| wire.lines[side].sent_bytes).collect()
}

#[test]
fn one_stream_uses_both_lines_and_is_nearly_twice_as_fast() {
    for side in [0, 1] {
        let mut world = World::new(setting());
        world.join(millis(10), Some(RATE));
        let plans = [noise(12_000_000), noise(0)];
        let [here, there] = if side == 0 {
            plans
        } else {
            plans.map(|plan| noise(12_000_000 - plan.bytes))
        };
        world.open(0, spec(None), here, there);
        world.run(LONG);
        assert_all_complete(&world, 1);
        let took = world.ends[0].closed[&StreamId(1)].duration;
        assert!(
            took < Duration::from_secs(4),
            "12 MB over twice 2 MB/s took {took:?}"
        );
        let sent = sent(&world, side);
        assert!(sent.iter().all(|bytes| *bytes > 4_000_000), "{sent:?}");
    }
}

#[test]
fn lines_are_used_by_what_they_carry() {
    let mut world = World::new(setting());
    world.join(millis(60), Some(RATE / 4));
    world.open(0, spec(None), noise(20_000_000), noise(0));
    world.run(LONG);
    assert_all_complete(&world, 1);
    let took = world.ends[0].closed[&StreamId(1)].duration;
    // 8 s at both lines' rate, 10 s at the better one's alone.
    assert!(took < millis(9_300), "{took:?}");
    let sent = sent(&world, 0);
    assert!(sent[1] > 2_500_000 && sent[0] > 12_000_000, "{sent:?}");
}

#[test]
fn what_overtakes_on_a_shorter_way_is_put_in_order() {
    for (first, second) in [(150, 2), (2, 150)] {
        let mut world = World::new(Setting {
            delay: millis(first),
            ..setting()
        });
        world.join(millis(second), Some(RATE));
        for n in 0..12 {
            let plan = Plan {
                write_max: 3_000 * (n as u64 % 3),
                ..send(150_000)
            };
            world.open(n % 2, spec(SHARED), plan.clone(), plan);
            world.run(millis(37));
        }
        world.run(LONG);
        assert_all_complete(&world, 12);
        for end in &world.ends {
            assert_eq!(end.registry.integrity_failures.get(), 0);
        }
    }
}

#[test]
fn a_link_that_joins_is_used_and_one_that_is_lost_is_not_missed() {
    for noticed_by in [[true, true], [true, false], [false, true], [false, false]] {
        for lost in [0, 1] {
            let mut world = World::new(setting());
            for n in 0..4 {
                world.open(n % 2, spec(SHARED), noise(3_000_000), noise(3_000_000));
            }
            world.run(millis(500));
            world.join(millis(15), Some(RATE));
            world.run(millis(1_500));
            assert!(sent(&world, 0)[1] > 1_000_000, "{:?}", sent(&world, 0));
            world.black_hole_of(lost);
            for side in [0, 1] {
                if noticed_by[side] {
                    world.notice_of(lost, side);
                }
            }
            world.run(LONG);
            assert_all_complete(&world, 4);
            assert_eq!(world.wires[lost].links, [None; 2], "heartbeats tell");
        }
    }
}

#[test]
fn a_path_that_comes_and_goes_is_used_whenever_it_is_there() {
    let mut world = World::new(setting());
    for n in 0..4 {
        world.open(n % 2, spec(SHARED), send(2_500_000), send(2_500_000));
    }
    for round in 0..30 {
        world.join(millis(5 + round), Some(RATE));
        world.run(millis(60 + 11 * round));
        let newest = world.wires.len() - 1;
        // Now the older one, now the newer one.
        let lost = if round % 3 == 0 { 0 } else { newest };
        world.black_hole_of(lost);
        world.notice_of(lost, usize::try_from(round % 2).unwrap());
        world.run(millis(13));
        world.notice_of(lost, usize::try_from(1 - round % 2).unwrap());
    }
    world.run(LONG);
    assert_all_complete(&world, 4);
}

#[test]
fn all_links_lost_is_a_tunnel_detached_and_one_new_link_carries_on() {
    let mut world = World::new(setting());
    world.join(millis(20), Some(RATE));
    world.join(millis(30), Some(RATE));
    for n in 0..6 {
        world.open(n % 2, spec(SHARED), send(1_500_000), send(1_000_000));
    }
    world.run(millis(700));
    world.cut();
    assert!(world.ends.iter().all(|end| end.tunnel.is_detached()));
    world.run(Duration::from_secs(30));
    world.reconnect();
    world.run(millis(80));
    world.join(millis(25), Some(RATE));
    world.run(LONG);
    assert_all_complete(&world, 6);
}

/// What one link carries is referred to over the other only when it is known to have arrived; then it is.
#[test]
fn what_was_sent_before_is_found_again_over_either_link() {
    let mut world = World::new(setting());
    world.join(millis(40), Some(RATE));
    // Agreement first, or nothing is appended.
    world.open(0, spec(SHARED), noise(1), noise(1));
    for _ in 0..2 {
        world.open(0, spec(SHARED), noise(0), noise(0));
    }
    world.run(LONG);
    let mut used = Vec::new();
    for _ in 0..3 {
        let before = world.wire_bytes();
        // Of three streams in a row one sends what all of its kind do.
        world.open(0, spec(SHARED), send(2_000_000), send(0));
        world.run(LONG);
        used.push(world.wire_bytes() - before);
        for _ in 0..2 {
            world.open(0, spec(SHARED), noise(0), noise(0));
        }
        world.run(LONG);
    }
    world.assert_clean();
    assert!(used[1] * 4 < used[0] && used[2] * 4 < used[0], "{used:?}");
    for end in &world.ends {
        assert_eq!(end.registry.integrity_failures.get(), 0);
    }
}

#[test]
fn streams_that_end_early_end_on_every_link() {
    let mut world = World::new(Setting {
        delay: millis(90),
        ..setting()
    });
    world.join(millis(3), Some(RATE));
    for n in 0..12u64 {
        let stops_after = (n % 3 == 0).then_some(n * 20_000);
        let ending = if n % 4 == 1 {
            Ending::Reset
        } else {
            Ending::Finish
        };
        let plan = Plan {
            stops_after,
            ending,
            ..noise(400_000)
        };
        world.open(
            usize::try_from(n % 2).unwrap(),
            spec(SHARED),
            plan.clone(),
            plan,
        );
        world.run(millis(40));
    }
    world.ends[1].refuses = Some(Reason::Refused);
    world.open(0, spec(SHARED), noise(300_000), noise(1));
    world.run(LONG);
    world.assert_clean();
}

/// Whoever asks whether the peer lives learns that it does not within a heartbeat, and that it does at once.
#[test]
fn a_peer_that_is_asked_and_silent_is_lost_within_a_heartbeat() {
    for is_dead in [false, true] {
        let mut world = World::new(setting());
        world.join(millis(30), Some(RATE));
        world.open(0, spec(SHARED), noise(10_000), noise(10_000));
        world.run(LONG);
        idle(&mut world, Duration::from_secs(2));
        if is_dead {
            world.black_hole();
        }
        let now = world.now;
        world.ends[1].tunnel.probe(now);
        while world.now < now + millis(5_001) {
            world.step().unwrap();
        }
        assert_eq!(world.ends[1].tunnel.is_detached(), is_dead);
        if !is_dead {
            // It was only asked; silence later is no sooner the end than before.
            world.notice_of(1, 0);
            world.notice_of(1, 1);
            world.black_hole();
            idle(&mut world, Duration::from_secs(8));
            assert!(!world.ends[1].tunnel.is_detached());
        }
    }
}

#[test]
fn a_drained_tunnel_is_quiet_on_all_links() {
    let mut world = World::new(setting());
    world.join(millis(40), Some(RATE));
    world.open(0, spec(SHARED), noise(2_000_000), noise(2_000_000));
    world.run(millis(300));
    let now = world.now;
    world.ends[1].tunnel.go_away(Reason::GoingAway, now);
    world.run(LONG);
    idle(&mut world, Duration::from_secs(1));
    assert_all_complete(&world, 1);
    assert!(world.ends.iter().all(|end| end.tunnel.is_quiet()));
}
