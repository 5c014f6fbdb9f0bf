//! Reads traces: `cpu_millicores.csv.gz` and `memory_kib.csv.gz`.
//!
//! One row per container: `namespace,pod,container,node`, then one column per minute; an empty cell means no sample. Both files
//! have the same rows in the same order.

use std::{
    collections::HashSet,
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use csv::ByteRecord;
use flate2::read::MultiGzDecoder;
use snug_sizing::backtest::trace::{ContainerTrace, Series, Trace};

const CPU: &str = "cpu_millicores.csv.gz";
const MEMORY: &str = "memory_kib.csv.gz";
/// The columns before the minutes.
const KEYS: [&str; 4] = ["namespace", "pod", "container", "node"];
/// Highest sample: 2⁵³, up to which floats are exact integers. In KiB that is 8 EiB.
const MAX_SAMPLE: f64 = 9_007_199_254_740_992.0;

/// Why traces cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be opened or read to the end.
    #[error("cannot read {}: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    /// The content of the file is invalid.
    #[error("{}, line {line}: {what}", path.display())]
    Content {
        path: PathBuf,
        /// The line, from 1.
        line: u64,
        /// What is wrong.
        what: String,
    },
}

/// A reader of one file, row by row.
struct Rows {
    path: PathBuf,
    reader: csv::Reader<Box<dyn Read>>,
    record: ByteRecord,
    minutes: usize,
}

impl Rows {
    fn open(path: PathBuf) -> Result<Self, Error> {
        let file = File::open(&path).map_err(|source| Error::Read { path: path.clone(), source })?;
        let plain: Box<dyn Read> = Box::new(MultiGzDecoder::new(file));
        let reader = csv::ReaderBuilder::new().has_headers(false).buffer_capacity(1 << 16).from_reader(plain);
        let mut rows = Self { path, reader, record: ByteRecord::new(), minutes: 0 };
        if !rows.next()? {
            return Err(rows.wrong("the file is empty: a heading and one row per container are expected"));
        }
        let names: Vec<&[u8]> = rows.record.iter().take(KEYS.len()).collect();
        if names != KEYS.map(str::as_bytes) {
            let found = names.iter().map(|name| String::from_utf8_lossy(name)).collect::<Vec<_>>().join(",");
            return Err(
                rows.wrong(&format!("the heading begins with {found:?}; {:?} is expected", KEYS.join(",")))
            );
        }
        rows.minutes = rows.record.len() - KEYS.len();
        if rows.minutes == 0 {
            return Err(rows.wrong("the heading has no minutes"));
        }
        Ok(rows)
    }

    fn wrong(&self, what: &str) -> Error {
        let line = self.record.position().map_or(1, csv::Position::line);
        Error::Content { path: self.path.clone(), line, what: what.to_owned() }
    }

    /// Reads the next row; `false` after the last.
    fn next(&mut self) -> Result<bool, Error> {
        self.reader.read_byte_record(&mut self.record).map_err(|error| {
            let line = error.position().map_or(1, csv::Position::line);
            let what = error.to_string();
            match error.into_kind() {
                csv::ErrorKind::Io(source) => Error::Read { path: self.path.clone(), source },
                _ => Error::Content { path: self.path.clone(), line, what },
            }
        })
    }

    /// Namespace, pod, container and node of the row.
    fn keys(&self) -> Result<[String; 4], Error> {
        let mut keys = KEYS.map(|_| String::new());
        for ((key, field), name) in keys.iter_mut().zip(&self.record).zip(KEYS) {
            *key = str::from_utf8(field)
                .map_err(|_| self.wrong(&format!("the {name} is not UTF-8")))?
                .to_owned();
        }
        Ok(keys)
    }

    /// The row's samples.
    fn series(&self) -> Result<Series, Error> {
        let mut minutes = Vec::with_capacity(self.minutes);
        for (minute, cell) in self.record.iter().skip(KEYS.len()).enumerate() {
            minutes.push(if cell.is_empty() { f64::NAN } else { self.sample(minute, cell)? });
        }
        Ok(Series::new(&minutes))
    }

    fn sample(&self, minute: usize, cell: &[u8]) -> Result<f64, Error> {
        let value = str::from_utf8(cell).ok().and_then(|text| text.parse::<f64>().ok());
        match value {
            Some(value) if (0.0..=MAX_SAMPLE).contains(&value) => Ok(value),
            _ => {
                let cell: String = String::from_utf8_lossy(cell).chars().take(40).collect();
                Err(self.wrong(&format!("minute {minute} has {cell:?}, which is not a number from 0 up; leave the cell empty for no sample")))
            }
        }
    }
}

/// Reads the traces in a directory.
///
/// # Errors
/// When a file is missing, cut off or invalid; the error names the file and the line.
pub fn read(folder: &Path) -> Result<Trace, Error> {
    let mut cpu = Rows::open(folder.join(CPU))?;
    let mut memory = Rows::open(folder.join(MEMORY))?;
    if cpu.minutes != memory.minutes {
        let what =
            format!("the heading has {} minutes, but that of {CPU} has {}", memory.minutes, cpu.minutes);
        return Err(memory.wrong(&what));
    }
    let mut rows = Vec::new();
    let mut known = HashSet::new();
    loop {
        let (more, same) = (cpu.next()?, memory.next()?);
        if more != same {
            let shorter = if more { &memory } else { &cpu };
            return Err(shorter.wrong("the file ends here, but the other file has more rows"));
        }
        if !more {
            break;
        }
        let keys = cpu.keys()?;
        if keys != memory.keys()? {
            return Err(memory.wrong(&format!(
                "the row is not that of {}, unlike the same line of {CPU}",
                keys.join("/")
            )));
        }
        if !known.insert(keys.clone()) {
            return Err(cpu.wrong(&format!("{} has two rows", keys.join("/"))));
        }
        let [namespace, pod, container, node] = keys;
        let (cpu, memory) = (cpu.series()?, memory.series()?);
        rows.push(ContainerTrace { namespace, pod, container, node, cpu, memory });
    }
    if rows.is_empty() {
        return Err(cpu.wrong("the file has a heading but no rows"));
    }
    Ok(Trace::new(cpu.minutes, rows))
}

#[cfg(test)]
mod tests;
