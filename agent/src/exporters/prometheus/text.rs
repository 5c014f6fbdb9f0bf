//! Text: OpenMetrics 1.0 and text 0.0.4.

use std::{io, ops::RangeInclusive};

use super::{Format, Scrape, walk::walk};
use crate::{
    exporters::{
        catalogue::{Unit, Value},
        series::SeriesCounts,
        stream::Sink,
        text::{Header, Number, TextWriter, render},
    },
    values::Distribution,
};

/// Bounds of classic buckets, as powers of two. Each is also a bound of the native histogram, so counts are exact.
pub(super) type Bounds = RangeInclusive<i32>;

/// The bounds for a unit: 1 MiB to 256 GiB for bytes, 2^-10 to 256 for others.
pub(super) const fn classic_bounds(unit: Unit) -> Bounds {
    match unit {
        Unit::Bytes => 20..=38,
        _ => -10..=8,
    }
}

pub(super) fn encode(scrape: &Scrape, out: &mut dyn Sink, format: Format) -> io::Result<SeriesCounts> {
    let mut text = TextWriter::new(out);
    let counts = walk(scrape, |family, rows| {
        let series = family.series_name();
        let header = match format {
            Format::OpenMetrics => Header::open_metrics(family, &series),
            _ => Header::text(&series, family.kind, family.help),
        };
        let bounds = scrape.classic_histograms.then(|| classic_bounds(family.unit));
        let mut writer = text.family(header, None);
        rows(&mut |sample| {
            let labels = sample.row.text.get_or_init(|| render(sample.row.labels.iter().copied()));
            match sample.value {
                Value::Histogram(of) => {
                    let buckets = classic_buckets(of, bounds.as_ref());
                    writer.histogram(labels, sample.own_labels(), of.sum, &buckets);
                }
                value => writer.sample(labels, sample.own_labels(), Number::of(value)),
            }
        });
        text.check()
    })?;
    text.finish(if format == Format::OpenMetrics { "# EOF\n" } else { "" })?;
    Ok(counts)
}

/// Upper bounds and counts of classic buckets. The last bucket is `+Inf`.
pub(super) fn classic_buckets(distribution: &Distribution, classic: Option<&Bounds>) -> Vec<(f64, u64)> {
    let bounds =
        classic.cloned().into_iter().flatten().map(|power| f64::from(power).exp2()).chain([f64::INFINITY]);
    let mut buckets: Vec<(f64, u64)> = bounds.map(|bound| (bound, 0)).collect();
    for (count, _, upper) in distribution.histogram.buckets() {
        // Bounds that are powers of two are exact; the tolerance is for `exp2` of others.
        if let Some((_, sum)) = buckets.iter_mut().find(|(bound, _)| upper <= *bound * (1.0 + 1e-9)) {
            *sum += count;
        }
    }
    buckets
}
