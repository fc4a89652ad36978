#![expect(clippy::unwrap_used, reason = "tests")]

use proptest::prelude::*;

use super::*;

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

fn reserved(room: Option<Room>) -> u64 {
    match room.unwrap() {
        Room::Reserved(bytes) => bytes,
        small @ Room::Small(_) => panic!("{small:?}"),
    }
}

#[test]
fn headquarters_gives_each_new_peer_half_of_what_is_left_and_a_branch_gives_all() {
    let mut rooms = Rooms::new(Lean::Sending, 16 * GIB, 0);
    assert_eq!(reserved(rooms.reserve("a", "", None)), 7 * GIB);
    assert_eq!(reserved(rooms.reserve("b", "", None)), 7 * GIB / 2);
    assert_eq!(
        reserved(rooms.reserve("a", "c:files", None)),
        7 * GIB / 8,
        "of its peer's own"
    );
    let mut rooms = Rooms::new(Lean::Receiving, 16 * GIB, 0);
    assert_eq!(reserved(rooms.reserve("server", "", None)), 14 * GIB);
}

#[test]
fn a_quota_is_given_exactly_and_bounds_all_domains_together() {
    let mut rooms = Rooms::new(Lean::Sending, 16 * GIB, 64 * MIB);
    let quota = Some(GIB);
    let sum: u64 = (0..DOMAINS_PER_PEER_MAX)
        .filter_map(
            |n| match rooms.reserve("a", &format!("c:{n}"), quota).unwrap() {
                Room::Reserved(bytes) => Some(bytes),
                Room::Small(_) => None,
            },
        )
        .sum();
    assert!(sum <= GIB && sum > GIB / 10 * 9, "{sum}");
    assert_eq!(
        rooms.reserve("a", "c:one more", quota),
        None,
        "names are bounded"
    );
    assert_eq!(
        reserved(rooms.reserve("b", "", None)),
        15 * GIB / 2 / 8 * 7,
        "the rest is untouched"
    );
}

