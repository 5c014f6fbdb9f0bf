//! `cpu.pressure`, `memory.pressure`, `io.pressure` (pressure stall information).

use super::{Field, NS_PER_US, ParseError, Problem, lines, required};
use crate::values::Stall;

/// A pressure file: `some avg10=… avg60=… avg300=… total=…` and the same for `full`, with totals in microseconds.
///
/// `full` may be missing: before Linux 5.13 `cpu.pressure` has no such line.
pub fn stall(text: &[u8]) -> Result<Stall, ParseError> {
    let (mut some, mut full) = (None, None);
    for line in lines(text) {
        let mut words = line.words();
        let total = match words.next().map(|word| word.text) {
            Some(b"some") => &mut some,
            Some(b"full") => &mut full,
            _ => continue,
        };
        let field = words.filter_map(Field::assignment).find(|(key, _)| *key == b"total");
        let (_, value) = field.ok_or_else(|| line.error(Problem::NoValue))?;
        *total = Some(value.number_of(NS_PER_US)?);
    }
    Ok(Stall { some_ns: required(some, "some", text)?, full_ns: full.unwrap_or(0) })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn with_and_without_full() {
        let text = b"some avg10=2.18 avg60=2.36 avg300=1.60 total=24744745\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=17\n";
        assert_eq!(stall(text), Ok(Stall { some_ns: 24_744_745_000, full_ns: 17_000 }));
        let before_5_13 = b"some avg10=0.00 avg60=0.00 avg300=0.00 total=5\n";
        assert_eq!(stall(before_5_13), Ok(Stall { some_ns: 5_000, full_ns: 0 }));
    }

    #[test]
    fn malformed() {
        let say = |text: &[u8]| stall(text).unwrap_err().to_string();
        assert_eq!(say(b""), "line 1: the row some is missing");
        assert_eq!(say(b"some avg10=0.00\n"), "line 1: \"some avg10=0.00\" has no value");
        assert_eq!(say(b"some total=1\nfull total=1.5\n"), "line 2: \"1.5\" is not a number");
        assert_eq!(say(b"full avg10=0.00 total=3\n"), "line 1: the row some is missing");
    }

    proptest! {
        #[test]
        fn rendered_parses_back(some in 0..u64::MAX / 1000, full in 0..u64::MAX / 1000, average in 0.0..100.0) {
            let text = format!(
                "some avg10={average:.2} avg60=0.00 avg300=0.00 total={some}\n\
                 full avg10=0.00 avg60={average:.2} avg300=0.00 total={full}\n"
            );
            prop_assert_eq!(stall(text.as_bytes()), Ok(Stall { some_ns: some * 1000, full_ns: full * 1000 }));
        }
    }
}
