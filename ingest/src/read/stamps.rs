//! Stamps that don't stand in an attribute of their own: in the JSON text of a resource, in a feature flag, in the
//! tracestate.

use super::{
    extra::ExtraKeys,
    keys::{CONFIGURED_IN_METADATA, FLAGGED, IN_METADATA, Use},
    resolve::json_text,
    slot::Slot,
    slots::Slots,
    sources::{FLAG_KEY, FLAG_VARIANT, FLAG_VARIANT_LEGACY, SOURCES},
    value::{BadNumber, Number, Value, key_value},
    wire::Cursor,
};
use crate::read::ReadError;
use proto::Color;

/// Offers the stamps that traceAI puts into the JSON text of a resource's `metadata`.
pub(super) fn offer_metadata<'a>(metadata: &'a [u8], extra: &ExtraKeys, slots: &mut Slots<'a>) {
    for slot in [Slot::Route, Slot::Color, Slot::Version, Slot::Cohort] {
        let built_in = SOURCES.iter().filter(|s| s.slot == slot).flat_map(|source| source.keys);
        let keys = (IN_METADATA..).zip(built_in.copied());
        let configured = (CONFIGURED_IN_METADATA..).zip(extra.of(slot).iter().map(String::as_str));
        for (rank, key) in keys.chain(configured) {
            if let Some(text) = json_text(metadata, key) {
                slots.offer(Use { slot, rank }, Value::Text(text));
            }
        }
    }
}

/// The most trusted declared feature flag of a span.
#[derive(Clone, Copy)]
pub(super) struct Flag<'a> {
    /// Its place among the declared ones.
    rank: usize,
    pub(super) key: &'a [u8],
    variant: Value<'a>,
}

impl<'a> Flag<'a> {
    /// Takes a flag if it is declared and more trusted than what was found before.
    fn take(found: &mut Option<Self>, declared: &[String], key: &'a [u8], variant: Value<'a>) {
        let Some(rank) = declared.iter().position(|flag| flag.as_bytes() == key) else {
            return;
        };
        if found.is_none_or(|known| rank < known.rank) && variant.says_something() {
            *found = Some(Self { rank, key, variant });
        }
    }

    /// Takes the flag that an event tells of.
    pub(super) fn of_event(found: &mut Option<Self>, declared: &[String], event: &'a [u8]) -> Result<(), ReadError> {
        let (mut flag, mut variant, mut legacy): (&[u8], _, _) = (&[], Value::Empty, Value::Empty);
        let mut attributes = Cursor::new(event);
        while let Some(attribute) = attributes.next_len(3)? {
            let (key, value) = key_value(attribute)?;
            if key == FLAG_KEY.as_bytes() && flag.is_empty() {
                flag = value.text().unwrap_or_default();
            } else if key == FLAG_VARIANT.as_bytes() && !variant.says_something() {
                variant = value;
            } else if key == FLAG_VARIANT_LEGACY.as_bytes() && !legacy.says_something() {
                legacy = value;
            }
        }
        let variant = if variant.says_something() { variant } else { legacy };
        Self::take(found, declared, flag, variant);
        Ok(())
    }

    /// Takes the flag of the span's own attributes, and offers what the best one says: a variant, and perhaps a color.
    pub(super) fn settle(found: &mut Option<Self>, declared: &[String], slots: &mut Slots<'a>) {
        if let (Some(key), Some(variant)) = (slots.text(Slot::FlagKey), slots.get(Slot::FlagVariant)) {
            Self::take(found, declared, key, variant);
        }
        let Some(flag) = found else { return };
        slots.offer(
            Use {
                slot: Slot::Variant,
                rank: 0,
            },
            flag.variant,
        );
        let is_color = |text: &[u8]| std::str::from_utf8(text).ok().and_then(Color::parse).is_some();
        if flag.variant.text().is_some_and(is_color) {
            let (slot, rank) = (Slot::Color, FLAGGED);
            slots.offer(Use { slot, rank }, flag.variant);
        }
    }
}

/// Hex digits of a whole threshold.
const THRESHOLD_DIGITS_MAX: usize = 14;

/// Probability with which a span was sampled upstream, from `th` of OpenTelemetry's member of its tracestate; `None` if
/// it says none. `ot=th:c` rejects 12/16 of all traces.
pub(super) fn sampling(trace_state: &[u8]) -> Option<Number<f64>> {
    let mut members = trace_state.split(|&byte| byte == b',').map(<[u8]>::trim_ascii);
    let ot = members.find_map(|member| member.strip_prefix(b"ot="))?;
    let digits = ot
        .split(|&byte| byte == b';')
        .find_map(|pair| pair.strip_prefix(b"th:"))?;
    Some(threshold(digits).map(|threshold| {
        const ALL: u64 = 1 << (4 * THRESHOLD_DIGITS_MAX);
        #[allow(clippy::cast_precision_loss)]
        let share = (ALL - threshold) as f64 / ALL as f64;
        share
    }))
}

/// Of 2^56. Trailing zeros are left out on the wire.
fn threshold(digits: &[u8]) -> Number<u64> {
    let digit = |byte: &u8| match byte {
        b'0'..=b'9' => Ok(u64::from(byte - b'0')),
        b'a'..=b'f' => Ok(u64::from(byte - b'a') + 10),
        _ => Err(BadNumber::Unreadable),
    };
    if digits.is_empty() || digits.len() > THRESHOLD_DIGITS_MAX {
        return Err(BadNumber::Unreadable);
    }
    let number = digits.iter().try_fold(0, |sum, byte| Ok(sum << 4 | digit(byte)?))?;
    Ok(number << (4 * (THRESHOLD_DIGITS_MAX - digits.len())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_threshold_is_a_probability() {
        for (state, probability) in [
            ("ot=th:0", 1.0),
            ("ot=th:c", 0.25),
            ("ot=th:8", 0.5),
            ("ot=rv:abcdef01234567;th:fd70a4", 167_772.0 / 16_777_216.0),
            (
                "congo=t61rcWkgMzE, ot=p:1;th:80000000000000 ,rojo=00f067aa0ba902b7",
                0.5,
            ),
            ("ot=th:ffffffffffffff", 1.0 / 72_057_594_037_927_936.0),
        ] {
            let found = sampling(state.as_bytes()).unwrap().unwrap();
            assert!((found - probability).abs() <= 1e-12 * probability, "{state}: {found}");
        }
        for none in [
            "",
            "ot=",
            "ot=rv:abcdef01234567",
            "th:8",
            "bot=th:8",
            "ot=xth:8",
            "vendor=ot=th:8",
        ] {
            assert_eq!(sampling(none.as_bytes()), None, "{none}");
        }
        for bad in [
            "ot=th:",
            "ot=th:x",
            "ot=th:C",
            "ot=th:-1",
            "ot=th:000000000000000",
            "ot=th: 8",
        ] {
            assert_eq!(sampling(bad.as_bytes()), Some(Err(BadNumber::Unreadable)), "{bad}");
        }
    }
}
