//! Events of containers and pods that people act on: OOM kills, terminations, throttling, evictions, failed image pulls.
//!
//! The store creates events for terminations and OOM kills, the detectors of the samplers create the others. The store numbers
//! events and keeps the last ones in its view. Readers find the events that are new to them with an [`EventCursor`].

use std::{fmt, sync::Arc};

use super::{Identity, Level, Names, OomKill, OomScope, Runtime, Termination, TerminationReason};

#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// Its number: events are numbered from 1 since the agent started, without gaps, in the order of recording.
    pub sequence: u64,
    /// When it happened, seconds since the Unix epoch.
    pub at_unix: f64,
    pub subject: Subject,
    pub details: EventDetails,
}

/// The subject of an event: a container or a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// Names from pod metadata; `None` if they did not arrive in time.
    pub names: Option<Arc<Names>>,
    /// The pod's uid; empty outside of pods.
    pub pod_uid: Box<str>,
    /// The id of the container, or the name of the unit; empty if only a pod status reports the event.
    pub id: Box<str>,
    /// The runtime, if known.
    pub runtime: Runtime,
    /// The level of the cgroup; pod or container if only a pod status reports the event.
    pub level: Level,
    /// The path of the cgroup; empty if only a pod status reports the event.
    pub path: Arc<str>,
}

impl Subject {
    /// A cgroup as subject.
    pub fn new(identity: &Identity) -> Self {
        let of_path = &identity.of_path;
        Self {
            names: identity.names.clone(),
            pod_uid: of_path.pod_uid.as_deref().unwrap_or_default().into(),
            id: of_path.id.as_str().into(),
            runtime: of_path.runtime,
            level: of_path.level,
            path: Arc::clone(&identity.path),
        }
    }

    /// Whether events of both belong to the same pod or, outside of pods, to the same cgroup.
    pub fn is_same(&self, other: &Self) -> bool {
        self.pod_uid == other.pod_uid && (!self.pod_uid.is_empty() || self.path == other.path)
    }

    /// A subject that only a pod status reports.
    pub fn from_status(names: &Arc<Names>, pod_uid: &str, id: &str) -> Self {
        Self {
            names: Some(Arc::clone(names)),
            pod_uid: pod_uid.into(),
            id: id.into(),
            runtime: Runtime::Unknown,
            level: if names.container.is_empty() { Level::Pod } else { Level::Container },
            path: "".into(),
        }
    }

    /// Whether names may still arrive.
    pub(crate) fn lacks_names(&self) -> bool {
        self.names.is_none() && !self.pod_uid.is_empty()
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.names.as_deref() {
            Some(Names { namespace, pod, container, .. }) if !pod.is_empty() => {
                write!(f, "{namespace}/{pod}")?;
                if container.is_empty() { Ok(()) } else { write!(f, "/{container}") }
            }
            Some(names) if !names.container.is_empty() => f.write_str(&names.container),
            _ if self.path.is_empty() => f.write_str(&self.id),
            _ => f.write_str(&self.path),
        }
    }
}

/// The kind of an event with its details.
#[derive(Clone, Debug, PartialEq)]
pub enum EventDetails {
    /// The OOM killer killed a process of the container.
    OomKill(OomKill),
    /// The init process of the container exited.
    Termination(Termination),
    /// The container started being throttled in many periods.
    ThrottlingStart(Throttled),
    /// The container is no longer throttled in many periods.
    ThrottlingEnd(Throttled),
    /// The pod was evicted from the node. Holds the message of the kubelet.
    Eviction(Box<str>),
    /// The image of the container cannot be pulled. Holds the reason of the kubelet.
    ImagePullFailure(Box<str>),
}

/// Throttling over a range of time.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Throttled {
    /// Length of the range, seconds.
    pub seconds: f64,
    /// CFS periods in which the container ran.
    pub periods: u64,
    /// Of these, those in which it was throttled.
    pub throttled_periods: u64,
}

impl Throttled {
    /// The share of throttled periods, from 0 to 1.
    pub fn share(&self) -> f64 {
        if self.periods == 0 { 0.0 } else { self.throttled_periods as f64 / self.periods as f64 }
    }
}

/// The severity of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    Info,
    Warn,
    Error,
}

impl Severity {
    /// The severity text of OpenTelemetry.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Info => "INFO",
            Self::Warn => "WARN",
            Self::Error => "ERROR",
        }
    }
}

/// Returns each event once from successive views.
#[derive(Debug, Default)]
pub struct EventCursor {
    /// The number of the last event that was returned.
    last: u64,
}

