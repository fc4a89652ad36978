//! Two ends of a tunnel under virtual time: how streams share the line, by their weights and in both directions.

#![expect(clippy::unwrap_used, reason = "tests")]

mod state_support;

use std::time::Duration;

use codec::frame::StreamId;
use state_support::{Setting, World, noise, spec};
use tunnel::state::OpenSpec;

const LONG: Duration = Duration::from_secs(600);
const BYTES: u64 = 12_000_000;

#[test]
fn a_weight_counts_in_both_directions_whoever_opened_the_stream() {
    for opener in [0, 1] {
        for sender in [0, 1] {
            let mut world = World::new(Setting {
                bytes_per_s: Some(2_000_000),
                transmit_bytes: 64 << 10,
                ..Setting::default()
            });
            for weight in [4_u16, 1] {
                let spec = OpenSpec {
                    weight: weight.try_into().unwrap(),
                    ..spec(None)
                };
                let [here, there] = if sender == opener {
                    [noise(BYTES), noise(0)]
                } else {
                    [noise(0), noise(BYTES)]
                };
                world.open(opener, spec, here, there);
            }
            world.run(LONG);
            world.assert_clean();
            let first = StreamId(1 + opener as u64);
            let took = [first, StreamId(first.0 + 2)]
                .map(|id| world.ends[opener].closed[&id].duration.as_secs_f64());
            // Four parts of five for the first until it has ended: 7.5 s and 12 s, but for the beginning, when windows are small.
            let part = took[0] / took[1];
            assert!(
                (0.55..0.75).contains(&part),
                "opened by {opener}, sent by {sender}: {took:?}"
            );
        }
    }
}
