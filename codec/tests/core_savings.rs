//! What the core saves, and that what arrives is what was sent.
#![expect(clippy::unwrap_used, reason = "tests")]

mod core_pair;

use bytes::Bytes;
use codec::domain::Log;
use codec::policy::Level;
use core_pair::{End, agree, noise, pair, text, transfer};
use std::sync::Arc;

const MIB: usize = 1 << 20;

#[test]
fn the_same_again_costs_next_to_nothing() {
    let [mut a, mut b] = pair(64 << 20);
    let plain = text(4 * MIB, 1);
    let cold = transfer(&mut a, &mut b, 1, &plain, 1 << 17);
    let warm = transfer(&mut a, &mut b, 3, &plain, 1 << 17);
    assert!(cold < plain.len() as u64 / 2, "cold {cold}");
    assert!(warm < plain.len() as u64 / 1000, "warm {warm}");
}

#[test]
fn random_bytes_cost_their_length_once_and_nothing_again() {
    let [mut a, mut b] = pair(64 << 20);
    let plain = noise(4 * MIB, 1);
    let cold = transfer(&mut a, &mut b, 1, &plain, 1 << 17);
    let warm = transfer(&mut a, &mut b, 3, &plain, 1 << 17);
    assert!(cold < plain.len() as u64 * 10_005 / 10_000, "cold {cold}");
    assert!(warm < plain.len() as u64 / 500, "warm {warm}");
}

#[test]
fn text_behind_noise_is_found_at_once() {
    let [mut a, mut b] = pair(64 << 20);
    let known = text(MIB, 1);
    transfer(&mut a, &mut b, 1, &known, 1 << 17);
    let fresh = noise(MIB, 2);
    let both = [fresh.clone(), known].concat();
    let wire = transfer(&mut a, &mut b, 3, &both, 1 << 17);
    let most = fresh.len() as u64 * 1001 / 1000 + 4096;
    assert!(wire < most, "{wire} bytes, {most} at most");
}

#[test]
fn what_is_not_compressed_is_found_both_ways() {
    let [mut a, mut b] = pair(64 << 20);
    (a.level, b.level) = (Level::Off, Level::Off);
    let plain = text(2 * MIB, 5);
    let length = plain.len() as u64;
    let first = transfer(&mut a, &mut b, 1, &plain, 1 << 17);
    let again = transfer(&mut a, &mut b, 3, &plain, 1 << 17);
    let back = transfer(&mut b, &mut a, 2, &plain, 1 << 17);
    assert!(first > length / 2, "{first}: the text repeats itself");
    assert!(again < length / 500, "again {again}");
    assert!(back < length / 500, "back {back}");
}

#[test]
fn what_came_down_goes_up_for_next_to_nothing() {
    let [mut a, mut b] = pair(64 << 20);
    let plain = text(2 * MIB, 7);
    transfer(&mut a, &mut b, 2, &plain, 1 << 18);
    let up = transfer(&mut b, &mut a, 1, &plain, 1 << 17);
    assert!(up < plain.len() as u64 / 500, "up {up}");
}

#[test]
fn a_changed_version_costs_its_changes() {
    let [mut a, mut b] = pair(64 << 20);
    let mut plain = text(2 * MIB, 3);
    transfer(&mut a, &mut b, 1, &plain, 1 << 17);
    for at in 0..40 {
        plain.splice(at * 50_000..at * 50_000 + 10, noise(20 + at, at as u64));
    }
    let changed = transfer(&mut a, &mut b, 3, &plain, 1 << 17);
    assert!(changed < plain.len() as u64 / 200, "changed {changed}");
}

#[test]
fn small_messages_arrive_and_short_blocks_pay_no_zstd() {
    let [mut a, mut b] = pair(1 << 20);
    for length in 1..200 {
        let plain = noise(length, length as u64);
        let wire = transfer(&mut a, &mut b, 1, &plain, 1 << 17);
        assert!(wire <= length as u64 + 40, "{length} bytes took {wire}");
    }
}

