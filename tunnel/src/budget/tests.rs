//! What each bound is for, and that nothing is lost between them.
#![expect(clippy::unwrap_used, reason = "tests")]

use proptest::prelude::*;

use super::*;

const KIB: usize = 1024;

#[test]
fn a_quarter_is_never_lent_to_credit_and_sending_may_use_all_that_is_free() {
    let budget = Budget::new(100);
    assert!(budget.try_charge(Use::Credit, 76).is_none());
    let credit = budget.try_charge(Use::Credit, 75).unwrap();
    assert!(budget.try_charge(Use::History, 1).is_none());
    let mut send = budget.try_charge(Use::Send, 25).unwrap();
    assert!(!send.try_grow(1));
    assert!(!send.try_convert(Use::Credit));
    assert_eq!(send.usage(), Use::Send);
    assert!(send.try_convert(Use::Retained));
    drop(credit);
    // All but what is kept for admitting streams.
    assert!(!send.try_grow(64));
    assert!(send.try_grow(63));
    assert_eq!(budget.snapshot().used_for(Use::Retained), 88);
    drop(send);
    assert_eq!(budget.snapshot().used_bytes, [0; 8]);
}

#[test]
fn a_stream_holds_its_reserve_and_at_most_a_sixteenth() {
    let budget = Budget::new(1_600 * KIB);
    let identity = budget.identity_share(usize::MAX);
    let stream = identity.admit().unwrap();
    assert_eq!(stream.used_bytes(), 2 * STREAM_RESERVE_BYTES);
    assert_eq!(budget.snapshot().used_for(Use::Send), STREAM_RESERVE_BYTES);
    assert_eq!(
        budget.snapshot().used_for(Use::Credit),
        STREAM_RESERVE_BYTES
    );
    let growth = 100 * KIB - 2 * STREAM_RESERVE_BYTES;
    assert!(stream.try_charge(Use::Credit, growth + 1).is_none());
    let charge = stream.try_charge(Use::Credit, growth).unwrap();
    assert!(stream.try_charge(Use::Undelivered, 1).is_none());
    assert!(
        identity.admit().is_some(),
        "another stream is not in its way"
    );
    drop(stream);
    assert_eq!(
        identity.used_bytes(),
        growth,
        "what was granted outlives the stream"
    );
    drop(charge);
    assert_eq!(identity.used_bytes(), 0);
}

#[test]
fn a_stream_is_refused_when_its_reserve_is_not_free() {
    let budget = Budget::new(4 * STREAM_RESERVE_BYTES);
    let identity = budget.identity_share(usize::MAX);
    let first = identity.admit().unwrap();
    let second = identity.admit().unwrap();
    assert!(identity.admit().is_none());
    drop(first);
    let credit = budget
        .try_charge(Use::History, 2 * STREAM_RESERVE_BYTES)
        .unwrap();
    assert!(
        identity.admit().is_none(),
        "there is room to send and none to receive"
    );
    assert_eq!(
        identity.used_bytes(),
        2 * STREAM_RESERVE_BYTES,
        "nothing is kept by it"
    );
    drop((second, credit));
    assert_eq!(budget.snapshot().used_bytes, [0; 8]);
}

#[test]
fn what_streams_have_grown_to_keeps_no_other_out() {
    let total = 4096 * KIB;
    // Bound by the share of the identity, and by the whole.
    for share in [total / 2, total] {
        for usage in [Use::Send, Use::Credit] {
            let budget = Budget::new(total);
            let identity = budget.identity_share(share);
            let streams: Vec<_> = (0..16).map(|_| identity.admit().unwrap()).collect();
            let greedy: Vec<_> = streams
                .iter()
                .flat_map(|stream| std::iter::from_fn(|| stream.try_charge(usage, KIB)))
                .collect();
            assert!(identity.try_charge(usage, KIB).is_none(), "all is taken");
            let more: Vec<_> = std::iter::from_fn(|| identity.admit()).collect();
            assert!(more.len() >= 8, "{usage:?}: {} admitted", more.len());
            drop((greedy, streams));
        }
    }
}

#[test]
fn an_identity_cannot_hold_more_than_its_share() {
    let budget = Budget::new(1_000);
    // Seven eighths are for what is not an admission.
    let (one, other) = (budget.identity_share(112), budget.identity_share(112));
    let held = one.try_charge(Use::Parked, 98).unwrap();
    assert!(one.try_charge(Use::Send, 1).is_none());
    assert!(
        one.clone().try_charge(Use::Send, 1).is_none(),
        "a clone is the same share"
    );
    assert!(other.try_charge(Use::Send, 98).is_some());
    drop(held);
    assert!(one.try_charge(Use::Send, 98).is_some());
}

#[test]
fn charges_are_split_merged_and_released_in_part() {
    let budget = Budget::new(1_000);
    let mut charge = budget.try_charge(Use::Credit, 100).unwrap();
    let mut part = charge.split(30).unwrap();
    assert!(charge.split(71).is_none());
    assert_eq!((charge.bytes(), part.bytes()), (70, 30));
    assert_eq!(part.release(10), 10);
    assert_eq!(budget.snapshot().used_for(Use::Credit), 90);
    charge.merge(part).unwrap();
    assert_eq!(charge.bytes(), 90);
    let stranger = budget
        .identity_share(100)
        .try_charge(Use::Credit, 5)
        .unwrap();
    let stranger = charge.merge(stranger).unwrap_err();
    let other_use = budget.try_charge(Use::Parked, 5).unwrap();
    assert!(charge.merge(other_use).is_err());
    assert_eq!(budget.snapshot().used_for(Use::Credit), 95);
    drop(stranger);
    assert_eq!(charge.release(1_000), 90);
    assert_eq!(budget.snapshot().used_bytes, [0; 8]);
}