impl EventCursor {
    /// The events of `kept` that are new, and the number of new events that the view no longer has.
    pub fn new_events<'a>(&mut self, kept: &'a [Arc<Event>]) -> (&'a [Arc<Event>], u64) {
        let known = self.last;
        self.last = kept.last().map_or(known, |last| last.sequence);
        let (_, new) = kept.split_at(kept.partition_point(|event| event.sequence <= known));
        // Those of a subject that has too many are missing between others.
        let missed = new.last().map_or(0, |last| last.sequence - known - new.len() as u64);
        (new, missed)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventKind {
    /// [`EventDetails::OomKill`].
    OomKill,
    /// [`EventDetails::Termination`].
    Termination,
    /// [`EventDetails::ThrottlingStart`].
    ThrottlingStart,
    /// [`EventDetails::ThrottlingEnd`].
    ThrottlingEnd,
    /// [`EventDetails::Eviction`].
    Eviction,
    /// [`EventDetails::ImagePullFailure`].
    ImagePullFailure,
}

impl EventKind {
    pub const ALL: [Self; 6] = [
        Self::OomKill,
        Self::Termination,
        Self::ThrottlingStart,
        Self::ThrottlingEnd,
        Self::Eviction,
        Self::ImagePullFailure,
    ];

    /// The name in exports and queries.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::OomKill => "oom_kill",
            Self::Termination => "termination",
            Self::ThrottlingStart => "throttling_start",
            Self::ThrottlingEnd => "throttling_end",
            Self::Eviction => "eviction",
            Self::ImagePullFailure => "image_pull_failure",
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EventCounts([u64; EventKind::ALL.len()]);

impl EventCounts {
    pub(crate) fn add(&mut self, kind: EventKind) {
        let counts = EventKind::ALL.into_iter().zip(&mut self.0);
        counts.filter(|(one, _)| *one == kind).for_each(|(_, count)| *count += 1);
    }

    /// Each kind with its number of events.
    pub fn iter(&self) -> impl Iterator<Item = (EventKind, u64)> {
        EventKind::ALL.into_iter().zip(self.0)
    }
}

impl Event {
    pub const fn kind(&self) -> EventKind {
        match self.details {
            EventDetails::OomKill(_) => EventKind::OomKill,
            EventDetails::Termination(_) => EventKind::Termination,
            EventDetails::ThrottlingStart(_) => EventKind::ThrottlingStart,
            EventDetails::ThrottlingEnd(_) => EventKind::ThrottlingEnd,
            EventDetails::Eviction(_) => EventKind::Eviction,
            EventDetails::ImagePullFailure(_) => EventKind::ImagePullFailure,
        }
    }

    /// The severity of an event.
    pub fn severity(&self) -> Severity {
        match &self.details {
            EventDetails::OomKill(_) | EventDetails::Eviction(_) => Severity::Error,
            EventDetails::Termination(Termination { reason: TerminationReason::OomKilled, .. }) => {
                Severity::Error
            }
            EventDetails::Termination(Termination { reason: TerminationReason::Completed, .. })
            | EventDetails::ThrottlingEnd(_) => Severity::Info,
            EventDetails::Termination(_)
            | EventDetails::ThrottlingStart(_)
            | EventDetails::ImagePullFailure(_) => Severity::Warn,
        }
    }

    /// The reason as Kubernetes names it, if there is one.
    pub fn reason(&self) -> Option<&str> {
        match &self.details {
            EventDetails::OomKill(_) => Some(TerminationReason::OomKilled.as_str()),
            EventDetails::Termination(ended) => Some(ended.reason.as_str()),
            EventDetails::Eviction(_) => Some("Evicted"),
            EventDetails::ImagePullFailure(reason) => Some(reason),
            EventDetails::ThrottlingStart(_) | EventDetails::ThrottlingEnd(_) => None,
        }
    }
}

/// Formats an event as a sentence.
impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.subject)?;
        match &self.details {
            EventDetails::OomKill(kill) => {
                let whose = match kill.scope {
                    OomScope::Container => "the container's limit",
                    OomScope::Pod => "the pod's limit",
                    OomScope::Ancestor => "the limit of a group above it",
                    OomScope::Node => "the node's memory",
                };
                write!(f, "OOM kill of {} (pid {}) for {whose}", kill.comm, kill.pid)?;
                match kill.limit_bytes {
                    Some(limit) => write!(f, ", {} of {limit} bytes used", kill.usage_bytes),
                    None => write!(f, ", {} bytes used", kill.usage_bytes),
                }
            }
            EventDetails::Termination(ended) => {
                write!(f, "ended with exit code {} ({})", ended.exit_code, ended.reason.as_str())?;
                match ended.run_seconds() {
                    Some(seconds) => write!(f, " after {seconds:.1} s"),
                    None => Ok(()),
                }
            }
            EventDetails::ThrottlingStart(throttled) => write!(
                f,
                "throttled in {:.0} % of its CFS periods over {:.0} s",
                throttled.share() * 100.0,
                throttled.seconds
            ),
            EventDetails::ThrottlingEnd(throttled) => write!(
                f,
                "no longer throttled; it was in {:.0} % of its CFS periods over {:.0} s",
                throttled.share() * 100.0,
                throttled.seconds
            ),
            EventDetails::Eviction(why) if why.is_empty() => f.write_str("evicted"),
            EventDetails::Eviction(why) => write!(f, "evicted: {why}"),
            EventDetails::ImagePullFailure(reason) => {
                let image = self.subject.names.as_deref().map_or("", |names| names.image.as_str());
                write!(f, "the image {image} cannot be pulled: {reason}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::model::samples;

    #[test]
    fn an_event_is_a_sentence() {
        let sentences: Vec<String> = samples::one_of_each().iter().map(ToString::to_string).collect();
        assert_eq!(
            sentences,
            [
                "shop/web-1/main: OOM kill of java (pid 7) for the container's limit, 1024 of 1024 bytes used",
                "shop/web-1/main: ended with exit code 137 (OOMKilled) after 2.5 s",
                "shop/web-1/main: throttled in 40 % of its CFS periods over 10 s",
                "shop/web-1/main: no longer throttled; it was in 40 % of its CFS periods over 10 s",
                "shop/web-1: evicted: The node was low on resource: memory.",
                "shop/web-1/main: the image example/app:1 cannot be pulled: ErrImagePull",
            ]
        );
    }
}
