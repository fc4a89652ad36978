//! Values with units: durations, sizes in bytes, rates in bits per second, and bounded numbers.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::error::ValueError;

/// A number of bytes, written as `16KiB`, `20GiB`, `5MB` or `4096`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(u64);

impl Size {
    /// A size of so many bytes.
    pub const fn from_bytes(bytes: u64) -> Self {
        Self(bytes)
    }

    /// The size in bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

impl FromStr for Size {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let wrong = || {
            ValueError::wrong(format!(
                "\"{text}\" is not a size; write it like \"512MiB\" or \"20GiB\""
            ))
        };
        let (number, unit) = split_unit(text).ok_or_else(wrong)?;
        let factor: u64 = match unit {
            "" | "B" => 1,
            "kB" | "KB" => 1_000,
            "MB" => 1_000_000,
            "GB" => 1_000_000_000,
            "TB" => 1_000_000_000_000,
            "KiB" => 1 << 10,
            "MiB" => 1 << 20,
            "GiB" => 1 << 30,
            "TiB" => 1 << 40,
            _ => return Err(wrong()),
        };
        scaled(number, factor).map(Self).ok_or_else(wrong)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (unit, shift) in [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)] {
            if self.0 != 0 && self.0.is_multiple_of(1u64 << shift) {
                return write!(formatter, "{}{unit}", self.0 >> shift);
            }
        }
        write!(formatter, "{}B", self.0)
    }
}

/// A rate in bits per second, written as `20Mbit/s`, `1.5Gbit/s`, `800kbit/s` or, in bytes, `2.5MB/s`. Never zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rate(u64);

impl Rate {
    /// The rate in bits per second.
    pub const fn bits_per_second(self) -> u64 {
        self.0
    }
}

impl FromStr for Rate {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let wrong = || {
            ValueError::wrong(format!(
                "\"{text}\" is not a rate; write it like \"20Mbit/s\" or \"2.5MB/s\""
            ))
        };
        let (number, unit) = split_unit(text).ok_or_else(wrong)?;
        let (prefix, bits) = match (unit.strip_suffix("bit/s"), unit.strip_suffix("B/s")) {
            (Some(prefix), _) => (prefix, 1),
            (None, Some(prefix)) => (prefix, 8),
            (None, None) => return Err(wrong()),
        };
        let factor: u64 = match prefix {
            "" => 1,
            "k" => 1_000,
            "M" => 1_000_000,
            "G" => 1_000_000_000,
            _ => return Err(wrong()),
        };
        match scaled(number, factor * bits) {
            Some(0) => Err(ValueError::wrong(
                "a rate of 0 would stop everything; leave the key out for no limit",
            )),
            Some(rate) => Ok(Self(rate)),
            None => Err(wrong()),
        }
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (unit, factor) in [
            ("Gbit/s", 1_000_000_000),
            ("Mbit/s", 1_000_000),
            ("kbit/s", 1_000),
        ] {
            if self.0.is_multiple_of(factor) {
                return write!(formatter, "{}{unit}", self.0 / factor);
            }
        }
        write!(formatter, "{}bit/s", self.0)
    }
}

/// Reads a duration such as `5s`, `250ms` or `5m` and holds it between `least` and `most`.
///
/// # Errors
/// The text is no duration, or lies outside the bounds; the message names them.
pub fn duration_between(
    text: &str,
    least: Duration,
    most: Duration,
) -> Result<Duration, ValueError> {
    let duration = humantime::parse_duration(text).map_err(|_| {
        ValueError::wrong(format!(
            "\"{text}\" is not a duration; write it like \"5s\" or \"5m\""
        ))
    })?;
    if duration < least || duration > most {
        return Err(ValueError::wrong(format!(
            "\"{text}\" is out of range; it must lie between {} and {}",
            humantime::format_duration(least),
            humantime::format_duration(most)
        )));
    }
    Ok(duration)
}

/// Splits `1.5GiB` into `1.5` and `GiB`; one blank between them is accepted.
fn split_unit(text: &str) -> Option<(&str, &str)> {
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at_checked(end)?;
    Some((number, unit.strip_prefix(' ').unwrap_or(unit)))
}

/// `number` (digits with at most one point) times `factor`, exactly; `None` when it is no number, overflows or leaves a fraction.
fn scaled(number: &str, factor: u64) -> Option<u64> {
    // Nine digits after the point are more than any unit here needs, and keep the sum within 128 bits.
    const MAX_FRACTION_DIGITS: usize = 9;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty()
        || (number.contains('.') && fraction.is_empty())
        || fraction.len() > MAX_FRACTION_DIGITS
    {
        return None;
    }
    let mut total = u128::from(whole.parse::<u64>().ok()?) * u128::from(factor);
    if !fraction.is_empty() {
        let divisor = 10u128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
        let parts = u128::from(fraction.parse::<u64>().ok()?) * u128::from(factor);
        if parts % divisor != 0 {
            return None;
        }
        total += parts / divisor;
    }
    u64::try_from(total).ok()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn sizes_are_read_exactly() {
        for (text, bytes) in [
            ("0", 0),
            ("4096", 4096),
            ("16KiB", 16_384),
            ("1.5MiB", 1_572_864),
            ("20 GiB", 20 << 30),
            ("5MB", 5_000_000),
        ] {
            assert_eq!(text.parse::<Size>().unwrap().bytes(), bytes, "{text}");
        }
    }

    #[test]
    fn what_is_no_size_is_refused() {
        for text in [
            "",
            "GiB",
            "1..5MiB",
            "1.MiB",
            ".5MiB",
            "-1",
            "20Gib",
            "20 gigs",
            "99999999999TiB",
            "0.0000001KiB",
            "1.0000000001GB",
            "1  KiB",
        ] {
            assert!(text.parse::<Size>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_size_prints_as_it_is_written() {
        for text in ["16KiB", "20GiB", "1TiB", "1000B", "0B"] {
            assert_eq!(text.parse::<Size>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn rates_count_bits() {
        for (text, bits) in [
            ("20Mbit/s", 20_000_000),
            ("1.5Gbit/s", 1_500_000_000),
            ("800kbit/s", 800_000),
            ("2.5MB/s", 20_000_000),
            ("9bit/s", 9),
        ] {
            assert_eq!(
                text.parse::<Rate>().unwrap().bits_per_second(),
                bits,
                "{text}"
            );
        }
        for text in ["0Mbit/s", "20", "20Mbit", "20Mbps", "20mbit/s", "Mbit/s"] {
            assert!(text.parse::<Rate>().is_err(), "{text}");
        }
        assert_eq!("20Mbit/s".parse::<Rate>().unwrap().to_string(), "20Mbit/s");
    }

    #[test]
    fn durations_keep_their_bounds() {
        let read =
            |text| duration_between(text, Duration::from_millis(100), Duration::from_secs(60));
        assert_eq!(read("5s").unwrap(), Duration::from_secs(5));
        assert_eq!(read("100ms").unwrap(), Duration::from_millis(100));
        assert_eq!(read("1m").unwrap(), Duration::from_secs(60));
        for text in ["99ms", "61s", "5", "", "soon"] {
            assert!(read(text).is_err(), "{text}");
        }
    }
}