#[test]
fn a_full_history_goes_on_and_keeps_the_newest() {
    let [mut a, mut b] = pair(4 << 20);
    let mut last = Vec::new();
    for seed in 0..12 {
        last = noise(MIB, seed);
        transfer(&mut a, &mut b, 1 + 2 * seed, &last, 1 << 17);
    }
    let again = transfer(&mut a, &mut b, 99, &last, 1 << 17);
    assert!(again < last.len() as u64 / 200, "{again}");
    let gone = noise(MIB, 0);
    assert!(
        transfer(&mut a, &mut b, 101, &gone, 1 << 17) >= gone.len() as u64,
        "the oldest was dropped"
    );
    for end in [&a, &b] {
        let stats = end.domain.stats();
        assert!(
            stats.own_bytes <= 4 << 20 && stats.mirror_bytes <= 4 << 20,
            "{stats:?}"
        );
    }
}

#[test]
fn what_is_about_to_be_dropped_is_copied_no_more() {
    let [mut a, mut b] = pair(64 << 20);
    let (old, new) = (noise(MIB, 1), noise(MIB, 2));
    transfer(&mut a, &mut b, 1, &old, 1 << 17);
    transfer(&mut a, &mut b, 1, &new, 1 << 17);
    let block = Bytes::from([&old[..1 << 16], &new[..1 << 16]].concat());
    let before = a.send(3, &block);
    a.domain.retire_below(Log::Own, MIB as u64);
    b.domain.retire_below(Log::Mirror, MIB as u64);
    let after = a.send(3, &block);
    assert!(before.body.len() < 1 << 12, "both halves are known");
    assert!(
        ((1 << 16)..(1 << 16) + (1 << 12)).contains(&after.body.len()),
        "only the second half is copied: {}",
        after.body.len()
    );
    // What was encoded before can still be read; and the other side does not copy it either.
    for flight in [&before, &after] {
        let header = b.register(flight);
        let decoded = b.decode(&header, &flight.body).unwrap();
        assert_eq!(decoded.plain, block);
    }
    let back = b.send(2, &Bytes::copy_from_slice(&old[1 << 17..1 << 18]));
    assert!(back.body.len() >= 1 << 17, "{}", back.body.len());
}

#[test]
fn a_history_survives_its_tunnel_and_is_warm_at_once() {
    let [mut a, mut b] = pair(64 << 20);
    let plain = text(MIB, 5);
    transfer(&mut a, &mut b, 1, &plain, 1 << 17);
    let (domain_a, domain_b) = (Arc::clone(&a.domain), Arc::clone(&b.domain));
    assert!(domain_a.try_lease().is_none(), "one tunnel at a time");
    drop((a, b));
    let (mut a, mut b) = (End::of(domain_a), End::of(domain_b));
    assert!(a.domain.reserve(100).is_none(), "nothing before agreement");
    agree(&a, &b);
    let warm = transfer(&mut a, &mut b, 1, &plain, 1 << 17);
    assert!(warm < plain.len() as u64 / 500, "warm {warm}");
}

#[test]
fn a_restarted_end_costs_savings_only() {
    let plain = text(MIB, 6);
    for forgetful in 0..2 {
        let [mut a, mut b] = pair(64 << 20);
        transfer(&mut a, &mut b, 1, &plain, 1 << 17);
        transfer(&mut b, &mut a, 2, &noise(MIB, 2), 1 << 17);
        let domains = [Arc::clone(&a.domain), Arc::clone(&b.domain)];
        drop((a, b));
        let mut ends: Vec<End> = domains
            .into_iter()
            .enumerate()
            .map(|(at, domain)| {
                if at == forgetful {
                    End::new(64 << 20, 9)
                } else {
                    End::of(domain)
                }
            })
            .collect();
        let (mut b, mut a) = (ends.pop().unwrap(), ends.pop().unwrap());
        agree(&a, &b);
        let cold = transfer(&mut a, &mut b, 1, &plain, 1 << 17);
        assert!(cold > plain.len() as u64 / 20, "nothing in common: {cold}");
        let warm = transfer(&mut a, &mut b, 3, &plain, 1 << 17);
        assert!(warm < plain.len() as u64 / 500, "warm {warm}");
        transfer(&mut b, &mut a, 2, &plain, 1 << 17);
    }
}

#[test]
fn domains_do_not_see_each_other() {
    let [mut a, mut b] = pair(64 << 20);
    let plain = text(MIB, 8);
    let alone = transfer(&mut a, &mut b, 1, &plain, 1 << 17);
    let [mut c, mut d] = pair(64 << 20);
    transfer(&mut a, &mut b, 3, &plain, 1 << 17);
    let beside = transfer(&mut c, &mut d, 1, &plain, 1 << 17);
    assert_eq!(
        alone, beside,
        "what one domain knows changes nothing in another"
    );
}
