//! One world: what it is made of, what happens in it, and what must hold.

use std::time::Duration;

use codec::frame::DomainId;
use codec::policy::Level;
use tunnel::metrics::StreamResult;
use tunnel::state::{LevelChoice, Limits};

use crate::state_support::app::{Ending, Kind, Plan};
use crate::state_support::{Random, Setting, World, blocks_of, domain, spec};

/// Longer than any world needs once nothing happens to it from outside.
const LONG: Duration = Duration::from_secs(7200);
const WINDOW: Duration = Duration::from_secs(300);

/// Enough for every stream; with less, some are refused.
const BUDGET_BYTES: usize = 256 << 20;

/// Paths between the two ends.
const LINKS_MAX: usize = 4;

/// Blocks that wait for others, in encoded bytes: `PARKED_MAX_BYTES`.
const PARKED_MAX_BYTES: u64 = 4 << 20;

/// Encoded bytes of one block that may go beyond a limit that is smaller than it.
const ONE_BLOCK_BYTES: u64 = 600 << 10;

struct Simulation {
    random: Random,
    world: World,
    setting: Setting,
    domains: [std::sync::Arc<codec::domain::Domain>; 2],
    damage_per_mille: u64,
    opened: usize,
    calm: bool,
}

/// Makes the world of this number and lives through it; panics where something does not hold.
pub fn run(seed: u64) {
    let mut random = Random::new(seed ^ 0x5eed);
    let setting = setting(&mut random, seed);
    let damaged = setting.level == LevelChoice::Fixed(Level::Off) && random.below(2) == 0;
    let domains = [0, 1].map(|side| domain(setting.history_bytes, seed * 2 + side));
    let world = World::with_domains(setting.clone(), &domains);
    let mut simulation = Simulation {
        random,
        world,
        setting,
        domains,
        damage_per_mille: if damaged { 100 } else { 0 },
        opened: 0,
        calm: true,
    };
    simulation.live();
}

fn setting(random: &mut Random, seed: u64) -> Setting {
    let one_of = |random: &mut Random, chance| random.below(chance) == 0;
    let limits = Limits {
        initial_window_bytes: if one_of(random, 3) {
            1 + random.below(4_000)
        } else {
            16 << 10
        },
        streams_max: 2 + random.below(8),
        unacknowledged_encoded_max_bytes: if one_of(random, 4) {
            1 + random.below(400_000)
        } else {
            64 << 20
        },
        unacknowledged_plain_max_bytes: if one_of(random, 4) {
            1 + random.below(600_000)
        } else {
            256 << 20
        },
    };
    Setting {
        seed,
        blocks: blocks_of(seed),
        delay: delay(random),
        bytes_per_s: rate(random),
        budget_bytes: if one_of(random, 4) {
            (600 << 10) + usize::try_from(random.below(4 << 20)).unwrap()
        } else {
            BUDGET_BYTES
        },
        limits,
        level: if one_of(random, 4) {
            LevelChoice::Fixed(Level::Off)
        } else {
            LevelChoice::Fixed(Level::default())
        },
        history_bytes: [16 << 20, 1 << 20, 256 << 10, 0][usize::try_from(random.below(4)).unwrap()],
        job_delay_max: Duration::from_micros(random.below(20_000)),
        transmit_bytes: 1 + usize::try_from(random.below(100_000)).unwrap(),
        codec_threads: 1 + usize::try_from(random.below(4)).unwrap(),
        lost_jobs_per_mille: if one_of(random, 8) { 20 } else { 0 },
        resume_window: if one_of(random, 8) {
            Duration::ZERO
        } else {
            WINDOW
        },
    }
}

fn delay(random: &mut Random) -> Duration {
    Duration::from_micros(random.below(60_000))
}

fn rate(random: &mut Random) -> Option<u64> {
    (random.below(3) > 0).then(|| 200_000 + random.below(5_000_000))
}

