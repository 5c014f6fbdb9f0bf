//! Bars and histograms of text.

use snug_sizing::histogram::Histogram;

use crate::{
    top::{
        look::{Look, Spans},
        text,
    },
    units,
};

/// Cells of a column of a histogram, with the space behind it.
const COLUMN: usize = 6;

/// A bar that is filled to a share, perhaps with a mark at another one.
pub(super) fn bar(share: f64, mark: Option<f64>, cells: usize) -> String {
    let at = |share: f64| (share.clamp(0.0, 1.0) * cells as f64).round() as usize;
    let mark = mark.map(|mark| at(mark).saturating_sub(1));
    let cell = |number| match number {
        number if Some(number) == mark => '|',
        number if number < at(share) => '█',
        _ => '·',
    };
    (0..cells).map(cell).collect()
}

/// A histogram of cores with a column per power of two, `rows` high, and a line with the upper bounds.
pub(super) fn histogram(windows: &Histogram, width: usize, rows: usize) -> Vec<Spans> {
    let mut columns = doublings(windows);
    // The highest ones matter most.
    let room = width.saturating_sub(COLUMN * 2) / COLUMN;
    if columns.len() > room {
        let cut = columns.len() - room;
        let below: f64 = columns.drain(..cut).map(|(_, share)| share).sum();
        if let Some((_, share)) = columns.first_mut() {
            *share += below;
        }
    }
    let highest = columns.iter().map(|(_, share)| *share).fold(0.0, f64::max);
    if highest <= 0.0 {
        return vec![Spans::plain(" ".repeat(10) + "no windows yet")];
    }
    let mut lines: Vec<Spans> = (0..rows)
        .rev()
        .map(|row| {
            let cell = |(_, share): &(f64, f64)| {
                let filled = share / highest * rows as f64 - row as f64;
                let c = match filled {
                    filled if filled >= 1.0 => '█',
                    filled if filled > 0.0 => text::block(filled),
                    _ => ' ',
                };
                format!("{:<COLUMN$}", c.to_string().repeat(COLUMN - 1))
            };
            Spans::plain(" ".repeat(10)).and(columns.iter().map(cell).collect::<String>(), Look::Bar)
        })
        .collect();
    let words = |show: &dyn Fn(&(f64, f64)) -> String| -> String {
        columns.iter().map(|column| format!("{:<COLUMN$}", text::head(&show(column), COLUMN - 1))).collect()
    };
    lines.push(Spans::plain(format!("{:<10}{}", "  up to", words(&|(upper, _)| units::cores(*upper)))));
    lines.push(Spans::plain(format!("{:<10}{}", "  share", words(&|(_, share)| percent(*share)))));
    lines
}

/// A share in at most five cells; a small one is not shown as zero.
fn percent(share: f64) -> String {
    match share * 100.0 {
        share if share <= 0.0 => "-".to_owned(),
        share if share < 0.1 => "<0.1%".to_owned(),
        share if share < 99.95 => format!("{share:.1}%"),
        _ => "100%".to_owned(),
    }
}

/// Upper bounds and shares of windows by powers of two, without gaps. Usage below a millicore is one column.
fn doublings(windows: &Histogram) -> Vec<(f64, f64)> {
    const LOWEST: i32 = -10;
    /// 2^20 cores.
    const HIGHEST: i32 = 20;
    let all = windows.count() as f64;
    let step =
        |upper: f64| if upper > 0.0 { (upper.log2().ceil() as i32).clamp(LOWEST, HIGHEST) } else { LOWEST };
    let mut columns: Vec<(i32, f64)> = Vec::new();
    for (count, _, upper) in windows.buckets().filter(|(count, _, _)| *count > 0) {
        let step = step(upper);
        while let Some((last, _)) = columns.last().copied().filter(|(last, _)| *last + 1 < step) {
            columns.push((last + 1, 0.0));
        }
        match columns.last_mut().filter(|(last, _)| *last == step) {
            Some((_, share)) => *share += count as f64 / all,
            None => columns.push((step, count as f64 / all)),
        }
    }
    columns.into_iter().map(|(step, share)| (f64::from(step).exp2(), share)).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_bar_has_a_mark_at_the_peak() {
        assert_eq!(bar(0.5, Some(0.75), 8), "████·|··");
        assert_eq!(bar(2.0, None, 4), "████");
        assert_eq!(bar(0.0, Some(1.0), 4), "···|");
    }

    #[test]
    fn a_histogram_has_a_column_per_power_of_two() {
        let mut windows = Histogram::default();
        windows.record(0.1, 60);
        windows.record(0.3, 30);
        windows.record(1.5, 10);
        let lines: Vec<String> = histogram(&windows, 80, 2).iter().map(Spans::text).collect();
        assert_eq!(
            lines,
            [
                "          █████",
                "          █████       █████       ▃▃▃▃▃",
                "  up to   125m  250m  500m  1.00  2.00",
                "  share   60.0% -     30.0% -     10.0%",
            ]
        );
        assert_eq!(histogram(&Histogram::default(), 80, 2).len(), 1);
    }

    proptest! {
        #[test]
        fn any_windows_fit(values in prop::collection::vec((0.0..1e9_f64, 1..1000_u64), 0..50), width in 20..200_usize) {
            let mut windows = Histogram::default();
            for (value, times) in values {
                windows.record(value, times);
            }
            for line in histogram(&windows, width, 4) {
                prop_assert!(line.width() <= width.max(26), "{line:?}");
            }
        }
    }
}
