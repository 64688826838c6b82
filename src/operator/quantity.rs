//! Kubernetes quantities (`500m`, `64Mi`, `1e3`): exact, compared and added, and written the way
//! the API server writes them, so that what is applied equals what is read back.

use std::{
    fmt,
    iter::Sum,
    ops::{Add, Mul},
    str::FromStr,
};

use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;

/// How a quantity is written; results of arithmetic keep the left side's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    /// Powers of 1024: `Ki`, `Mi`, …
    Binary,
    /// Powers of 1000: `n`, `u`, `m`, none, `k`, `M`, …
    Decimal,
    /// Powers of ten: `e3`.
    Exponent,
}

/// An exact, non-negative amount of a resource.
#[derive(Clone, Copy, Debug)]
pub struct Quantity {
    /// In units of 10⁻⁹, the finest that Kubernetes keeps.
    nanos: u128,
    format: Format,
}

impl Default for Quantity {
    fn default() -> Self {
        Self::ZERO
    }
}

/// Why a text is no quantity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    /// No number with an optional suffix.
    #[error("`{0}` is not a quantity: write a number and an optional suffix, for example 500m, 2 or 64Mi")]
    Syntax(String),
    /// Less than nothing.
    #[error("`{0}` is negative")]
    Negative(String),
    /// More than 2⁶³-1 units, finer than 10⁻⁹, or a binary suffix with a fraction of one unit.
    #[error("`{0}` is out of range: at most 2^63-1, no finer than 1n, and whole with a binary suffix")]
    Range(String),
}

const NANO: u128 = 1_000_000_000;
/// The greatest amount that Kubernetes keeps: 2⁶³-1.
const MAX_UNITS: u128 = i64::MAX as u128;
const BINARY: [(&str, u32); 6] = [
    ("Ki", 10),
    ("Mi", 20),
    ("Gi", 30),
    ("Ti", 40),
    ("Pi", 50),
    ("Ei", 60),
];
const DECIMAL: [(&str, i32); 10] = [
    ("n", -9),
    ("u", -6),
    ("m", -3),
    ("", 0),
    ("k", 3),
    ("M", 6),
    ("G", 9),
    ("T", 12),
    ("P", 15),
    ("E", 18),
];

impl Quantity {
    /// Nothing.
    pub const ZERO: Self = Self {
        nanos: 0,
        format: Format::Decimal,
    };

    /// So many `Gi`.
    pub const fn gibibytes(count: u32) -> Self {
        Self {
            nanos: ((count as u128) << 30) * NANO,
            format: Format::Binary,
        }
    }

    /// Whether it is nothing.
    pub fn is_zero(self) -> bool {
        self.nanos == 0
    }

    /// As the API types have it.
    pub fn to_api(self) -> ApiQuantity {
        ApiQuantity(self.to_string())
    }
}

impl FromStr for Quantity {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let syntax = || QuantityError::Syntax(text.to_owned());
        let range = || QuantityError::Range(text.to_owned());
        let body = text.strip_prefix('+').unwrap_or(text);
        if body.starts_with('-') {
            return Err(QuantityError::Negative(text.to_owned()));
        }
        let end = body
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(body.len());
        let (number, suffix) = body.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
            return Err(syntax());
        }
        let (scale, exponent, format) = scale_of(suffix).ok_or_else(syntax)?;
        // value = digits × 10^(exponent - fraction digits) × scale, kept in units of 10⁻⁹.
        let fraction = fraction.trim_end_matches('0');
        let digits = format!("{whole}{fraction}");
        let digits = digits.trim_start_matches('0');
        let mantissa: u128 = if digits.is_empty() {
            0
        } else {
            digits.parse().map_err(|_| range())?
        };
        let places = i32::try_from(fraction.len()).map_err(|_| range())?;
        let power = exponent - places + 9;
        let scaled = mantissa.checked_mul(scale).ok_or_else(range)?;
        let factor = 10_u128.checked_pow(power.unsigned_abs()).ok_or_else(range)?;
        let nanos = if power >= 0 {
            scaled.checked_mul(factor).ok_or_else(range)?
        } else if scaled % factor == 0 {
            scaled / factor
        } else {
            return Err(range());
        };
        // The API server rounds a fraction of a byte up; what it would change is refused instead.
        if nanos > MAX_UNITS * NANO || (format == Format::Binary && !nanos.is_multiple_of(NANO)) {
            return Err(range());
        }
        Ok(Self { nanos, format })
    }
}

/// A suffix as (factor, power of ten, format).
fn scale_of(suffix: &str) -> Option<(u128, i32, Format)> {
    if let Some((_, bits)) = BINARY.iter().find(|(name, _)| *name == suffix) {
        return Some((1 << bits, 0, Format::Binary));
    }
    if let Some((_, power)) = DECIMAL.iter().find(|(name, _)| *name == suffix) {
        return Some((1, *power, Format::Decimal));
    }
    let exponent = suffix.strip_prefix(['e', 'E'])?;
    let digits = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
    if digits.is_empty() || digits.len() > 2 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    Some((1, exponent.parse().ok()?, Format::Exponent))
}

