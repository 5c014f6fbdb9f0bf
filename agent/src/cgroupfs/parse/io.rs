//! `io.stat`, and on v1 `blkio.throttle.io_service_bytes` and `io_serviced`.

use super::{Field, ParseError, Problem, lines};
use crate::values::IoDevice;

/// v2 `io.stat`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IoStat {
    /// Devices with I/O, sorted by device number.
    pub devices: Vec<IoDevice>,
    /// Number of lines without a device (such as `(unknown)`), which are ignored.
    pub skipped: u64,
}

/// One device of one v1 file: bytes or operations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BlkioRow {
    /// Device number, major and minor part.
    pub device: (u32, u32),
    pub read: u64,
    /// Writes.
    pub write: u64,
}

/// Parses a device number such as `8:0`.
fn device_number(word: &[u8]) -> Option<(u32, u32)> {
    let (major, minor) = std::str::from_utf8(word).ok()?.split_once(':')?;
    let digits =
        |part: &str| part.bytes().all(|byte| byte.is_ascii_digit()).then(|| part.parse().ok()).flatten();
    Some((digits(major)?, digits(minor)?))
}

/// v2 `io.stat`: `8:0 rbytes=… wbytes=… rios=… wios=… dbytes=… dios=…`.
///
/// Some kernels print a device without I/O and the next device on the same line, some print `(unknown)`. Numbers belong to the
/// last device before them; those without a device are ignored.
pub fn io_stat(text: &[u8]) -> Result<IoStat, ParseError> {
    let mut stat = IoStat::default();
    for line in lines(text) {
        let mut device = None;
        let mut nameless = false;
        for word in line.words() {
            match word.assignment() {
                Some((key, value)) => add(&mut stat.devices, device, key, value)?,
                None => {
                    device = device_number(word.text);
                    nameless |= device.is_none();
                }
            }
        }
        nameless |= line.words().next().is_some_and(|word| word.assignment().is_some());
        stat.skipped += u64::from(nameless);
    }
    stat.devices.sort_unstable_by_key(|io| (io.major, io.minor));
    Ok(stat)
}

/// Sets a field from `key=value`. Unknown keys are ignored.
fn add(
    devices: &mut Vec<IoDevice>,
    device: Option<(u32, u32)>,
    key: &[u8],
    value: Field<'_>,
) -> Result<(), ParseError> {
    if !matches!(key, b"rbytes" | b"wbytes" | b"rios" | b"wios") {
        return Ok(());
    }
    let number = value.number()?;
    let Some((major, minor)) = device else { return Ok(()) };
    if devices.last().is_none_or(|last| (last.major, last.minor) != (major, minor)) {
        devices.push(IoDevice { major, minor, ..IoDevice::default() });
    }
    if let Some(io) = devices.last_mut() {
        match key {
            b"rbytes" => io.read_bytes = number,
            b"wbytes" => io.write_bytes = number,
            b"rios" => io.reads = number,
            _ => io.writes = number,
        }
    }
    Ok(())
}

/// v1 `blkio.throttle.io_service_bytes`, `io_serviced` and their `_recursive` forms: lines of device, operation and
/// number, and a last line with the total. The second value counts lines that name no device.
pub fn blkio_throttle(text: &[u8]) -> Result<(Vec<BlkioRow>, u64), ParseError> {
    let (mut rows, mut skipped) = (Vec::<BlkioRow>::new(), 0);
    for line in lines(text) {
        let mut words = line.words();
        let Some(first) = words.next() else { continue };
        if first.text == b"Total" {
            continue;
        }
        let Some(device) = device_number(first.text) else {
            skipped += 1;
            continue;
        };
        let operation = words.next().ok_or_else(|| line.error(Problem::NoValue))?;
        let number = words.next().ok_or_else(|| line.error(Problem::NoValue))?.number()?;
        if rows.last().is_none_or(|row| row.device != device) {
            rows.push(BlkioRow { device, ..BlkioRow::default() });
        }
        match (operation.text, rows.last_mut()) {
            (b"Read", Some(row)) => row.read = number,
            (b"Write", Some(row)) => row.write = number,
            // Sync, Async and Total repeat the same I/O; Discard is neither read nor write.
            _ => {}
        }
    }
    Ok((rows, skipped))
}

