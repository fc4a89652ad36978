//! One side is drained while the other opens streams: what was opened before it could know is served.

mod state_support;

use std::time::Duration;

use codec::frame::{DomainId, Reason};
use state_support::{Setting, World, send, spec};
use tunnel::state::OpenError;

const SHARED: Option<DomainId> = Some(DomainId::SHARED);

const LONG: Duration = Duration::from_secs(60);

#[test]
fn what_was_opened_before_goaway_came_is_served() {
    for side in [0, 1] {
        let mut world = World::new(Setting::default());
        world.open(1 - side, spec(SHARED), send(1_000), send(1_000));
        world.run(LONG);
        let now = world.now;
        world.ends[side].tunnel.go_away(Reason::GoingAway, now);
        world.open(1 - side, spec(SHARED), send(50_000), send(50_000));
        while !world.is_done() {
            assert!(world.now - now < LONG, "it ends");
            world
                .step()
                .unwrap_or_else(|violation| unreachable!("{violation}"));
        }
        assert!(
            world.ends[side].expected.is_empty(),
            "the stream arrived and was not refused"
        );
        world.assert_clean();
        // By now both know, and nothing more is opened.
        let now = world.now;
        for end in &mut world.ends {
            let refused = end.tunnel.open(spec(SHARED), now);
            assert!(matches!(refused, Err(OpenError::GoingAway)), "{refused:?}");
        }
    }
}
