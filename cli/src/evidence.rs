//! Snapshots of evidence: reading them from agents and files, merging and writing them.

#[cfg(test)]
mod bounds;
mod workloads;

use std::{
    cell::Cell,
    collections::BTreeMap,
    io::{self, BufRead, BufReader, Read, Write},
    rc::Rc,
};

use anyhow::{Result, ensure};
use flate2::read::MultiGzDecoder;
use rayon::prelude::*;
use snug_sizing::{
    engine::{self, LikesScope, Member, Pools, Rule},
    evidence::{Evidence, Header, Hour, SCHEMA},
    workload::{self, QosClass},
};

pub use self::workloads::{Gone, GoneFor, last_seen};

/// Upper bound of a line: a year of one container has a few megabytes.
const MAX_LINE_BYTES: u64 = 64 << 20;
/// Upper bound of containers in one snapshot.
const MAX_CONTAINERS: usize = 200_000;
/// Upper bound of a packed response of an agent, which keeps 256 MiB by default. It is in memory.
pub const MAX_RESPONSE_BYTES: u64 = 256 << 20;
/// Upper bound of a snapshot, not packed.
const MAX_BYTES: u64 = 8 << 30;
/// Upper bound of the factor by which gzip packs a snapshot, which is 10 to 30, and bytes to which it does not apply.
const MAX_PACKING: (u64, u64) = (200, 64 << 20);
/// Upper bound of hours in one snapshot: 5,000 containers over a month have 3.6 million. An hour takes a kilobyte in memory.
const MAX_HOURS: usize = 6_000_000;
/// Agents keep at most a year. Hours outside of two years before the time of a snapshot and a day after it are of a wrong clock.
const MAX_AGE_HOURS: u32 = 2 * 366 * 24;
/// The year 2200. Times after it are of a wrong clock.
pub(crate) const MAX_TIME: u64 = 7_258_118_400;
/// Upper bound of a name. Kubernetes allows 253 bytes.
const MAX_NAME_BYTES: usize = 1024;
/// Bytes of lines that are parsed in one parallel batch.
const BATCH_BYTES: usize = 16 << 20;
/// Bytes that are read at once.
const READ_BYTES: usize = 256 << 10;
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// Why a snapshot cannot be read. `what` is the file or the address of the agent.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The input ended early or failed.
    #[error(
        "cannot read {what} after line {line}: {source}; the file may have been cut off while it was written"
    )]
    Read {
        what: String,
        /// Number of lines read before.
        line: usize,
        source: io::Error,
    },
    /// The input has no lines.
    #[error("{what} is empty; use a file written by `snug snapshot`")]
    Empty { what: String },
    /// The first line is not a header.
    #[error("{what} is not a snapshot: {source}; use a file written by `snug snapshot`")]
    Header { what: String, source: serde_json::Error },
    /// The schema is of another version.
    #[error(
        "{what} has the schema {found:?}, but this version reads {SCHEMA:?}; use the version of snug that wrote the snapshot"
    )]
    Schema { what: String, found: String },
    #[error(
        "line {line} of {what} is not the evidence of a container: {source}; delete the line, or write the snapshot again"
    )]
    Line {
        what: String,
        /// Line number, from 1.
        line: usize,
        source: serde_json::Error,
    },
    /// The time of the snapshot is not one.
    #[error("{what} is of the time {at}, after the year 2200; is the clock of its node right?")]
    Time { what: String, at: u64 },
    /// A name that no object of Kubernetes can have.
    #[error("line {line} of {what} has a name of more than {MAX_NAME_BYTES} bytes")]
    Name {
        what: String,
        /// Line number, from 1.
        line: usize,
    },
    /// A packed file that grows without end.
    #[error("{what} is packed more than {}-fold, as no snapshot is", MAX_PACKING.0)]
    Packed { what: String },
    /// The snapshot is larger than the upper bounds.
    #[error("{what} has more than {max} {unit}; use a smaller part of the history with --since")]
    TooLarge { what: String, unit: &'static str, max: u64 },
}

/// Merges the responses of several agents.
#[derive(Debug)]
pub(crate) struct AgentResponses {
    snapshot: Snapshot,
    requested: usize,
    failed: usize,
}

