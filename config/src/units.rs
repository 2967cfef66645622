//! Durations, sizes and networks as people write them: `"200ms"`, `"1MiB"`, `"10.0.0.0/8"`.
//!
//! A plain number is refused, because nobody remembers whether it meant seconds or milliseconds.

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use thiserror::Error;

/// Why a text is no duration, size or network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum UnitError {
    #[error("expected a number and a unit (us, ms, s, m, h, d) as in \"1s\" or \"1m30s\"")]
    Duration,
    #[error("expected a size with a unit (B, KiB, MiB, GiB, kB, MB, GB) as in \"1MiB\"")]
    Size,
    #[error("expected a network as in \"10.0.0.0/8\" or an address")]
    Network,
}

/// Reads `"1m30s"`, `"200ms"`, `"1.5s"`, `"0s"`; microseconds to days, larger units first or not.
///
/// # Errors
///
/// [`UnitError::Duration`] for anything else, also for a number without a unit and for more than 100 years.
pub fn parse_duration(text: &str) -> Result<Duration, UnitError> {
    let mut rest = text.trim();
    let mut total = Duration::ZERO;
    if rest.is_empty() {
        return Err(UnitError::Duration);
    }
    while !rest.is_empty() {
        let (number, unit, after) = split_number(rest).ok_or(UnitError::Duration)?;
        let scale = match unit {
            "us" | "µs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" | "min" => 60.0,
            "h" => 3600.0,
            "d" => 86_400.0,
            _ => return Err(UnitError::Duration),
        };
        let seconds = number * scale;
        if seconds > LONGEST_SECONDS {
            return Err(UnitError::Duration);
        }
        // In whole microseconds, so that 0.1s is exactly 100ms.
        let part =
            Duration::try_from_secs_f64((seconds * 1e6).round() / 1e6).map_err(|_| UnitError::Duration)?;
        total += part;
        rest = after.trim_start();
    }
    if total.as_secs_f64() > LONGEST_SECONDS { Err(UnitError::Duration) } else { Ok(total) }
}

const LONGEST_SECONDS: f64 = 100.0 * 366.0 * 86_400.0;

/// Writes the shortest form that [`parse_duration`] reads back as the same duration, to the microsecond.
pub fn format_duration(duration: Duration) -> String {
    let micros = duration.as_micros();
    let units =
        [("d", 86_400_000_000), ("h", 3_600_000_000), ("m", 60_000_000), ("s", 1_000_000), ("ms", 1000)];
    for (unit, size) in units {
        if micros >= size && micros.is_multiple_of(size) {
            return format!("{}{unit}", micros / size);
        }
    }
    if micros == 0 { "0s".to_owned() } else { format!("{micros}us") }
}

/// Reads `"1MiB"`, `"512kB"`, `"0B"`.
///
/// # Errors
///
/// [`UnitError::Size`] for anything else, also for a number without a unit.
pub fn parse_size(text: &str) -> Result<u64, UnitError> {
    let (number, unit, rest) = split_number(text.trim()).ok_or(UnitError::Size)?;
    let scale = match unit.to_ascii_lowercase().as_str() {
        "b" => 1.0,
        "kib" | "k" => 1024.0,
        "mib" | "m" => 1024.0 * 1024.0,
        "gib" | "g" => 1024.0 * 1024.0 * 1024.0,
        "kb" => 1e3,
        "mb" => 1e6,
        "gb" => 1e9,
        _ => return Err(UnitError::Size),
    };
    let bytes = (number * scale).round();
    if !rest.is_empty() || bytes > LARGEST_BYTES {
        return Err(UnitError::Size);
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked: 0 to 2^50")]
    Ok(bytes as u64)
}

/// 1 PiB: every whole number up to here is exact as a float.
const LARGEST_BYTES: f64 = (1u64 << 50) as f64;

/// Writes the shortest form that [`parse_size`] reads back as the same size.
pub fn format_size(bytes: u64) -> String {
    for (unit, size) in [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)] {
        if bytes >= size && bytes.is_multiple_of(size) {
            return format!("{}{unit}", bytes / size);
        }
    }
    format!("{bytes}B")
}

/// Reads `"10.0.0.0/8"`, `"fd00::/8"`, or an address, which stands for itself alone.
///
/// # Errors
///
/// [`UnitError::Network`] for anything else.
pub fn parse_network(text: &str) -> Result<IpNet, UnitError> {
    let text = text.trim();
    text.parse::<IpNet>()
        .or_else(|_| text.parse::<IpAddr>().map(IpNet::from))
        .map(|network| network.trunc())
        .map_err(|_| UnitError::Network)
}

/// Splits `"1.5ms rest"` into the number, the unit and what follows.
fn split_number(text: &str) -> Option<(f64, &str, &str)> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let (number, rest) = text.split_at(digits);
    let rest = rest.trim_start();
    let letters = rest.find(|c: char| !c.is_alphabetic()).unwrap_or(rest.len());
    let (unit, rest) = rest.split_at(letters);
    let number: f64 = number.parse().ok()?;
    number.is_finite().then_some((number, unit, rest))
}

