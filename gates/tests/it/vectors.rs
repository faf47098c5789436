//! The statistics against vectors of an independent reference, read when the test runs.

use gates::stats::{
    self, G6, G7, RateStratum, Side,
    asymptotic::{self, Moments},
    joint::{self, Arms, Boundary, Prior},
    mean::{self, MeanBets, MeanMargin, MeanStratum, Weighed},
    paired::{self, Pairs},
    quantile::{self, Bucket},
    rates,
};
use serde_json::Value;

const TOLERANCE: f64 = 1e-9;

/// The families this file knows; every one must be in the file, and the file may hold no other.
const FAMILIES: [&str; 10] = [
    "logE_bern_gt",
    "logE_cond",
    "cond_cs_ratio",
    "logE_cond_strata",
    "logE_joint",
    "asymp",
    "qwalk",
    "mcnemar",
    "paired_diff",
    "ipw_mean",
];

fn file() -> Value {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../testdata/statistics/vectors.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn family(name: &str) -> Vec<Value> {
    let cases = file()[name].as_array().unwrap().clone();
    assert!(!cases.is_empty(), "{name} holds no case");
    cases
}

fn num(v: &Value, key: &str) -> f64 {
    v[key].as_f64().unwrap_or_else(|| panic!("`{key}` is no number in {v}"))
}

fn int(v: &Value, key: &str) -> i64 {
    num(v, key) as i64
}

fn nums(v: &Value) -> Vec<f64> {
    v.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
}

fn close(got: f64, want: f64, case: &Value) {
    let error = (got - want).abs();
    assert!(
        error <= TOLERANCE * want.abs().max(f64::MIN_POSITIVE) || got == want,
        "{got} is not {want} (off by {error:e}) in {case}"
    );
}

fn close_or_none(got: Option<f64>, want: &Value, case: &Value) {
    match (got, want.as_f64()) {
        (Some(got), Some(want)) => close(got, want, case),
        (None, None) => {}
        (got, want) => panic!("{got:?} is not {want:?} in {case}"),
    }
}

#[test]
fn vectors_hold_every_family_and_no_unknown_one() {
    let file = file();
    let mut names: Vec<&str> = file.as_object().unwrap().keys().map(String::as_str).collect();
    names.retain(|n| *n != "_meta");
    names.sort_unstable();
    let mut known = FAMILIES;
    known.sort_unstable();
    assert_eq!(names, known);
    assert_eq!(nums(&file["_meta"]["grid6"]), G6);
    assert_eq!(nums(&file["_meta"]["grid7"]), G7);
}

#[test]
fn vectors_of_one_share() {
    let meta = &file()["_meta"];
    for v in family("logE_bern_gt") {
        let grid = nums(&meta[v["grid"].as_str().unwrap()]);
        let got = stats::bern(num(&v, "s"), num(&v, "f"), num(&v, "p0"), &grid);
        close(got, num(&v, "value"), &v);
    }
}

fn one_stratum(v: &Value) -> [RateStratum; 1] {
    [RateStratum {
        rho: num(v, "rho"),
        blue: int(v, "sb"),
        green: int(v, "sg"),
    }]
}

#[test]
fn vectors_of_two_rates_under_a_split() {
    for v in family("logE_cond") {
        let strata = one_stratum(&v);
        close(rates::log_e(&strata, num(&v, "r0"), Side::Gt), num(&v, "gt"), &v);
        close(rates::log_e(&strata, num(&v, "r0"), Side::Lt), num(&v, "lt"), &v);
    }
    for v in family("logE_cond_strata") {
        let strata: Vec<RateStratum> = v["strata"]
            .as_array()
            .unwrap()
            .iter()
            .map(|s| {
                let s = nums(s);
                RateStratum {
                    rho: s[0],
                    blue: s[1] as i64,
                    green: s[2] as i64,
                }
            })
            .collect();
        close(rates::log_e(&strata, num(&v, "r0"), Side::Gt), num(&v, "value"), &v);
    }
}

#[test]
fn vectors_of_the_confidence_sequence_of_a_ratio() {
    for v in family("cond_cs_ratio") {
        let (low, high) = rates::ratio_bounds(&one_stratum(&v), num(&v, "alpha_each_side"));
        close_or_none(low, &v["lower"], &v);
        close_or_none(high, &v["upper"], &v);
    }
}

#[test]
fn vectors_of_two_rates_without_a_split() {
    for v in family("logE_joint") {
        let arms = Arms {
            s_b: num(&v, "sb"),
            f_b: num(&v, "nb") - num(&v, "sb"),
            s_g: num(&v, "sg"),
            f_g: num(&v, "ng") - num(&v, "sg"),
        };
        let margin = num(&v, "margin");
        let boundary = match v["kind"].as_str().unwrap() {
            "ratio" => Boundary::Ratio(margin),
            "diff" => Boundary::Difference(margin),
            other => panic!("unknown kind {other}"),
        };
        let prior = Prior {
            a: num(&v, "a"),
            b: num(&v, "b"),
        };
        close(joint::log_e(&arms, boundary, prior, Side::Gt), num(&v, "value"), &v);
    }
}

#[test]
fn vectors_of_capped_means() {
    for v in family("ipw_mean") {
        let arm = |s: &Value, color: &str| -> Vec<Weighed> {
            s[color]
                .as_array()
                .unwrap()
                .iter()
                .map(|pair| {
                    let pair = nums(pair);
                    Weighed {
                        low: pair[0],
                        high: pair[0],
                        count: pair[1] as i64,
                    }
                })
                .collect()
        };
        let strata: Vec<MeanStratum> = v["strata"]
            .as_array()
            .unwrap()
            .iter()
            .map(|s| MeanStratum {
                rho: num(s, "rho"),
                blue: arm(s, "blue"),
                green: arm(s, "green"),
            })
            .collect();
        let margin = MeanMargin {
            r: num(&v, "r"),
            center: num(&v, "c"),
            cap: num(&v, "cap"),
        };
        let kappa: [f64; 6] = nums(&v["lam"]).try_into().unwrap();
        for (side, log_e, lmax) in [(Side::Gt, "logE_gt", "lmax_gt"), (Side::Lt, "logE_lt", "lmax_lt")] {
            let got = mean::log_e(&strata, margin, side, &kappa).unwrap();
            close(got, num(&v, log_e), &v[log_e]);
            for (s, want) in strata.iter().zip(nums(&v[lmax])) {
                let bets = MeanBets::new(margin, s.rho).unwrap();
                let got = match side {
                    Side::Gt => bets.lambda_max_gt,
                    Side::Lt => bets.lambda_max_lt,
                };
                close(got, want, &v[lmax]);
            }
        }
    }
}

#[test]
fn vectors_of_the_asymptotic_band() {
    for v in family("asymp") {
        let moments = |n, sum, sq| Moments {
            n: num(&v, n),
            sum: num(&v, sum),
            sum_sq: num(&v, sq),
        };
        let blue = moments("nb", "sum_b", "sumsq_b");
        let green = moments("ng", "sum_g", "sumsq_g");
        let (r, alpha, n_star) = (num(&v, "r0"), num(&v, "alpha_two_sided"), num(&v, "n_star"));
        let band = asymptotic::band(&blue, &green, r, alpha, n_star).unwrap();
        close(band.difference, num(&v, "d"), &v);
        close(band.half_width, num(&v, "margin"), &v);
        close(band.rho2, num(&v, "rho2"), &v);
        // The reported ratio interval is where the band touches 0.
        let (low, high) = asymptotic::ratio_bounds(&blue, &green, alpha, n_star);
        for r in [low, high].into_iter().flatten() {
            let band = asymptotic::band(&blue, &green, r, alpha, n_star).unwrap();
            assert!((band.difference.abs() - band.half_width).abs() < 1e-9);
        }
    }
}

/// `"(lo,hi], edges 0.05*1.02^i i=0..400 rounded 10dp"`: the edges of bucket `i`.
fn edges(i: i32) -> (f64, f64) {
    let edge = |i: i32| -> f64 { format!("{:.10}", 0.05 * 1.02f64.powi(i)).parse().unwrap() };
    (edge(i), edge(i + 1))
}

fn walk_arm(v: &Value) -> Vec<Bucket> {
    let mut arm: Vec<(i32, i64)> = v
        .as_object()
        .unwrap()
        .iter()
        .map(|(i, n)| (i.parse().unwrap(), n.as_i64().unwrap()))
        .collect();
    arm.sort_unstable();
    arm.into_iter()
        .map(|(i, count)| {
            let (low, high) = edges(i);
            Bucket { low, high, count }
        })
        .collect()
}

#[test]
fn vectors_of_the_quantile_walk() {
    for v in family("qwalk") {
        assert!(v["bucket"].as_str().unwrap().contains("0.05*1.02^i"), "{}", v["bucket"]);
        let (blue, green) = (walk_arm(&v["blue"]), walk_arm(&v["green"]));
        let tau = num(&v, "tau");
        let log_e = |r, side| quantile::log_e(&blue, &green, r, tau, side, &G7);
        for (key, side) in [("logE", Side::Gt), ("logE_lt", Side::Lt)] {
            for (r, want) in v[key].as_object().unwrap() {
                let want = want.as_f64().unwrap();
                close(log_e(r.parse().unwrap(), side), want, &v[key]);
            }
        }
        let threshold = (1.0f64 / 0.01).ln();
        let grid = || (-400..=400).map(|k| 1.02f64.powi(k));
        let lower = grid().rfind(|&r| log_e(r, Side::Gt) >= threshold);
        let upper = grid().find(|&r| log_e(r, Side::Lt) >= threshold);
        close_or_none(lower, &v["ratio_lower_on_1.02^k_alpha.01"], &v["tau"]);
        close_or_none(upper, &v["ratio_upper_on_1.02^k_alpha.01"], &v["tau"]);
        // The one-pass bounds lie on the grid of edge ratios, so within one step of this one.
        let (low, high) = quantile::ratio_bounds(&blue, &green, tau, 0.01);
        assert_eq!((low.is_some(), high.is_some()), (lower.is_some(), upper.is_some()));
        for (fine, coarse) in [(low, lower), (high, upper)] {
            if let (Some(fine), Some(coarse)) = (fine, coarse) {
                assert!((fine / coarse).ln().abs() <= 1.02f64.ln() + 1e-9, "{fine} {coarse}");
            }
        }
    }
}

#[test]
fn vectors_of_pairs() {
    for v in family("mcnemar") {
        let pairs = Pairs {
            green_only: int(&v, "green_only_fail"),
            blue_only: int(&v, "blue_only_fail"),
            same: 0,
        };
        close(paired::mcnemar(pairs), num(&v, "logE"), &v);
    }
    for v in family("paired_diff") {
        let pairs = Pairs {
            green_only: int(&v, "n10"),
            blue_only: int(&v, "n01"),
            same: int(&v, "n00"),
        };
        let lambda = nums(&v["lam_scaled"]);
        let got = paired::difference(pairs, num(&v, "delta"), &lambda);
        close(got, num(&v, "logE"), &v);
    }
}
