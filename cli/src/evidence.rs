//! Recordings of evidence: what agents answer and what files hold.

use std::{
    collections::BTreeMap,
    io::{self, BufRead, BufReader, Read, Write},
};

use anyhow::{Result, ensure};
use flate2::read::MultiGzDecoder;
use rayon::prelude::*;
use snug_sizing::{
    evidence::{Evidence, Header, Hour, SCHEMA},
    workload::{self, QosClass},
};

/// Bytes of a line: a container's evidence of a year has some megabytes.
const MAX_LINE_BYTES: u64 = 64 << 20;
/// Containers that one snapshot may have.
const MAX_CONTAINERS: usize = 1_000_000;
/// Bytes of lines that are understood at a time.
const PIECE: usize = 16 << 20;
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// Why a snapshot cannot be read. `what` is its file or address.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// It cannot be read to its end.
    #[error("{what} cannot be read after line {line}: {source}; was it cut off while it was written?")]
    Read {
        /// KubeContext.
        what: String,
        /// Lines read before.
        line: usize,
        /// The reason.
        source: io::Error,
    },
    /// Nothing in it.
    #[error("{what} is empty; `snug snapshot` writes snapshots")]
    Empty {
        /// KubeContext.
        what: String,
    },
    /// Something else.
    #[error("{what} is no snapshot of evidence: {source}; `snug snapshot` writes snapshots")]
    Header {
        /// KubeContext.
        what: String,
        /// What is wrong with its first line.
        source: serde_json::Error,
    },
    /// Of a version that this one does not know.
    #[error(
        "{what} is of the form {found:?}, and this version reads {SCHEMA:?}; use the version of snug that wrote it"
    )]
    Schema {
        /// KubeContext.
        what: String,
        /// Its form.
        found: String,
    },
    /// A line that is none.
    #[error(
        "line {line} of {what} is not the evidence of a container: {source}; delete the line, or make the snapshot anew"
    )]
    Line {
        /// KubeContext.
        what: String,
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// More than there can be.
    #[error("{what} has more than {most} {of}; restrict it with --since")]
    TooMuch {
        /// KubeContext.
        what: String,
        /// What of.
        of: &'static str,
        /// How many.
        most: u64,
    },
}

/// The answers of agents, put together as they come.
#[derive(Debug)]
pub(crate) struct AgentResponses {
    snapshot: Snapshot,
    asked: usize,
    failed: usize,
}

impl AgentResponses {
    /// Of so many agents that are asked.
    pub(crate) fn new(asked: usize) -> Self {
        Self { snapshot: Snapshot::default(), asked, failed: 0 }
    }

    /// Takes an answer. One that could not be had is told on standard error; it is an error if nobody else was asked.
    pub(crate) fn take(&mut self, answer: Result<Snapshot>) -> Result<()> {
        match answer {
            Ok(answer) => self.snapshot.merge(answer),
            Err(error) if self.asked == 1 => return Err(error),
            Err(error) => {
                self.failed += 1;
                eprintln!("snug: {error:#}; its containers are missing");
            }
        }
        Ok(())
    }

    /// All of it; an error if none answered.
    pub(crate) fn finish(self) -> Result<Snapshot> {
        ensure!(self.failed < self.asked, "none of {} agents answers", self.failed);
        Ok(self.snapshot)
    }
}

/// What tells containers apart: namespace, name and kind of the owner, name of the container, length of a window.
type ContainerKey = (String, String, String, String, u64);

/// Evidence of any number of snapshots, put together.
#[derive(Debug, Default)]
pub struct Snapshot {
    evidence: BTreeMap<ContainerKey, Evidence>,
    /// Nodes, as far as their snapshots name them, sorted.
    pub nodes: Vec<String>,
    /// When the newest was written, seconds.
    pub at: u64,
}

