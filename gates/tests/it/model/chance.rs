//! Random rules and random events for the model of a release's life.

use super::super::life::spec;
use gates::life::Command;
use proptest::{prelude::*, sample::subsequence};
use proto::{
    cell::PPM,
    release::{Approval, Margin, Mode, NoData, ReleaseSpec, Step, Unit},
};
use std::time::Duration;

/// What differs between releases.
#[derive(Debug, Clone)]
pub struct Rules {
    pub mode: Mode,
    pub observed: bool,
    mirror: Option<u64>,
    paired: Pairs,
    steps: Vec<(u32, u64)>,
    approval: Approval,
    no_data: NoData,
    unit: Unit,
    min_duration: u64,
    cool_down: u64,
    horizon: u64,
    /// Seconds that the route still cools down.
    pub cooling: Option<u64>,
    /// Whether thresholds are frozen from the start.
    pub frozen_thresholds: bool,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Pairs {
    None,
    One,
    All,
}

impl Rules {
    pub fn spec(&self) -> ReleaseSpec {
        let mut spec = spec(self.mode);
        spec.mirror = self.mirror.map(Duration::from_secs);
        for (i, gate) in spec.gates.iter_mut().enumerate() {
            if self.paired == Pairs::All || self.paired == Pairs::One && i == 0 {
                gate.paired = true;
                gate.margin = Margin::MaxRatio(1.2);
            }
        }
        spec.steps = self
            .steps
            .iter()
            .map(|&(ppm, min)| Step {
                green: f64::from(ppm) / f64::from(PPM),
                min: Duration::from_secs(min),
            })
            .collect();
        spec.approval = self.approval;
        spec.no_data = self.no_data;
        spec.unit = self.unit;
        spec.min_duration = Duration::from_secs(self.min_duration);
        spec.cool_down = Duration::from_secs(self.cool_down);
        spec.horizon = Duration::from_secs(self.horizon);
        spec
    }
}

/// What a judgement may find beside numbers enough.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Find {
    Passes,
    Fails,
    Rollback,
    FallbackOfA,
    FallbackOfB,
    FallbackOverall,
    Hold,
    HoldOfA,
    SplitUnknown,
    Suspended,
    SampleRatio,
    BreakerFires,
    CommonOutage,
    Impaired,
    Refused,
    Obstacle,
    FewTraces,
    FewPairs,
    NoGreen,
    NoBlue,
    FallenStay,
}

const FINDS: [Find; 20] = [
    Find::Fails,
    Find::Rollback,
    Find::FallbackOfA,
    Find::FallbackOfB,
    Find::FallbackOverall,
    Find::Hold,
    Find::HoldOfA,
    Find::SplitUnknown,
    Find::Suspended,
    Find::SampleRatio,
    Find::BreakerFires,
    Find::CommonOutage,
    Find::Impaired,
    Find::Refused,
    Find::Obstacle,
    Find::FewTraces,
    Find::FewPairs,
    Find::NoGreen,
    Find::NoBlue,
    Find::FallenStay,
];

/// Where traffic was since the last judgement.
#[derive(Debug, Clone, Copy)]
pub enum Traffic {
    /// Where the gateway was told.
    AsTold,
    /// So many percent green.
    Green(u8),
    /// There was none.
    None,
}

