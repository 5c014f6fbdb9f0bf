//! Private parsers of the history, as functions over bytes for the fuzz targets.

use snug_sizing::evidence::Hour;

use super::{
    frame::{Frame, Kind},
    record::Sum,
};

/// A record whose checksum is right: the hour of a container, and its minutes. It is summed with itself and encoded again.
pub fn record(bytes: &[u8]) {
    for kind in [Kind::HOUR, Kind::MINUTES] {
        let frame =
            Frame { kind, hour: Hour(490_000), key: "shop\0StatefulSet\0web\0app\x00100", value: bytes };
        let mut sum = Sum::default();
        if sum.add(&frame) && sum.add(&frame) {
            sum.record();
        }
    }
}
