//! Failures of single operations, a disk that dies or is full, and power that is lost at any moment.

use super::*;
use proptest::prelude::*;

fn failing(range: Range<u64>) -> Faults {
    Faults {
        failing: range,
        space_bytes: None,
    }
}

#[test]
fn whichever_operation_fails_the_log_goes_on() {
    let count = operations();
    assert!(count > 50, "{count}");
    for n in 0..count {
        let disk = MemoryDisk::default();
        disk.set_faults(failing(n..n + 1));
        let mut machine = match Machine::start(&disk) {
            Ok(machine) => machine,
            Err(_) => Machine::start(&disk).unwrap(),
        };
        let mut failures = 0;
        script(&mut machine, |_| {
            failures += 1;
            Ok(())
        })
        .unwrap();
        assert!(failures <= 1, "operation {n}: {failures} failures");
        disk.set_faults(Faults::default());
        goes_on(&mut machine);
        assert!(machine.set_aside <= 1, "operation {n}");
    }
}

#[test]
fn a_disk_that_dies_at_any_moment_leaves_a_log_that_can_be_read() {
    for n in 0..operations() {
        let disk = MemoryDisk::default();
        disk.set_faults(failing(n..u64::MAX));
        let Ok(mut machine) = Machine::start(&disk) else {
            continue;
        };
        script(&mut machine, |_| Ok(())).unwrap();
        disk.crash(n);
        machine.restart(Loss::None).unwrap();
        goes_on(&mut machine);
    }
}

#[test]
fn power_may_be_lost_at_any_moment() {
    for n in 0..operations() {
        for seed in 0..4 {
            let disk = MemoryDisk::default();
            disk.set_faults(failing(n..u64::MAX));
            let Ok(mut machine) = Machine::start(&disk) else {
                disk.crash(seed);
                let mut machine = Machine::start(&disk).unwrap();
                goes_on(&mut machine);
                continue;
            };
            let ended = script(&mut machine, Err);
            disk.crash(n * 4 + seed);
            assert!(ended.is_err(), "operation {n}");
            machine.restart(Loss::None).unwrap();
            goes_on(&mut machine);
        }
    }
}

#[test]
fn a_full_disk_loses_nothing_that_was_persisted() {
    let all_bytes = {
        let disk = MemoryDisk::default();
        let mut machine = Machine::start(&disk).unwrap();
        script(&mut machine, Err).unwrap();
        let lengths = disk
            .files()
            .into_iter()
            .map(|path| disk.contents(&path).unwrap().len());
        lengths.sum::<usize>() as u64
    };
    for space_bytes in (0..all_bytes + 100_000).step_by(41_113) {
        let disk = MemoryDisk::default();
        disk.set_faults(Faults {
            failing: 0..0,
            space_bytes: Some(space_bytes),
        });
        let mut machine = Machine::start(&disk).unwrap();
        let mut full = 0;
        script(&mut machine, |cause| {
            assert_eq!(cause.kind(), io::ErrorKind::StorageFull);
            full += 1;
            Ok(())
        })
        .unwrap();
        assert!(full > 0 || space_bytes > all_bytes / 2, "{space_bytes}");
        let before = machine.state.clone();
        machine.restart(Loss::None).unwrap();
        assert!(full > 0 || machine.state.held == before.held);
        disk.set_faults(Faults::default());
        goes_on(&mut machine);
    }
}

#[test]
fn what_a_run_failed_to_sync_is_not_relied_on_by_the_next() {
    for n in 0..30 {
        for seed in 0..4 {
            let disk = MemoryDisk::default();
            let mut machine = Machine::start(&disk).unwrap();
            machine.append(10_000);
            machine.skip(SEGMENT_BYTES_MIN);
            machine.flush().unwrap();
            // A new segment: what is written of it can be read after a sync that failed, and is not durable.
            machine.append(100_000);
            let at = disk.operations() + n;
            disk.set_faults(failing(at..at + 1));
            let _failed = machine.flush();
            disk.set_faults(Faults::default());
            machine.restart(Loss::None).unwrap();
            machine.append(1);
            machine.flush().unwrap();
            disk.crash(seed);
            machine.restart(Loss::None).unwrap();
            goes_on(&mut machine);
        }
    }
}

#[derive(Debug, Clone)]
enum Step {
    Append(u64),
    Skip(u64),
    /// Of what is there, in 255ths.
    Floor(u8),
    Flush,
    /// A flush in which the operation after so many fails.
    FlushFails(u64),
    Restart,
    /// Power is lost in a flush, after so many operations.
    PowerLost(u64, u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1..200_000u64).prop_map(Step::Append),
        1 => (1..2_000_000u64).prop_map(Step::Skip),
        1 => any::<u8>().prop_map(Step::Floor),
        3 => Just(Step::Flush),
        2 => (0..30u64).prop_map(Step::FlushFails),
        1 => Just(Step::Restart),
        2 => (0..30u64, any::<u64>()).prop_map(|(n, seed)| Step::PowerLost(n, seed)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn whatever_happens_what_is_held_is_what_was_written(
        steps in proptest::collection::vec(step(), 1..30),
    ) {
        let disk = MemoryDisk::default();
        let mut machine = Machine::start(&disk).unwrap();
        for step in steps {
            match step {
                Step::Append(length) => machine.append(length),
                Step::Skip(length) => machine.skip(length),
                Step::Floor(part) => {
                    let span = machine.state.tail - machine.state.floor;
                    machine.raise_floor(machine.state.floor + span * u64::from(part) / 255);
                }
                Step::Flush => machine.flush().unwrap(),
                Step::FlushFails(after) => {
                    let at = disk.operations() + after;
                    disk.set_faults(failing(at..at + 1));
                    let _failed = machine.flush();
                    disk.set_faults(Faults::default());
                }
                Step::Restart => machine.restart(Loss::None).unwrap(),
                Step::PowerLost(after, seed) => {
                    let at = disk.operations() + after;
                    disk.set_faults(failing(at..u64::MAX));
                    let _failed = machine.flush();
                    disk.crash(seed);
                    machine.restart(Loss::None).unwrap();
                }
            }
        }
        goes_on(&mut machine);
    }
}