#[derive(Debug, Clone)]
pub enum Happens {
    Judged(u64, Traffic, Vec<Find>),
    /// The same once more, at the same time.
    Again,
    ThresholdsFrozen,
    Delivered,
    Undelivered,
    Orders(Command),
    /// Muted until so many seconds from then.
    Mutes(&'static str, i64),
    Closed,
    Restart,
    Freeze(bool),
    /// The server's clock is set, seconds.
    Clock(i64),
}

pub fn rules() -> impl Strategy<Value = Rules> {
    let mode = prop_oneof![4 => Just(Mode::Act), 2 => Just(Mode::Advise), 1 => Just(Mode::Observe)];
    let ramps = prop_oneof![
        Just(vec![(50_000, 5), (250_000, 5), (PPM, 5)]),
        Just(vec![(500_000, 0)]),
        Just(vec![(10_000, 600), (PPM, 0)]),
        Just(vec![(PPM, 3)]),
        Just(vec![]),
    ];
    let mirror = prop_oneof![2 => Just(None), 1 => Just(Some(0)), 1 => Just(Some(20))];
    let approval = prop_oneof![3 => Just(Approval::None), 1 => Just(Approval::Promote)];
    let no_data = prop_oneof![Just(NoData::Hold), Just(NoData::Fail), Just(NoData::Extend)];
    let unit = prop_oneof![Just(Unit::Trace), Just(Unit::Session), Just(Unit::User)];
    let pairs = prop_oneof![Just(Pairs::None), Just(Pairs::One), Just(Pairs::All)];
    let times = (
        prop_oneof![2 => Just(0), 1 => Just(60)],
        prop_oneof![2 => Just(0), 1 => Just(90)],
        prop_oneof![Just(3_600), Just(400)],
        prop_oneof![3 => Just(None), 1 => Just(Some(30))],
    );
    let flags = (prop::bool::weighted(0.05), prop::bool::weighted(0.8));
    (mode, ramps, mirror, approval, no_data, unit, pairs, times, flags).prop_map(
        |(mode, steps, mirror, approval, no_data, unit, paired, times, flags)| {
            // what the check refuses does not live
            let needs_mirror = paired != Pairs::None || steps.first().is_none_or(|s| s.0 == PPM);
            Rules {
                mode,
                observed: flags.0,
                mirror: mirror.or(needs_mirror.then_some(0)),
                paired,
                steps,
                approval,
                no_data,
                unit,
                min_duration: times.0,
                cool_down: times.1,
                horizon: times.2,
                cooling: times.3,
                frozen_thresholds: flags.1,
            }
        },
    )
}

fn judged() -> impl Strategy<Value = Happens> {
    let secs = prop_oneof![20 => 1..12_u64, 3 => 60..200_u64, 1 => 310..700_u64];
    let traffic = prop_oneof![
        12 => Just(Traffic::AsTold),
        2 => (0..=100_u8).prop_map(Traffic::Green),
        1 => Just(Traffic::None),
    ];
    let trouble = prop_oneof![
        6 => Just(vec![]),
        3 => subsequence(&FINDS[..], 1),
        1 => subsequence(&FINDS[..], 2..4),
    ];
    (secs, traffic, trouble, any::<bool>()).prop_map(|(secs, traffic, mut finds, passes)| {
        if passes {
            finds.push(Find::Passes);
        }
        Happens::Judged(secs, traffic, finds)
    })
}

pub fn happens() -> impl Strategy<Value = Happens> {
    let command = prop_oneof![
        2 => Just(Command::Promote),
        3 => Just(Command::Advance),
        1 => Just(Command::Rollback),
        1 => Just(Command::Hold),
        3 => Just(Command::Resume),
        1 => Just(Command::Ack),
        1 => Just(Command::Unmute { gate: "p99 latency".into() }),
    ];
    let mutes = (
        prop_oneof![3 => Just("p99 latency"), 1 => Just("no such gate")],
        prop_oneof![4 => Just(30), 1 => Just(-1)],
    );
    prop_oneof![
        40 => judged(),
        3 => Just(Happens::Again),
        2 => Just(Happens::ThresholdsFrozen),
        3 => Just(Happens::Delivered),
        1 => Just(Happens::Undelivered),
        4 => command.prop_map(Happens::Orders),
        1 => mutes.prop_map(|(gate, secs)| Happens::Mutes(gate, secs)),
        1 => Just(Happens::Closed),
        2 => Just(Happens::Restart),
        2 => any::<bool>().prop_map(Happens::Freeze),
        1 => prop_oneof![Just(-3_600), Just(-1), Just(86_400)].prop_map(Happens::Clock),
    ]
}