impl AgentResponses {
    /// For a number of requested agents.
    pub(crate) fn new(requested: usize) -> Self {
        Self { snapshot: Snapshot::default(), requested, failed: 0 }
    }

    /// Number of requested agents.
    pub(crate) const fn requested(&self) -> usize {
        self.requested
    }

    /// Adds a response. A failed request is reported on standard error; it is an error if no other agent was requested.
    pub(crate) fn add(&mut self, response: Result<Snapshot>) -> Result<()> {
        match response {
            Ok(response) => self.snapshot.merge(response),
            Err(error) if self.requested == 1 => return Err(error),
            Err(error) => {
                self.failed += 1;
                crate::remark!(
                    "{}; the containers of this agent are missing",
                    crate::columns::message(&error)
                );
            }
        }
        Ok(())
    }

    /// The merged snapshot; an error if no agent responded.
    pub(crate) fn finish(self) -> Result<Snapshot> {
        ensure!(self.failed < self.requested, "none of {} agents responded", self.failed);
        Ok(self.snapshot)
    }
}

/// Identifies a container: namespace, name and kind of the owner, name of the container, length of a window.
type ContainerKey = (String, String, String, String, u64);

/// Evidence of all containers, merged from any number of agents and files.
#[derive(Debug, Default)]
pub struct Snapshot {
    evidence: BTreeMap<ContainerKey, Evidence>,
    /// Lengths of CPU windows that [`Snapshot::unified`] left out.
    other_windows: BTreeMap<workloads::Subject, Vec<u64>>,
    /// Hours that were read so far.
    hours: usize,
    /// Names of the nodes in the headers, sorted.
    pub nodes: Vec<String>,
    /// Time of the newest header, seconds.
    pub at: u64,
    /// When any container was last seen, whether it was selected or not, seconds; 0 if that is unknown.
    pub last_seen: u64,
}