#[test]
fn amounts_beyond_all_bounds_are_refused() {
    let budget = Budget::new(usize::MAX);
    let mut charge = budget.try_charge(Use::Send, usize::MAX).unwrap();
    assert!(!charge.try_grow(1));
    assert!(
        budget
            .identity_share(10)
            .try_charge(Use::Send, usize::MAX)
            .is_none()
    );
    assert!(Budget::new(0).try_charge(Use::Send, 1).is_none());
    assert!(Budget::new(0).try_charge(Use::Send, 0).is_some());
}

#[test]
fn threads_that_charge_and_release_leave_nothing_behind() {
    let budget = Budget::new(64 * KIB);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            let share = budget.identity_share(32 * KIB);
            scope.spawn(move || {
                for n in 0..5_000 {
                    let charge = share.try_charge(Use::ALL[n % 8], n);
                    if let Some(mut charge) = charge {
                        let _part = charge.split(n / 2);
                        charge.release(n / 3);
                    }
                }
            });
        }
    });
    assert_eq!(budget.snapshot().used_bytes, [0; 8]);
}

#[derive(Clone, Debug)]
enum Operation {
    Charge(usize, usize, usize),
    Grow(usize, usize),
    Release(usize, usize),
    Split(usize, usize),
    Merge(usize, usize),
    Convert(usize, usize),
    Drop(usize),
    Admit(usize),
    EndStream(usize),
}

fn operation() -> impl Strategy<Value = Operation> {
    let index = 0..64_usize;
    let bytes = 0..200 * KIB;
    prop_oneof![
        (index.clone(), 0..8_usize, bytes.clone()).prop_map(|(a, u, b)| Operation::Charge(a, u, b)),
        (index.clone(), bytes.clone()).prop_map(|(c, b)| Operation::Grow(c, b)),
        (index.clone(), bytes.clone()).prop_map(|(c, b)| Operation::Release(c, b)),
        (index.clone(), bytes).prop_map(|(c, b)| Operation::Split(c, b)),
        (index.clone(), index.clone()).prop_map(|(c, d)| Operation::Merge(c, d)),
        (index.clone(), 0..8_usize).prop_map(|(c, u)| Operation::Convert(c, u)),
        index.clone().prop_map(Operation::Drop),
        index.clone().prop_map(Operation::Admit),
        index.prop_map(Operation::EndStream),
    ]
}

proptest! {
    #[test]
    fn the_sum_of_all_permits_is_what_the_counters_say_and_never_beyond_a_bound(
        operations in proptest::collection::vec(operation(), 1..200),
    ) {
        let total = 1_000 * KIB;
        let budget = Budget::new(total);
        let identities = [budget.identity_share(300 * KIB), budget.identity_share(total)];
        let mut streams: Vec<StreamShare> = Vec::new();
        let mut charges: Vec<Charge> = Vec::new();
        for operation in operations {
            let count = charges.len();
            match operation {
                Operation::Charge(account, usage, bytes) => {
                    let usage = Use::ALL[usage];
                    let charge = match account % 4 {
                        0 => budget.try_charge(usage, bytes),
                        1 => identities[account % 2].try_charge(usage, bytes),
                        _ if streams.is_empty() => None,
                        _ => streams[account % streams.len()].try_charge(usage, bytes),
                    };
                    charges.extend(charge);
                }
                Operation::Admit(identity) => streams.extend(identities[identity % 2].admit()),
                Operation::EndStream(stream) if !streams.is_empty() => {
                    let _ended = streams.swap_remove(stream % streams.len());
                }
                Operation::Grow(at, bytes) if count > 0 => {
                    let _grown = charges[at % count].try_grow(bytes);
                }
                Operation::Release(at, bytes) if count > 0 => {
                    charges[at % count].release(bytes);
                }
                Operation::Split(at, bytes) if count > 0 => {
                    let part = charges[at % count].split(bytes);
                    charges.extend(part);
                }
                Operation::Merge(at, other) if count > 1 => {
                    let other = charges.swap_remove(other % count);
                    let refused = charges[at % (count - 1)].merge(other).err();
                    charges.extend(refused);
                }
                Operation::Convert(at, usage) if count > 0 => {
                    let _converted = charges[at % count].try_convert(Use::ALL[usage]);
                }
                Operation::Drop(at) if count > 0 => drop(charges.swap_remove(at % count)),
                _ => {}
            }
            let mut sums = [0; 8];
            for charge in &charges {
                sums[charge.usage() as usize] += charge.bytes();
            }
            sums[Use::Send as usize] += streams.len() * STREAM_RESERVE_BYTES;
            sums[Use::Credit as usize] += streams.len() * STREAM_RESERVE_BYTES;
            prop_assert_eq!(budget.snapshot().used_bytes, sums);
            let sending = sums[Use::Send as usize] + sums[Use::Retained as usize];
            let all = sums.iter().sum::<usize>();
            prop_assert!(all <= total && all - sending <= total - total / SEND_DIVISOR);
            prop_assert!(identities[0].used_bytes() <= 300 * KIB);
            prop_assert!(streams.iter().all(|stream| stream.used_bytes() <= total / 16));
        }
        drop((streams, charges));
        prop_assert_eq!(budget.snapshot().used_bytes, [0; 8]);
        prop_assert_eq!(identities.map(|identity| identity.used_bytes()), [0; 2]);
    }
}