#[test]
fn who_comes_when_nothing_is_left_gets_a_little_memory_while_it_lasts() {
    let mut rooms = Rooms::new(Lean::Sending, 8 * MIB, 64 * MIB);
    assert_eq!(
        rooms.reserve("a", "", Some(8 * MIB)),
        Some(Room::Reserved(7 * MIB))
    );
    let small: Vec<u64> = (0..100)
        .map(|n| match rooms.reserve(&format!("late-{n}"), "", None) {
            Some(Room::Small(bytes)) => bytes,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(small[0], SMALL_BYTES);
    assert!(small.is_sorted_by(|one, next| one >= next), "{small:?}");
    assert!(small.iter().sum::<u64>() <= 64 * MIB);
    assert_eq!(small[99], 0);
    rooms.release("late-0", "");
    let again = rooms.reserve("later", "", None).unwrap().bytes();
    assert!(again >= 2 * MIB, "what is released is given again: {again}");
}

#[test]
fn a_quota_of_nothing_gives_nothing_and_a_small_one_is_not_exceeded_in_memory() {
    let mut rooms = Rooms::new(Lean::Sending, GIB, 64 * MIB);
    assert_eq!(rooms.reserve("none", "", Some(0)), Some(Room::Small(0)));
    assert_eq!(
        rooms.reserve("tiny", "", Some(2 * MIB)),
        Some(Room::Small(2 * MIB))
    );
}

#[test]
fn another_size_changes_rooms_in_proportion_but_quotas_only_as_far_as_they_must() {
    let quotas = |peer: &str| (peer == "named").then_some(2 * GIB);
    let mut rooms = Rooms::new(Lean::Sending, 10 * GIB, 0);
    rooms.reserve("named", "", quotas("named"));
    rooms.reserve("other", "", None);
    let of = |rooms: &Rooms| rooms.peers().map(|(_, bytes)| bytes).collect::<Vec<_>>();
    assert_eq!(of(&rooms), [2 * GIB, 4 * GIB]);
    rooms.resize(5 * GIB, quotas);
    assert_eq!(of(&rooms), [2 * GIB, 2 * GIB]);
    rooms.resize(GIB, quotas);
    assert_eq!(of(&rooms)[1], 2 * GIB / 5);
    assert!(of(&rooms)[0] >= 2 * GIB / 5 && of(&rooms)[0] <= 3 * GIB / 5 + 1);
    rooms.resize(10 * GIB, quotas);
    assert_eq!(of(&rooms)[0], 2 * GIB, "back to its quota");
    rooms.resize(10 * GIB, |peer| (peer == "named").then_some(GIB));
    assert_eq!(of(&rooms)[0], GIB);
    let domain = reserved(rooms.of("named", ""));
    assert!(domain.abs_diff(GIB / 8 * 7) < 8, "{domain}");
}

#[test]
fn who_was_squeezed_by_a_smaller_size_gets_a_room_with_a_larger_one() {
    for lean in [Lean::Sending, Lean::Receiving] {
        let mut rooms = Rooms::new(lean, GIB, 0);
        rooms.reserve("a", "", None);
        rooms.reserve("a", "c:x", None);
        let share = rooms.peers().map(|(_, bytes)| bytes).sum::<u64>();
        for tiny in [0, 1, MIB] {
            rooms.resize(tiny, |_| None);
            assert!(rooms.peers().all(|(_, bytes)| bytes <= tiny));
            rooms.resize(GIB, |_| None);
            let back = rooms.peers().map(|(_, bytes)| bytes).sum::<u64>();
            assert!(back.abs_diff(share) <= GIB / 1000, "{tiny}: {back}");
            let (one, two) = (reserved(rooms.of("a", "")), reserved(rooms.of("a", "c:x")));
            assert!(one >= back / 2 && two >= back / 20, "{tiny}: {one}, {two}");
            assert!(one + two <= back);
        }
    }
    // A quota is kept to, also by the domains.
    let mut rooms = Rooms::new(Lean::Sending, GIB, 0);
    rooms.reserve("a", "", Some(64 * MIB));
    rooms.resize(0, |_| Some(64 * MIB));
    rooms.resize(GIB, |_| Some(64 * MIB));
    assert_eq!(reserved(rooms.of("a", "")), 56 * MIB);
}

#[test]
fn rooms_of_an_earlier_start_are_found_again_and_never_exceed_the_size() {
    let mut rooms = Rooms::new(Lean::Sending, 4 * GIB, 0);
    rooms.restore_peer("a", 3 * GIB, None);
    assert_eq!(
        rooms.restore_domain("a", "", 2 * GIB),
        Some(Room::Reserved(2 * GIB))
    );
    assert_eq!(rooms.restore_domain("a", "", GIB), None, "once");
    assert_eq!(rooms.restore_domain("stranger", "", GIB), None);
    rooms.restore_peer("b", u64::MAX, None);
    assert_eq!(
        rooms.restore_domain("b", "", u64::MAX),
        Some(Room::Reserved(GIB))
    );
    assert_eq!(rooms.of("a", ""), rooms.reserve("a", "", None));
}

proptest! {
    #[test]
    fn whatever_happens_nobody_has_more_than_there_is(
        size in 0u64..(1 << 40),
        steps in proptest::collection::vec((0u8..4, 0usize..6, 0usize..4, proptest::option::of(0u64..(1 << 40))), 1..60),
    ) {
        let small = 64 * MIB;
        let mut rooms = Rooms::new(Lean::Sending, size, small);
        for (what, peer, name, number) in steps {
            let (peer, name) = (format!("p{peer}"), format!("d{name}"));
            match what {
                0 | 1 => {
                    rooms.reserve(&peer, &name, number);
                }
                2 => rooms.release(&peer, &name),
                _ => rooms.resize(number.unwrap_or(size), |p| (p == peer).then_some(size / 3)),
            }
            let given: u64 = rooms.peers().map(|(_, bytes)| bytes).sum();
            prop_assert!(given <= rooms.size_bytes(), "{given} of {}", rooms.size_bytes());
            let little: u64 = rooms.all().map(|(_, _, room)| match room {
                Room::Small(bytes) => bytes,
                Room::Reserved(_) => 0,
            }).sum();
            prop_assert!(little + rooms.small_rest_bytes == small);
            for peer in rooms.peers.values() {
                prop_assert!(peer.reserved_bytes() <= peer.bytes);
                prop_assert!(peer.quota_bytes.is_none_or(|quota| peer.bytes <= quota));
            }
        }
    }
}
