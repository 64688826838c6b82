//! Go durations (`24h`, `1h30m`), as Kubernetes and cert-manager read and write them.

use std::{fmt, str::FromStr};

/// A duration of whole seconds, not negative.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct GoDuration(u64);

/// Why a text is no duration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a duration: write hours, minutes and whole seconds, for example 24h or 1h30m")]
pub struct DurationError(String);

impl GoDuration {
    /// So many hours.
    pub const fn hours(hours: u64) -> Self {
        Self(hours * 3600)
    }

    /// So many minutes.
    pub const fn minutes(minutes: u64) -> Self {
        Self(minutes * 60)
    }

    /// Whole seconds.
    pub const fn as_secs(self) -> u64 {
        self.0
    }
}

impl FromStr for GoDuration {
    type Err = DurationError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || DurationError(text.to_owned());
        let (mut rest, mut seconds) = (text, 0_u64);
        if rest.is_empty() {
            return Err(error());
        }
        while !rest.is_empty() {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            let (number, tail) = rest.split_at(digits);
            let number: u64 = number.parse().map_err(|_| error())?;
            let unit = match tail.bytes().next() {
                Some(b'h') => 3600,
                Some(b'm') if !tail.starts_with("ms") => 60,
                Some(b's') => 1,
                _ => return Err(error()),
            };
            let part = number.checked_mul(unit).ok_or_else(error)?;
            seconds = seconds.checked_add(part).ok_or_else(error)?;
            rest = &tail[1..];
        }
        // Go counts nanoseconds in an int64: about 292 years.
        if seconds > i64::MAX.unsigned_abs() / 1_000_000_000 {
            Err(error())
        } else {
            Ok(Self(seconds))
        }
    }
}

impl fmt::Display for GoDuration {
    /// As Go's `Duration.String` writes it (`24h0m0s`): a webhook that decodes and encodes changes nothing.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (hours, minutes, seconds) = (self.0 / 3600, self.0 / 60 % 60, self.0 % 60);
        match (hours, minutes) {
            (0, 0) => write!(f, "{seconds}s"),
            (0, _) => write!(f, "{minutes}m{seconds}s"),
            _ => write!(f, "{hours}h{minutes}m{seconds}s"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_written_as_go_writes_them() {
        for (text, canonical) in [
            ("24h", "24h0m0s"),
            ("90m", "1h30m0s"),
            ("1h30m", "1h30m0s"),
            ("300s", "5m0s"),
            ("59s", "59s"),
            ("0s", "0s"),
        ] {
            let duration: GoDuration = text.parse().unwrap();
            assert_eq!(duration.to_string(), canonical, "{text}");
            assert_eq!(canonical.parse(), Ok(duration), "{canonical} means the same");
        }
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        for text in [
            "",
            "24",
            "h",
            "1d",
            "-1h",
            "1.5h",
            "1h ",
            "5ms",
            "1h30",
            "99999999999999999999h",
            "3000000h",
        ] {
            assert_eq!(
                text.parse::<GoDuration>(),
                Err(DurationError(text.into())),
                "{text}"
            );
        }
    }
}