macro_rules! text_schema {
    ($(#[$doc:meta])* $name:ident: $format:literal $(, $pattern:literal)?) => {
        $(#[$doc])*
        #[derive(Debug)]
        pub(crate) enum $name {}

        impl schemars::JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({ "type": "string", "format": $format $(, "pattern": $pattern)? })
            }
        }
    };
}

text_schema! {
    /// The schema of a duration.
    DurationText: "duration-with-unit", r"^\s*([0-9]+(\.[0-9]+)?\s*(us|µs|ms|s|m|min|h|d)\s*)+$"
}
text_schema! {
    /// The schema of a size.
    SizeText: "size-with-unit", r"^\s*[0-9]+(\.[0-9]+)?\s*([bB]|[kKmMgG]([iI]?[bB])?)\s*$"
}
text_schema! {
    /// The schema of a network.
    Network: "network"
}
text_schema! {
    /// The schema of an IP address.
    Address: "ip"
}
text_schema! {
    /// The schema of a path that need not exist.
    PathText: "path"
}
text_schema! {
    /// The schema of the path of a file that is read.
    FileText: "file"
}

/// `#[serde(with = "units::duration")]`: a [`Duration`] as text.
pub(crate) mod duration {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer, de};

    pub(crate) fn serialize<S: Serializer>(value: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&super::format_duration(*value))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        super::parse_duration(&String::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

/// `#[serde(with = "units::size")]`: a number of bytes as text.
pub(crate) mod size {
    use serde::{Deserialize, Deserializer, Serializer, de};

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde calls")]
    pub(crate) fn serialize<S: Serializer>(value: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&super::format_size(*value))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        super::parse_size(&String::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

/// `#[serde(with = "units::networks")]`: a list of networks as texts.
pub(crate) mod networks {
    use ipnet::IpNet;
    use serde::{Deserialize, Deserializer, Serializer, de};

    pub(crate) fn serialize<S: Serializer>(value: &[IpNet], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(value.iter().map(ToString::to_string))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<IpNet>, D::Error> {
        let texts = Vec::<String>::deserialize(deserializer)?;
        texts.iter().map(|text| super::parse_network(text).map_err(de::Error::custom)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        let check = |text: &str, expected: Option<u128>| {
            assert_eq!(parse_duration(text).ok().map(|d| d.as_micros()), expected, "{text}");
        };
        for (text, micros) in [
            ("200ms", 200_000),
            ("1s", 1_000_000),
            ("0s", 0),
            ("1m30s", 90_000_000),
            ("1m 30s", 90_000_000),
            ("1.5s", 1_500_000),
            ("0.1s", 100_000),
            ("50us", 50),
            ("50µs", 50),
            (" 2h ", 7_200_000_000),
            ("7d", 604_800_000_000),
            ("5min", 300_000_000),
        ] {
            check(text, Some(micros));
        }
        for text in [
            "",
            " ",
            "5",
            "s",
            "-1s",
            "1x",
            "1s5",
            "1..5s",
            "nan",
            "infs",
            "1e3s",
            "99999999d",
            "1 week",
            "é",
        ] {
            check(text, None);
        }
    }

    #[test]
    fn sizes() {
        let check = |text: &str, expected: Option<u64>| assert_eq!(parse_size(text).ok(), expected, "{text}");
        for (text, bytes) in [
            ("1MiB", 1 << 20),
            ("0B", 0),
            ("1kB", 1000),
            ("1.5 KiB", 1536),
            ("2GB", 2_000_000_000),
            ("4k", 4096),
        ] {
            check(text, Some(bytes));
        }
        for text in ["", "1", "MiB", "-1B", "1MiB2", "1 MiB x", "9999999999GiB", "1TiBs"] {
            check(text, None);
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        for micros in [0, 1, 999, 1000, 1_500_000, 90_000_000, 3_600_000_000, 86_400_000_000 * 400] {
            let duration = Duration::from_micros(micros);
            assert_eq!(parse_duration(&format_duration(duration)), Ok(duration));
        }
        for bytes in [0, 1, 1023, 1024, 1 << 20, (1 << 20) + 1, 3 << 30] {
            assert_eq!(parse_size(&format_size(bytes)), Ok(bytes));
        }
    }

    #[test]
    fn networks() {
        let check = |text: &str, expected: Option<&str>| {
            assert_eq!(parse_network(text).ok().map(|n| n.to_string()).as_deref(), expected, "{text}");
        };
        check("10.0.0.0/8", Some("10.0.0.0/8"));
        check("10.1.2.3/8", Some("10.0.0.0/8"));
        check("::1", Some("::1/128"));
        check("192.168.1.1", Some("192.168.1.1/32"));
        check("10.0.0.0/33", None);
        check("example.com", None);
    }
}