impl Snapshot {
    /// A snapshot alone: what somebody said before breaking off must not count.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub(crate) fn from_reader(what: &str, input: impl Read) -> Result<Self> {
        let mut snapshot = Self::default();
        snapshot.read(what, input)?;
        Ok(snapshot)
    }

    /// Adds a snapshot, gzip or not; `what` names it in errors.
    ///
    /// # Errors
    /// When it is none, or not all of it is there. What was read before stays.
    pub fn read(&mut self, what: &str, input: impl Read) -> Result<(), SnapshotError> {
        let mut input = BufReader::new(input);
        let read = |line, source| SnapshotError::Read { what: what.to_owned(), line, source };
        let packed = input.fill_buf().map_err(|source| read(0, source))?.starts_with(&GZIP);
        if packed {
            self.read_lines(what, BufReader::new(MultiGzDecoder::new(input)))
        } else {
            self.read_lines(what, input)
        }
    }

    fn read_lines(&mut self, what: &str, mut input: impl BufRead) -> Result<(), SnapshotError> {
        let mut pieces = Vec::new();
        let mut bytes = 0;
        let mut line = 0;
        loop {
            let mut buffer = Vec::new();
            let mut limited = (&mut input).take(MAX_LINE_BYTES + 1);
            let read = limited.read_until(b'\n', &mut buffer);
            let read = read.map_err(|source| SnapshotError::Read { what: what.to_owned(), line, source })?;
            if read == 0 {
                break;
            }
            let too_much = |of, most| SnapshotError::TooMuch { what: what.to_owned(), of, most };
            if buffer.len() as u64 > MAX_LINE_BYTES {
                return Err(too_much("bytes in a line", MAX_LINE_BYTES));
            }
            line += 1;
            if line > MAX_CONTAINERS {
                return Err(too_much("containers", MAX_CONTAINERS as u64));
            }
            if line == 1 {
                self.take_header(what, &buffer)?;
            } else if !buffer.trim_ascii().is_empty() {
                bytes += buffer.len();
                pieces.push((line, buffer));
                if bytes >= PIECE {
                    self.take_evidence(what, &std::mem::take(&mut pieces))?;
                    bytes = 0;
                }
            }
        }
        self.take_evidence(what, &pieces)?;
        if line == 0 { Err(SnapshotError::Empty { what: what.to_owned() }) } else { Ok(()) }
    }

    /// Takes lines, each with its number: understood on all CPUs, put together in their order.
    fn take_evidence(&mut self, what: &str, lines: &[(usize, Vec<u8>)]) -> Result<(), SnapshotError> {
        let understood = |(line, text): &(usize, Vec<u8>)| {
            serde_json::from_slice::<Evidence>(text).map_err(|source| SnapshotError::Line {
                what: what.to_owned(),
                line: *line,
                source,
            })
        };
        let all: Vec<Result<Evidence, SnapshotError>> = lines.par_iter().map(understood).collect();
        all.into_iter().try_for_each(|evidence| evidence.map(|evidence| self.insert(evidence)))
    }

    fn take_header(&mut self, what: &str, line: &[u8]) -> Result<(), SnapshotError> {
        let header: Header = serde_json::from_slice(line)
            .map_err(|source| SnapshotError::Header { what: what.to_owned(), source })?;
        if header.schema != SCHEMA {
            return Err(SnapshotError::Schema { what: what.to_owned(), found: header.schema });
        }
        self.at = self.at.max(header.at);
        for node in header.node.split(',').filter(|node| !node.is_empty()) {
            if let Err(place) = self.nodes.binary_search_by(|other| other.as_str().cmp(node)) {
                self.nodes.insert(place, node.to_owned());
            }
        }
        Ok(())
    }

    /// Adds the evidence of a container.
    pub fn insert(&mut self, evidence: Evidence) {
        let workload = &evidence.workload;
        let subject = (
            workload.namespace.clone(),
            workload.name.clone(),
            workload.owner.clone(),
            evidence.container.name.clone(),
            evidence.window_millis,
        );
        match self.evidence.get_mut(&subject) {
            // Both are of one subject.
            Some(known) => drop(known.merge(&evidence)),
            None => drop(self.evidence.insert(subject, evidence)),
        }
    }

    /// Takes another snapshot to this one.
    pub fn merge(&mut self, other: Self) {
        self.at = self.at.max(other.at);
        self.nodes.extend(other.nodes);
        self.nodes.sort_unstable();
        self.nodes.dedup();
        other.evidence.into_values().for_each(|evidence| self.insert(evidence));
    }

    /// Forgets what was seen before a time, in seconds.
    pub fn since(&mut self, seconds: u64) {
        let first = Hour::from_seconds(seconds);
        for evidence in self.evidence.values_mut() {
            evidence.hours = evidence.hours.split_off(&first);
        }
        self.evidence.retain(|_, evidence| !evidence.hours.is_empty());
    }

    /// Keeps some of it.
    pub fn retain(&mut self, keep: impl Fn(&Evidence) -> bool) {
        self.evidence.retain(|_, evidence| keep(evidence));
    }

    /// All evidence: by namespace, workload and container.
    pub fn evidence(&self) -> impl Iterator<Item = &Evidence> + Clone {
        self.evidence.values()
    }

    /// All evidence, each with the class of its pods; `None` where it is not known what is in force.
    pub fn with_qos(&self) -> Vec<(&Evidence, Option<QosClass>)> {
        let all: Vec<&Evidence> = self.evidence().collect();
        let workloads = all.chunk_by(|one, other| one.workload.is(&other.workload));
        let with_class = |of_one: &[_]| {
            let class = workload::pod_qos(of_one.iter().map(|evidence: &&Evidence| &evidence.container));
            of_one.iter().map(move |evidence| (*evidence, class)).collect::<Vec<_>>()
        };
        workloads.flat_map(with_class).collect()
    }

    /// Writes it as one snapshot.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, out: &mut impl Write) -> io::Result<()> {
        write_line(&Header::new(&self.nodes.join(","), self.at), out)?;
        self.evidence().try_for_each(|evidence| write_line(evidence, out))
    }
}

fn write_line(value: &impl serde::Serialize, out: &mut impl Write) -> io::Result<()> {
    serde_json::to_writer(&mut *out, value)?;
    out.write_all(b"\n")
}