impl fmt::Display for Quantity {
    /// The canonical form of `resource.Quantity`: the greatest suffix that leaves a whole number.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Below 1024 the API server writes binary quantities as decimal ones.
        if self.format == Format::Binary && self.nanos >= 1024 * NANO && self.nanos.is_multiple_of(NANO) {
            let units = self.nanos / NANO;
            let (suffix, bits) = BINARY
                .iter()
                .rev()
                .find(|(_, bits)| units.is_multiple_of(1 << bits))
                .copied()
                .unwrap_or(("", 0));
            return write!(f, "{}{suffix}", units >> bits);
        }
        let (suffix, power) = DECIMAL
            .iter()
            .rev()
            .find(|(_, power)| self.nanos.is_multiple_of(10_u128.pow((power + 9).unsigned_abs())))
            .copied()
            .unwrap_or(("n", -9));
        let (suffix, power) = if self.nanos == 0 { ("", 0) } else { (suffix, power) };
        let mantissa = self.nanos / 10_u128.pow((power + 9).unsigned_abs());
        match self.format {
            Format::Exponent if power != 0 => write!(f, "{mantissa}e{power}"),
            _ => write!(f, "{mantissa}{suffix}"),
        }
    }
}

impl PartialEq for Quantity {
    /// By amount: `1000m` is `1`.
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

impl Add for Quantity {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        let format = if self.is_zero() { other.format } else { self.format };
        Self {
            nanos: self.nanos.saturating_add(other.nanos),
            format,
        }
    }
}

impl Mul<u32> for Quantity {
    type Output = Self;

    fn mul(self, times: u32) -> Self {
        Self {
            nanos: self.nanos.saturating_mul(u128::from(times)),
            format: self.format,
        }
    }
}

impl Sum for Quantity {
    fn sum<I: Iterator<Item = Self>>(quantities: I) -> Self {
        quantities.fold(Self::ZERO, Add::add)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quantity(text: &str) -> Quantity {
        text.parse().unwrap()
    }

    /// Pairs taken from `k8s.io/apimachinery/pkg/api/resource`'s rules for canonical form.
    #[test]
    fn quantities_are_written_as_the_api_server_writes_them() {
        for (text, canonical) in [
            ("0", "0"),
            ("0Mi", "0"),
            ("1", "1"),
            ("1000m", "1"),
            ("1500m", "1500m"),
            ("0.5", "500m"),
            (".5", "500m"),
            ("2.", "2"),
            ("+2", "2"),
            ("1.5", "1500m"),
            ("0.1m", "100u"),
            ("1000", "1k"),
            ("1024", "1024"),
            ("1000000k", "1G"),
            ("1Ki", "1Ki"),
            ("1024Ki", "1Mi"),
            ("1536Mi", "1536Mi"),
            ("1.5Gi", "1536Mi"),
            ("0.5Ki", "512"),
            ("1e3", "1e3"),
            ("1E3", "1e3"),
            ("12e2", "1200"),
            ("1e-3", "1e-3"),
            ("5E", "5E"),
            ("1Ei", "1Ei"),
        ] {
            assert_eq!(quantity(text).to_string(), canonical, "{text}");
            assert_eq!(
                quantity(canonical).to_string(),
                canonical,
                "{canonical} is a fixed point"
            );
        }
    }

    #[test]
    fn what_is_no_quantity_is_refused() {
        for text in [
            "", ".", "m", "1 Gi", "1GiB", "1K", "1.2.3", "e3", "1e", "1e+", "0x10", "١", "1e999", "Gi1",
        ] {
            assert_eq!(
                text.parse::<Quantity>(),
                Err(QuantityError::Syntax(text.into())),
                "{text}"
            );
        }
        assert_eq!(
            "-1".parse::<Quantity>(),
            Err(QuantityError::Negative("-1".into()))
        );
        for text in [
            "9223372036854775808",
            "10E",
            "8Ei",
            "0.1n",
            "1e-10",
            "1.0001Ki",
            &"9".repeat(60),
        ] {
            assert_eq!(
                text.parse::<Quantity>(),
                Err(QuantityError::Range(text.into())),
                "{text}"
            );
        }
    }

    #[test]
    fn sums_and_products_are_exact() {
        let sum: Quantity = ["100m", "0.2", "700m"].into_iter().map(quantity).sum();
        assert_eq!(sum, quantity("1"));
        assert_eq!((quantity("256Mi") * 3 + quantity("256Mi")).to_string(), "1Gi");
        assert!(quantity("1001m") > quantity("1"));
        assert!(quantity("1M") < quantity("1Mi"));
    }
}
