//! Kubernetes quantities: `100m`, `1.5`, `2e3`, `64Mi`, `128974848`.
//!
//! The rules are those of [`resource.Quantity`](https://pkg.go.dev/k8s.io/apimachinery/pkg/api/resource#Quantity):
//! numbers finer than a billionth are rounded away from zero, numbers beyond ±(2⁶³ − 1) are capped, and every number has one
//! canonical form in each format.

use std::{cmp::Ordering, fmt, str::FromStr};

/// Billionths in one.
const ONE: i128 = 1_000_000_000;
/// The highest magnitude, in billionths.
const MAX: i128 = i64::MAX as i128 * ONE;
/// Highest number of characters of a quantity. The API sets no bound; no sensible quantity is this long.
const MAX_LEN: usize = 64;
/// A number with more digits than this is capped or rounded with any suffix: 10^30 exceeds [`MAX`] in billionths.
const MAX_DIGITS: u32 = 30;

/// The notation of a quantity, which is kept when it is written again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// Powers of ten with `n`, `u`, `m`, none, `k`, `M`, `G`, `T`, `P`, `E`.
    DecimalSi,
    /// Powers of 1024 with `Ki`, `Mi`, `Gi`, `Ti`, `Pi`, `Ei`.
    BinarySi,
    /// Powers of ten with `e` and an exponent.
    DecimalExponent,
}

/// An exact number with a format. Comparisons ignore the format.
#[derive(Clone, Copy, Debug)]
pub struct Quantity {
    nanos: i128,
    format: Format,
}

/// A text that is not a quantity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{value:?} is not a quantity: {why}; use a number with an exponent or one of the suffixes n, u, m, k, M, G, T, P, E, Ki, Mi, \
     Gi, Ti, Pi, Ei, such as 100m, 1.5, 2e3 or 64Mi"
)]
pub struct ParseQuantityError {
    /// The text, cut off if it is too long.
    pub value: String,
    /// What is wrong with the text.
    pub why: Why,
}

/// What is wrong with the text of a quantity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Why {
    /// The text is empty.
    #[error("the text is empty")]
    Empty,
    /// The text is too long.
    #[error("the text is longer than {MAX_LEN} characters")]
    TooLong,
    /// The text does not begin with a number.
    #[error("the text does not begin with a number")]
    NoNumber,
    /// The suffix is unknown.
    #[error("the suffix after the number is unknown")]
    Suffix,
    /// The exponent is not a whole number.
    #[error("the exponent is not a whole number")]
    Exponent,
}

/// Millicores of a CPU quantity, rounded up; `None` if the text is no quantity, or a negative one.
pub fn millicores(text: &str) -> Option<u64> {
    u64::try_from(text.parse::<Quantity>().ok()?.millis()).ok()
}

/// Bytes of a memory quantity, rounded up; `None` if the text is no quantity, or a negative one.
pub fn bytes(text: &str) -> Option<u64> {
    u64::try_from(text.parse::<Quantity>().ok()?.value()).ok()
}

impl Quantity {
    pub const ZERO: Self = Self { nanos: 0, format: Format::DecimalSi };

    /// Bytes, written in powers of 1024.
    pub const fn from_bytes(bytes: u64) -> Self {
        Self { nanos: cap(bytes as i128 * ONE), format: Format::BinarySi }
    }

    /// Thousandths of a core.
    pub const fn from_millicores(millicores: u64) -> Self {
        Self { nanos: cap(millicores as i128 * (ONE / 1000)), format: Format::DecimalSi }
    }

    /// Billionths of a core.
    pub const fn from_nanocores(nanocores: u64) -> Self {
        Self { nanos: nanocores as i128, format: Format::DecimalSi }
    }

    /// The number in billionths, exact.
    pub const fn nanos(self) -> i128 {
        self.nanos
    }

    /// The number in thousandths, rounded away from zero.
    pub const fn millis(self) -> i128 {
        div_away(self.nanos, ONE / 1000)
    }

    /// The number, rounded away from zero.
    pub const fn value(self) -> i64 {
        // Numbers are capped at ±i64::MAX, so the cast is lossless.
        div_away(self.nanos, ONE) as i64
    }

    pub const fn format(self) -> Format {
        self.format
    }

    /// The same number in another format.
    #[must_use]
    pub const fn with_format(self, format: Format) -> Self {
        Self { format, ..self }
    }
}

const fn cap(nanos: i128) -> i128 {
    if nanos > MAX {
        MAX
    } else if nanos < -MAX {
        -MAX
    } else {
        nanos
    }
}