impl Snapshot {
    /// Reads one snapshot. A partly read snapshot is dropped on error.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub(crate) fn from_reader(what: &str, input: impl Read) -> Result<Self> {
        let mut snapshot = Self::default();
        snapshot.read(what, input)?;
        Ok(snapshot)
    }

    /// Reads and merges another snapshot, compressed by gzip or not; `what` names it in errors.
    ///
    /// # Errors
    /// When the input is not a complete snapshot. Lines read before the error stay merged.
    pub fn read(&mut self, what: &str, input: impl Read) -> Result<(), SnapshotError> {
        let mut input = BufReader::with_capacity(READ_BYTES, input);
        let read = |line, source| SnapshotError::Read { what: what.to_owned(), line, source };
        let packed = input.fill_buf().map_err(|source| read(0, source))?.starts_with(&GZIP);
        if packed {
            let counted = Counted { input, bytes: Rc::default() };
            let packed_bytes = Rc::clone(&counted.bytes);
            let unpacked = BufReader::new(MultiGzDecoder::new(counted));
            self.read_lines(what, unpacked, || MAX_PACKING.1 + MAX_PACKING.0 * packed_bytes.get())
        } else {
            self.read_lines(what, input, || u64::MAX)
        }
    }

    /// `room`: how many bytes there may be so far.
    fn read_lines(
        &mut self,
        what: &str,
        mut input: impl BufRead,
        room: impl Fn() -> u64,
    ) -> Result<(), SnapshotError> {
        let mut batch = Vec::new();
        let mut bytes = 0;
        let mut all_bytes = 0_u64;
        let mut wrong_hours = 0;
        let mut line = 0;
        let mut last_len = 0;
        loop {
            // Most lines are about as long as the one before.
            let mut buffer = Vec::with_capacity(last_len + last_len / 8);
            let mut limited = (&mut input).take(MAX_LINE_BYTES + 1);
            let read = limited.read_until(b'\n', &mut buffer);
            let read = read.map_err(|source| SnapshotError::Read { what: what.to_owned(), line, source })?;
            if read == 0 {
                break;
            }
            let too_much = |unit, max| SnapshotError::TooLarge { what: what.to_owned(), unit, max };
            if buffer.len() as u64 > MAX_LINE_BYTES {
                return Err(too_much("bytes in a line", MAX_LINE_BYTES));
            }
            last_len = read;
            all_bytes += read as u64;
            if all_bytes > MAX_BYTES {
                return Err(too_much("bytes", MAX_BYTES));
            }
            if all_bytes > room() {
                return Err(SnapshotError::Packed { what: what.to_owned() });
            }
            line += 1;
            if line > MAX_CONTAINERS {
                return Err(too_much("containers", MAX_CONTAINERS as u64));
            }
            if line == 1 {
                self.take_header(what, &buffer)?;
            } else if !buffer.trim_ascii().is_empty() {
                bytes += buffer.len();
                batch.push((line, buffer));
                if bytes >= BATCH_BYTES {
                    wrong_hours += self.take_evidence(what, &std::mem::take(&mut batch))?;
                    bytes = 0;
                }
            }
        }
        wrong_hours += self.take_evidence(what, &batch)?;
        if wrong_hours > 0 {
            crate::remark!("{what}: {wrong_hours} hours of a wrong clock are left out");
        }
        if line == 0 { Err(SnapshotError::Empty { what: what.to_owned() }) } else { Ok(()) }
    }

    /// Parses numbered lines on all CPUs and merges them in their order. Returns the number of hours of a wrong clock, which are left
    /// out.
    fn take_evidence(&mut self, what: &str, lines: &[(usize, Vec<u8>)]) -> Result<usize, SnapshotError> {
        let newest = Hour::from_seconds(self.at.saturating_add(24 * 3600));
        let oldest = Hour(newest.0.saturating_sub(MAX_AGE_HOURS));
        let parse = |(line, text): &(usize, Vec<u8>)| {
            let what = || what.to_owned();
            // Checking a whole line is faster than each string of it.
            let parsed = std::str::from_utf8(text)
                .map_or_else(|_| serde_json::from_slice::<Evidence>(text), serde_json::from_str);
            let mut evidence =
                parsed.map_err(|source| SnapshotError::Line { what: what(), line: *line, source })?;
            if names(&evidence).any(|name| name.len() > MAX_NAME_BYTES) {
                return Err(SnapshotError::Name { what: what(), line: *line });
            }
            let all = evidence.hours.len();
            evidence.hours.retain(|hour, _| (oldest..=newest).contains(hour));
            let wrong_hours = all - evidence.hours.len();
            Ok((evidence, wrong_hours))
        };
        let all: Vec<Result<(Evidence, usize), SnapshotError>> = lines.par_iter().map(parse).collect();
        let mut wrong_hours = 0;
        for evidence in all {
            let (evidence, wrong) = evidence?;
            self.hours += evidence.hours.len();
            wrong_hours += wrong;
            if self.hours > MAX_HOURS {
                let (what, max) = (what.to_owned(), MAX_HOURS as u64);
                return Err(SnapshotError::TooLarge { what, unit: "hours of containers", max });
            }
            self.insert(evidence);
        }
        Ok(wrong_hours)
    }

    fn take_header(&mut self, what: &str, line: &[u8]) -> Result<(), SnapshotError> {
        let header: Header = serde_json::from_slice(line)
            .map_err(|source| SnapshotError::Header { what: what.to_owned(), source })?;
        if header.schema != SCHEMA {
            return Err(SnapshotError::Schema { what: what.to_owned(), found: header.schema });
        }
        if header.at > MAX_TIME {
            return Err(SnapshotError::Time { what: what.to_owned(), at: header.at });
        }
        self.at = self.at.max(header.at);
        for node in header.node.split(',').filter(|node| !node.is_empty()) {
            if let Err(place) = self.nodes.binary_search_by(|other| other.as_str().cmp(node)) {
                self.nodes.insert(place, node.to_owned());
            }
        }
        Ok(())
    }

    /// Merges the evidence of a container.
    pub fn insert(&mut self, evidence: Evidence) {
        let workload = &evidence.workload;
        let key = (
            workload.namespace.clone(),
            workload.name.clone(),
            workload.owner.clone(),
            evidence.container.name.clone(),
            evidence.window_millis,
        );
        match self.evidence.get_mut(&key) {
            // Equal keys mean the same container and window, so merging does not fail.
            Some(known) => drop(known.merge(&evidence)),
            None => drop(self.evidence.insert(key, evidence)),
        }
    }

    /// Merges another snapshot into this one.
    pub fn merge(&mut self, other: Self) {
        self.at = self.at.max(other.at);
        self.nodes.extend(other.nodes);
        self.nodes.sort_unstable();
        self.nodes.dedup();
        self.hours += other.hours;
        other.evidence.into_values().for_each(|evidence| self.insert(evidence));
    }

    /// Marks all evidence as that of a source which lacks a part, and says why.
    pub(crate) fn set_partial(&mut self, why: &str) {
        self.evidence.values_mut().for_each(|evidence| why.clone_into(&mut evidence.partial));
    }

    /// Sets the classes of the nodes of pods, by namespace and name of the pod.
    pub(crate) fn set_node_classes(&mut self, classes: &BTreeMap<(String, String), String>) {
        for Evidence { workload, pods, .. } in self.evidence.values_mut() {
            for (pod, totals) in pods {
                let class = classes.get(&(workload.namespace.clone(), pod.clone()));
                class.into_iter().for_each(|class| totals.node_class.clone_from(class));
            }
        }
    }

    /// Drops the hours before a time in seconds.
    pub fn since(&mut self, seconds: u64) {
        let first = Hour::from_seconds(seconds);
        for evidence in self.evidence.values_mut() {
            evidence.hours = evidence.hours.split_off(&first);
        }
        self.evidence.retain(|_, evidence| !evidence.hours.is_empty());
    }

    /// Takes the hours that are not complete out of all evidence.
    pub fn settle(&mut self) {
        let now = self.at;
        self.evidence.values_mut().for_each(|evidence| engine::settle(evidence, now));
    }

    /// What the history of all containers says about each of them.
    pub fn pools(&self, scope: LikesScope) -> Pools {
        let all: Vec<&Evidence> = self.evidence().collect();
        // In the order of the evidence, so that the result does not depend on threads.
        let members: Vec<Member<'_>> = all.par_iter().map(|evidence| Member::new(evidence, scope)).collect();
        Pools::new(&members, Rule::FITTED, scope)
    }

    /// Keeps only evidence for which `keep` is true.
    pub fn retain(&mut self, keep: impl Fn(&Evidence) -> bool) {
        self.evidence.retain(|_, evidence| keep(evidence));
    }

    /// All evidence, sorted by namespace, workload and container.
    pub fn evidence(&self) -> impl Iterator<Item = &Evidence> + Clone {
        self.evidence.values()
    }

    /// All evidence with the QoS class of its pods; `None` if requests and limits are unknown.
    pub fn with_qos(&self) -> Vec<(&Evidence, Option<QosClass>)> {
        let all: Vec<&Evidence> = self.evidence().collect();
        let workloads = all.chunk_by(|one, other| one.workload.is(&other.workload));
        let with_qos_class = |containers: &[_]| {
            let qos = workload::pod_qos(containers.iter().map(|evidence: &&Evidence| &evidence.container));
            containers.iter().map(move |evidence| (*evidence, qos)).collect::<Vec<_>>()
        };
        workloads.flat_map(with_qos_class).collect()
    }

    /// Writes the snapshot.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, out: &mut impl Write) -> io::Result<()> {
        write_line(&Header::new(&self.nodes.join(","), self.at), out)?;
        self.evidence().try_for_each(|evidence| write_line(evidence, out))
    }
}

/// The names of a workload and its container.
fn names(evidence: &Evidence) -> impl Iterator<Item = &String> {
    let Evidence { workload, container, pods, .. } = evidence;
    [&workload.namespace, &workload.name, &workload.owner, &container.name].into_iter().chain(pods.keys())
}

/// Counts the bytes that are read.
struct Counted<R> {
    input: R,
    bytes: Rc<Cell<u64>>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.input.read(buffer)?;
        self.bytes.set(self.bytes.get() + read as u64);
        Ok(read)
    }
}

fn write_line(value: &impl serde::Serialize, out: &mut impl Write) -> io::Result<()> {
    serde_json::to_writer(&mut *out, value)?;
    out.write_all(b"\n")
}