/// Combines bytes and operations of v1, sorted by device number.
pub fn merge_blkio(bytes: &[BlkioRow], operations: &[BlkioRow]) -> Vec<IoDevice> {
    let mut devices: Vec<(u32, u32)> = bytes.iter().chain(operations).map(|row| row.device).collect();
    devices.sort_unstable();
    devices.dedup();
    let of =
        |rows: &[BlkioRow], device| rows.iter().find(|row| row.device == device).copied().unwrap_or_default();
    devices
        .into_iter()
        .map(|device| {
            let (bytes, operations) = (of(bytes, device), of(operations, device));
            IoDevice {
                major: device.0,
                minor: device.1,
                read_bytes: bytes.read,
                write_bytes: bytes.write,
                reads: operations.read,
                writes: operations.write,
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn device(major: u32, minor: u32, n: [u64; 4]) -> IoDevice {
        let [read_bytes, write_bytes, reads, writes] = n;
        IoDevice { major, minor, read_bytes, write_bytes, reads, writes }
    }

    #[test]
    fn io_stat_sorts_and_skips() {
        let text = b"259:0 rbytes=5 wbytes=6 rios=7 wios=8 dbytes=0 dios=0 cost.usage=9 use_delay=2\n\
            (unknown) rbytes=9 wbytes=9 rios=9 wios=9 dbytes=0 dios=0\n\
            8:16 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0\n";
        let stat = io_stat(text).unwrap();
        assert_eq!(stat.devices, [device(8, 16, [1, 2, 3, 4]), device(259, 0, [5, 6, 7, 8])]);
        assert_eq!(stat.skipped, 1);
        assert_eq!(io_stat(b""), Ok(IoStat::default()));
    }

    #[test]
    fn devices_without_figures_may_share_a_line() {
        let stat = io_stat(b"7:7 7:6 8:0 rbytes=1 wbytes=2 rios=3 wios=4\n7:5 \n").unwrap();
        assert_eq!((stat.devices.as_slice(), stat.skipped), (&[device(8, 0, [1, 2, 3, 4])][..], 0));
        let stat = io_stat(b"(unknown) 8:0 rbytes=1 wbytes=2 rios=3 wios=4\n").unwrap();
        assert_eq!((stat.devices.as_slice(), stat.skipped), (&[device(8, 0, [1, 2, 3, 4])][..], 1));
        let stat = io_stat(b"8:0 cost.usage=7\nrbytes=1\n").unwrap();
        assert_eq!((stat.devices.as_slice(), stat.skipped), (&[][..], 1));
    }

    #[test]
    fn blkio_of_v1() {
        let bytes =
            b"8:16 Read 10\n8:16 Write 20\n8:16 Sync 30\n8:16 Async 0\n8:16 Discard 0\n8:16 Total 30\n\
            8:0 Read 1\n8:0 Write 2\n8:0 Total 3\nTotal 33\n";
        let operations = b"8:16 Read 3\n8:16 Write 4\n8:16 Total 7\nTotal 7\n";
        let (bytes, skipped) = blkio_throttle(bytes).unwrap();
        let (operations, _) = blkio_throttle(operations).unwrap();
        assert_eq!(skipped, 0);
        assert_eq!(
            merge_blkio(&bytes, &operations),
            [device(8, 0, [1, 2, 0, 0]), device(8, 16, [10, 20, 3, 4])]
        );
        assert_eq!(blkio_throttle(b"Total 0\n"), Ok((Vec::new(), 0)));
        assert_eq!(blkio_throttle(b"(unknown) Read 4\nTotal 4\n"), Ok((Vec::new(), 1)));
    }

    #[test]
    fn malformed() {
        let say = |error: ParseError| error.to_string();
        assert_eq!(say(io_stat(b"8:0 rbytes=\n").unwrap_err()), "line 1: \"\" is not a number");
        assert_eq!(say(io_stat(b"\n8:0 wios=1x\n").unwrap_err()), "line 2: \"1x\" is not a number");
        assert_eq!(say(blkio_throttle(b"8:0 Read\n").unwrap_err()), "line 1: \"8:0 Read\" has no value");
        assert_eq!(device_number(b"+8:0"), None);
        assert_eq!(device_number(b":"), None);
    }

    proptest! {
        #[test]
        fn rendered_parses_back(
            devices in proptest::collection::btree_map((any::<u32>(), any::<u32>()), any::<[u64; 4]>(), 0..8),
        ) {
            let devices: BTreeMap<(u32, u32), [u64; 4]> = devices;
            let expected: Vec<IoDevice> =
                devices.iter().map(|(&(major, minor), &n)| device(major, minor, n)).collect();
            let (mut v2, mut bytes, mut operations) = (String::new(), String::new(), String::new());
            for io in expected.iter().rev() {
                let IoDevice { major, minor, read_bytes, write_bytes, reads, writes } = io;
                v2 += &format!("{major}:{minor} rbytes={read_bytes} wbytes={write_bytes} ");
                v2 += &format!("rios={reads} wios={writes} dbytes=0 dios=0\n");
                bytes += &format!("{major}:{minor} Read {read_bytes}\n{major}:{minor} Write {write_bytes}\n");
                operations += &format!("{major}:{minor} Read {reads}\n{major}:{minor} Write {writes}\n");
            }
            prop_assert_eq!(io_stat(v2.as_bytes()), Ok(IoStat { devices: expected.clone(), skipped: 0 }));
            let (bytes, _) = blkio_throttle(bytes.as_bytes()).unwrap();
            let (operations, _) = blkio_throttle(operations.as_bytes()).unwrap();
            prop_assert_eq!(merge_blkio(&bytes, &operations), expected);
        }
    }
}