const fn div_away(number: i128, by: i128) -> i128 {
    number / by + if number % by == 0 { 0 } else { number.signum() }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

/// The factor of a suffix: a power of ten or of two.
enum Scale {
    Ten(i64),
    Two(u32),
}

impl FromStr for Quantity {
    type Err = ParseQuantityError;

    fn from_str(text: &str) -> Result<Self, ParseQuantityError> {
        parse(text).map_err(|why| ParseQuantityError { value: text.chars().take(MAX_LEN).collect(), why })
    }
}

fn parse(text: &str) -> Result<Quantity, Why> {
    if text.is_empty() {
        return Err(Why::Empty);
    }
    if text.len() > MAX_LEN {
        return Err(Why::TooLong);
    }
    let (negative, unsigned) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let (whole, rest) = digits(unsigned);
    let (fraction, suffix) = rest.strip_prefix('.').map_or(("", rest), digits);
    if whole.is_empty() && fraction.is_empty() {
        return Err(Why::NoNumber);
    }
    let (scale, format) = scale(suffix)?;
    let magnitude = magnitude(whole, fraction, &scale).min(MAX);
    // Numbers below one cannot be written in powers of 1024.
    let format = if format == Format::BinarySi && magnitude > 0 && magnitude < ONE {
        Format::DecimalSi
    } else {
        format
    };
    Ok(Quantity { nanos: if negative { -magnitude } else { magnitude }, format })
}

fn digits(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    text.split_at(end)
}

fn scale(suffix: &str) -> Result<(Scale, Format), Why> {
    let ten = |power| Ok((Scale::Ten(power), Format::DecimalSi));
    let two = |power| Ok((Scale::Two(power), Format::BinarySi));
    match suffix {
        "n" => ten(-9),
        "u" => ten(-6),
        "m" => ten(-3),
        "" => ten(0),
        "k" => ten(3),
        "M" => ten(6),
        "G" => ten(9),
        "T" => ten(12),
        "P" => ten(15),
        "E" => ten(18),
        "Ki" => two(10),
        "Mi" => two(20),
        "Gi" => two(30),
        "Ti" => two(40),
        "Pi" => two(50),
        "Ei" => two(60),
        _ => {
            let exponent = suffix.strip_prefix(['e', 'E']).ok_or(Why::Suffix)?;
            let exponent: i32 = exponent.parse().map_err(|_| Why::Exponent)?;
            Ok((Scale::Ten(exponent.into()), Format::DecimalExponent))
        }
    }
}

/// The number in billionths, rounded away from zero; [`i128::MAX`] when it is far beyond the cap.
fn magnitude(whole: &str, fraction: &str, scale: &Scale) -> i128 {
    let whole = whole.trim_start_matches('0');
    let fraction = fraction.trim_end_matches('0');
    if whole.is_empty() && fraction.is_empty() {
        return 0;
    }
    match scale {
        Scale::Ten(power) => {
            // All digits as one number, times ten to a power.
            decimal(&format!("{whole}{fraction}"), power + 9 - fraction.len() as i64)
        }
        Scale::Two(power) => {
            let factor = 1_i128 << power;
            let whole = decimal(whole, 9).checked_mul(factor).unwrap_or(i128::MAX);
            // Horner's scheme from the last digit. A remainder at any step means that the sum is not a whole number.
            let (part, inexact) = fraction.bytes().rev().fold((0_i128, false), |(sum, inexact), digit| {
                let sum = sum + i128::from(digit - b'0') * factor * ONE;
                (sum / 10, inexact || sum % 10 != 0)
            });
            whole.saturating_add(part + i128::from(inexact))
        }
    }
}

/// Digits times ten to a power, rounded up; [`i128::MAX`] when the number is beyond the cap.
fn decimal(digits: &str, power: i64) -> i128 {
    let digits = digits.trim_start_matches('0');
    if digits.is_empty() {
        return 0;
    }
    let length = digits.len() as i64 + power;
    if length > i64::from(MAX_DIGITS) {
        return i128::MAX;
    }
    if length < 0 {
        return 1;
    }
    let keep = digits.len().min(length as usize);
    let (kept, cut) = digits.split_at(keep);
    let number = kept.bytes().fold(0_i128, |number, digit| number * 10 + i128::from(digit - b'0'));
    if cut.is_empty() {
        // As many zeros as the power says: at most MAX_DIGITS digits in all.
        number * 10_i128.pow(power.max(0) as u32)
    } else {
        number + i128::from(cut.bytes().any(|digit| digit != b'0'))
    }
}

impl fmt::Display for Quantity {
    /// The canonical form: no digits after the point, the largest suffix that allows it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { nanos, format } = *self;
        if nanos == 0 {
            return f.pad("0");
        }
        let binary = format == Format::BinarySi && nanos % ONE == 0 && nanos.abs() >= 1024 * ONE;
        let text = if binary { binary_text(nanos / ONE) } else { decimal_text(nanos, format) };
        f.pad(&text)
    }
}

fn binary_text(mut number: i128) -> String {
    const SUFFIXES: [&str; 7] = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
    let mut power = 0;
    while number % 1024 == 0 && power + 1 < SUFFIXES.len() {
        number /= 1024;
        power += 1;
    }
    format!("{number}{}", SUFFIXES.get(power).copied().unwrap_or_default())
}

fn decimal_text(mut number: i128, format: Format) -> String {
    const SUFFIXES: [&str; 10] = ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"];
    let mut power = 0;
    while number % 1000 == 0 && power + 1 < SUFFIXES.len() {
        number /= 1000;
        power += 1;
    }
    match (format, power) {
        (Format::DecimalExponent, 3) => number.to_string(),
        (Format::DecimalExponent, _) => format!("{number}e{}", 3 * power as i32 - 9),
        _ => format!("{number}{}", SUFFIXES.get(power).copied().unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests;