impl Simulation {
    fn live(&mut self) {
        self.prepare_line(0);
        for _ in 0..self.random.below(3) {
            self.join();
        }
        for _ in 0..1 + self.random.below(3) {
            self.open();
        }
        for _ in 0..self.random.below(10) {
            self.pass(200);
            self.happen();
            self.check();
        }
        self.find_a_line();
        self.world.run(LONG);
        self.check_end();
    }

    fn prepare_line(&mut self, wire: usize) {
        for line in &mut self.world.wires[wire].lines {
            line.damage_per_mille = self.damage_per_mille;
        }
    }

    /// Up to so many milliseconds pass.
    fn pass(&mut self, most_ms: u64) {
        let time = Duration::from_micros(self.random.below(most_ms * 1000));
        let until = self.world.now + time;
        self.world.run(time);
        // A world that has nothing to do has time all the same.
        self.world.now = self.world.now.max(until);
    }

    fn happen(&mut self) {
        if self.is_lost() {
            return self.begin_anew();
        }
        match self.random.below(12) {
            0..3 => self.open(),
            3..6 => self.join(),
            6..8 => self.cut(),
            8 => self.silence(),
            9 => self.cut_all(),
            10 => self.pass(8_000),
            _ => {
                if self.random.below(4) == 0 {
                    self.begin_anew();
                }
            }
        }
    }

    fn open(&mut self) {
        let plans = [(); 2].map(|()| self.plan());
        self.calm &= plans
            .iter()
            .all(|plan| plan.ending == Ending::Finish && plan.stops_after.is_none());
        let [here, there] = plans;
        let from = usize::try_from(self.random.below(2)).unwrap();
        let domain = (self.random.below(5) > 0).then_some(DomainId::SHARED);
        if self.is_lost() {
            return;
        }
        self.world.open(from, spec(domain), here, there);
        self.opened += 1;
    }

    fn plan(&mut self) -> Plan {
        let random = &mut self.random;
        let most =
            [3, 3_000, 40_000, 40_000, 150_000, 400_000][usize::try_from(random.below(6)).unwrap()];
        let bytes = random.below(most);
        let write_max = if random.below(3) == 0 {
            1 + bytes / 40 + random.below(3_000)
        } else {
            0
        };
        Plan {
            bytes,
            kind: Kind::default(),
            ending: if random.below(8) == 0 {
                Ending::Reset
            } else {
                Ending::Finish
            },
            write_max,
            stops_after: (random.below(10) == 0).then(|| random.below(100_000)),
            consumes_after: Duration::from_millis(if random.below(4) == 0 {
                random.below(150)
            } else {
                0
            }),
            waits_for: 0,
        }
    }

    /// Links that both ends believe in and that carry something.
    fn living(&self) -> Vec<usize> {
        let wires = self.world.wires.iter().enumerate();
        wires
            .filter(|(_, wire)| {
                wire.links.iter().all(Option::is_some)
                    && !wire.lines.iter().any(|line| line.is_dead())
            })
            .map(|(index, _)| index)
            .collect()
    }

    fn is_lost(&self) -> bool {
        let mut ends = self.world.ends.iter();
        ends.any(|end| end.lost || end.tunnel.is_over())
    }

    fn is_attached(&self) -> bool {
        let believes = |side: usize| {
            let mut links = self.world.wires.iter().map(|wire| wire.links[side]);
            links.any(|link| link.is_some())
        };
        believes(0) && believes(1)
    }

    /// A path is dialed: its link joins, or resumes the tunnel where the client has none.
    fn join(&mut self) {
        if self.is_lost() {
            return;
        }
        if !self.is_attached() {
            self.resume();
        } else if self.world.wires.len() < LINKS_MAX {
            let (delay, rate) = (delay(&mut self.random), rate(&mut self.random));
            self.world.join(delay, rate);
            self.prepare_line(self.world.wires.len() - 1);
        }
    }

    fn resume(&mut self) {
        if self.setting.resume_window.is_zero() {
            return;
        }
        self.world.reconnect();
        self.prepare_line(0);
    }

    fn any_link(&mut self) -> Option<usize> {
        let living = self.living();
        let at = usize::try_from(self.random.below(living.len() as u64)).unwrap();
        living.get(at).copied()
    }

    /// A connection breaks: one end learns it at once, the other a little later.
    fn cut(&mut self) {
        let Some(wire) = self.any_link() else { return };
        self.world.black_hole_of(wire);
        let first = usize::try_from(self.random.below(2)).unwrap();
        self.world.notice_of(wire, first);
        self.pass(80);
        self.world.notice_of(wire, 1 - first);
        self.pass(80);
        self.resume_if_all_are_lost();
    }

    /// A line falls silent, and nobody says so.
    fn silence(&mut self) {
        let Some(wire) = self.any_link() else { return };
        self.world.black_hole_of(wire);
        self.pass(12_000);
        self.resume_if_all_are_lost();
    }

    fn cut_all(&mut self) {
        self.world.black_hole();
        let first = usize::try_from(self.random.below(2)).unwrap();
        self.world.notice(first);
        self.pass(2_000);
        self.resume();
    }

    fn resume_if_all_are_lost(&mut self) {
        if self.living().is_empty() && !self.is_attached() {
            self.resume();
        }
    }

    /// One of both is restarted, or the tunnel is not resumed: another begins with the same histories.
    fn begin_anew(&mut self) {
        self.check();
        let seed = self.random.next();
        let setting = Setting {
            seed,
            ..self.setting.clone()
        };
        let now = self.world.now;
        // The old tunnels let go of the histories first.
        let [here, there] = &self.domains;
        let spare = [0, 1].map(|side| domain(0, side));
        self.world = World::starting_at(now, setting.clone(), &spare);
        self.world = World::starting_at(now, setting, &[here.clone(), there.clone()]);
        self.prepare_line(0);
        self.opened = 0;
        self.calm = true;
        for _ in 0..self.random.below(3) {
            self.open();
        }
    }

    /// Whatever was done to the lines, one is there in the end.
    fn find_a_line(&mut self) {
        if self.living().is_empty() {
            if self.setting.resume_window.is_zero() {
                self.world.black_hole();
                self.world.cut();
            } else {
                self.resume();
            }
        }
    }

    fn check(&self) {
        for (side, end) in self.world.ends.iter().enumerate() {
            let stats = end.tunnel.stats();
            let peer = &self.setting.limits;
            let encoded = stats.unacknowledged_encoded_bytes;
            assert!(
                encoded <= peer.unacknowledged_encoded_max_bytes + ONE_BLOCK_BYTES,
                "end {side}: {encoded} bytes are not acknowledged"
            );
            let plain = stats.unacknowledged_plain_bytes;
            assert!(
                plain <= peer.unacknowledged_plain_max_bytes + ONE_BLOCK_BYTES,
                "end {side}: {plain} plain bytes are not acknowledged"
            );
            assert!(
                stats.parked_bytes <= PARKED_MAX_BYTES,
                "end {side}: {stats:?}"
            );
            let budget = end.budget.snapshot();
            let used: usize = tunnel::budget::Use::ALL
                .into_iter()
                .map(|usage| budget.used_for(usage))
                .sum();
            assert!(used <= end.budget.total_bytes(), "end {side}: {budget:?}");
        }
    }

    fn check_end(&self) {
        if self.is_lost() {
            assert!(
                self.setting.resume_window.is_zero(),
                "a tunnel that is resumed is lost"
            );
            return;
        }
        self.world.assert_clean();
        for end in &self.world.ends {
            if self.damage_per_mille == 0 {
                assert_eq!(end.registry.integrity_failures.get(), 0);
            }
            // Without an end that was asked for, everything is complete.
            let refuses_none = self.setting.lost_jobs_per_mille == 0
                && self.damage_per_mille == 0
                && self.setting.budget_bytes == BUDGET_BYTES;
            if self.calm && refuses_none {
                let results: Vec<_> = end
                    .closed
                    .iter()
                    .map(|(id, end)| (*id, end.result))
                    .collect();
                let complete = results
                    .iter()
                    .filter(|(_, result)| *result == StreamResult::Completed);
                assert_eq!(
                    complete.count(),
                    self.opened,
                    "{results:?} {:?}",
                    self.setting
                );
            }
        }
    }
}
