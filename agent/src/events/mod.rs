//! Events: what happened to containers that people act on, told once each.
//!
//! An event is made where the thing is noticed: by the store for terminations and OOM kills, by `throttling` and
//! `statuses` for the rest. The [`Recorder`] numbers them and keeps the last ones; whoever tells them on takes them from
//! the published view, by their numbers.

mod recorder;
#[cfg(test)]
pub(crate) mod samples;
mod statuses;
mod throttling;

use std::{fmt, sync::Arc, time::Instant};

pub use self::recorder::{MOST_EVENTS, Recorder};
use self::{statuses::Statuses, throttling::Throttling};
use crate::{
    identity::{Identity, Level, Names, Runtime, pod, pods::Pods},
    store::{
        Key, Store,
        ends::{Exit, OomKill, OomScope, Reason},
    },
};

/// Something that happened.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// Its number: from 1 on since the agent started, without gaps, in the order in which events were told.
    pub sequence: u64,
    /// When it happened, seconds since the Unix epoch.
    pub at_unix: f64,
    /// To whom.
    pub subject: Subject,
    /// What.
    pub what: What,
}

/// Whom an event is about: a container, or a pod as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// What pod metadata tells; `None` where nobody told in time.
    pub names: Option<Arc<Names>>,
    /// The pod's uid; empty outside of pods.
    pub pod_uid: Box<str>,
    /// The container's id, or the unit's name; empty where only a pod's status tells of it.
    pub id: Box<str>,
    /// The runtime, where it is known.
    pub runtime: Runtime,
    /// What the cgroup stands for; a pod or a container where there is none.
    pub level: Level,
    /// The cgroup's path; empty where only a pod's status tells of it.
    pub path: Arc<str>,
}

impl Subject {
    /// The subject that a cgroup is.
    pub fn of(identity: &Identity) -> Self {
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

    /// One of which only a pod's status tells.
    pub fn told(names: &Arc<Names>, pod_uid: &str, id: &str) -> Self {
        Self {
            names: Some(Arc::clone(names)),
            pod_uid: pod_uid.into(),
            id: id.into(),
            runtime: Runtime::Unknown,
            level: if names.container.is_empty() { Level::Pod } else { Level::Container },
            path: "".into(),
        }
    }

    /// Whether names may still come.
    fn lacks_names(&self) -> bool {
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

/// What happened.
#[derive(Clone, Debug, PartialEq)]
pub enum What {
    /// The OOM killer chose a victim in it.
    OomKill(OomKill),
    /// Its init process ended.
    Termination(Termination),
    /// From now on it is throttled much.
    ThrottlingStart(Throttled),
    /// It is not throttled any more, after having been for so long.
    ThrottlingEnd(Throttled),
    /// The pod was evicted from the node; why, in the kubelet's words.
    Eviction(Box<str>),
    /// Its image cannot be had; the kubelet's reason.
    ImagePullFailure(Box<str>),
}

/// How an init process ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Termination {
    /// Why.
    pub reason: Reason,
    /// Its exit code; 128 and the signal's number for a signal.
    pub exit_code: u8,
    /// The signal, if one ended it and the kernel told.
    pub signal: Option<u8>,
    /// Its process id and name, if the kernel told.
    pub process: Option<(u32, Box<str>)>,
    /// For how long it ran, seconds, if the kernel told.
    pub run_seconds: Option<f64>,
}

impl Termination {
    /// As the kernel told it.
    pub fn seen(exit: &Exit, reason: Reason) -> Self {
        let Exit { init, ended_unix, status } = exit;
        Self {
            reason,
            exit_code: status.code(),
            signal: status.signal(),
            process: Some((init.pid, init.comm.as_str().into())),
            run_seconds: Some((ended_unix - init.started_unix).max(0.0)),
        }
    }

    /// As a pod's status tells it.
    pub fn told(ended: &pod::Termination) -> Self {
        Self {
            reason: Reason::of_status(&ended.reason),
            exit_code: u8::try_from(ended.exit_code).unwrap_or(u8::MAX),
            signal: None,
            process: None,
            run_seconds: None,
        }
    }
}

/// How much of a time was throttled.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Throttled {
    /// Seconds that are looked back upon.
    pub seconds: f64,
    /// CFS periods in which it ran.
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

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// As it should be.
    Info,
    /// To be looked at.
    Warn,
    /// Something was lost.
    Error,
}

impl Severity {
    /// The word, as OpenTelemetry writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Info => "INFO",
            Self::Warn => "WARN",
            Self::Error => "ERROR",
        }
    }
}

/// Takes each event once from what is published.
#[derive(Debug, Default)]
pub(crate) struct Follower {
    /// The number of the last one.
    last: u64,
}

impl Follower {
    /// The events that are new among those that are kept, and how many more were new and are not kept any more.
    pub(crate) fn new_events<'a>(&mut self, kept: &'a [Arc<Event>]) -> (&'a [Arc<Event>], u64) {
        let known = self.last;
        self.last = kept.last().map_or(known, |last| last.sequence);
        let (_, new) = kept.split_at(kept.partition_point(|event| event.sequence <= known));
        let missed = new.first().map_or(0, |next| next.sequence - known - 1);
        (new, missed)
    }
}

/// Looks for what no single measurement or message tells.
#[derive(Debug, Default)]
pub(crate) struct Lookout {
    throttling: Throttling,
    statuses: Statuses,
}

impl Lookout {
    /// Looks, once a second, and has the store record what it sees.
    pub(crate) fn look(&mut self, store: &mut Store, pods: &Arc<Pods>, now: Instant, now_unix: f64) {
        let seen = self.throttling.look(store, now);
        for (subject, what) in seen.into_iter().chain(self.statuses.look(pods)) {
            store.happened(subject, what, now_unix, now);
        }
    }

    /// Cgroups of which nothing more is to come.
    pub(crate) fn forget(&mut self, gone: &[Key]) {
        self.throttling.forget(gone);
    }
}

/// The kinds of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// [`What::OomKill`].
    OomKill,
    /// [`What::Termination`].
    Termination,
    /// [`What::ThrottlingStart`].
    ThrottlingStart,
    /// [`What::ThrottlingEnd`].
    ThrottlingEnd,
    /// [`What::Eviction`].
    Eviction,
    /// [`What::ImagePullFailure`].
    ImagePullFailure,
}

impl Kind {
    /// All of them.
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

/// Events by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts([u64; Kind::ALL.len()]);

impl Counts {
    fn add(&mut self, kind: Kind) {
        let counts = Kind::ALL.into_iter().zip(&mut self.0);
        counts.filter(|(one, _)| *one == kind).for_each(|(_, count)| *count += 1);
    }

    /// Each kind with how many there were.
    pub fn iter(&self) -> impl Iterator<Item = (Kind, u64)> {
        Kind::ALL.into_iter().zip(self.0)
    }
}

impl Event {
    /// Its kind.
    pub const fn kind(&self) -> Kind {
        match self.what {
            What::OomKill(_) => Kind::OomKill,
            What::Termination(_) => Kind::Termination,
            What::ThrottlingStart(_) => Kind::ThrottlingStart,
            What::ThrottlingEnd(_) => Kind::ThrottlingEnd,
            What::Eviction(_) => Kind::Eviction,
            What::ImagePullFailure(_) => Kind::ImagePullFailure,
        }
    }

    /// How bad it is.
    pub fn severity(&self) -> Severity {
        match &self.what {
            What::OomKill(_) | What::Eviction(_) => Severity::Error,
            What::Termination(Termination { reason: Reason::OomKilled, .. }) => Severity::Error,
            What::Termination(Termination { reason: Reason::Completed, .. }) | What::ThrottlingEnd(_) => {
                Severity::Info
            }
            What::Termination(_) | What::ThrottlingStart(_) | What::ImagePullFailure(_) => Severity::Warn,
        }
    }

    /// The reason in Kubernetes' word, where there is one.
    pub fn reason(&self) -> Option<&str> {
        match &self.what {
            What::OomKill(_) => Some(Reason::OomKilled.as_str()),
            What::Termination(ended) => Some(ended.reason.as_str()),
            What::Eviction(_) => Some("Evicted"),
            What::ImagePullFailure(reason) => Some(reason),
            What::ThrottlingStart(_) | What::ThrottlingEnd(_) => None,
        }
    }
}

/// One sentence for people.
impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.subject)?;
        match &self.what {
            What::OomKill(kill) => {
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
            What::Termination(ended) => {
                write!(f, "ended with exit code {} ({})", ended.exit_code, ended.reason.as_str())?;
                match ended.run_seconds {
                    Some(seconds) => write!(f, " after {seconds:.1} s"),
                    None => Ok(()),
                }
            }
            What::ThrottlingStart(throttled) => write!(
                f,
                "throttled in {:.0} % of its CFS periods over {:.0} s",
                throttled.share() * 100.0,
                throttled.seconds
            ),
            What::ThrottlingEnd(throttled) => write!(
                f,
                "no longer throttled; it was in {:.0} % of its CFS periods over {:.0} s",
                throttled.share() * 100.0,
                throttled.seconds
            ),
            What::Eviction(why) if why.is_empty() => f.write_str("evicted"),
            What::Eviction(why) => write!(f, "evicted: {why}"),
            What::ImagePullFailure(reason) => {
                let image = self.subject.names.as_deref().map_or("", |names| names.image.as_str());
                write!(f, "the image {image} cannot be had: {reason}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_follower_takes_each_event_once_and_counts_what_it_missed() {
        let mut recorder = Recorder::default();
        let names = Arc::new(Names { pod: "web".to_owned(), ..Names::default() });
        let mut happen = |times: usize| {
            for _ in 0..times {
                let what = What::Eviction("".into());
                recorder.record(Subject::told(&names, "u", ""), what, 1.0, Instant::now());
            }
            recorder.rows()
        };
        let mut follower = Follower::default();
        let mut follow = |rows: Arc<[Arc<Event>]>| {
            let (new, missed) = follower.new_events(&rows);
            (new.iter().map(|event| event.sequence).collect::<Vec<_>>(), missed)
        };
        assert_eq!(follow(happen(0)), (vec![], 0));
        assert_eq!(follow(happen(2)), (vec![1, 2], 0));
        assert_eq!(follow(happen(0)), (vec![], 0));
        let (new, missed) = follow(happen(MOST_EVENTS + 3));
        assert_eq!((new.len(), new.first(), missed), (MOST_EVENTS, Some(&6), 3));
    }

    #[test]
    fn an_event_is_a_sentence() {
        let said: Vec<String> = samples::one_of_each().iter().map(ToString::to_string).collect();
        assert_eq!(
            said,
            [
                "shop/web-1/main: OOM kill of java (pid 7) for the container's limit, 1024 of 1024 bytes used",
                "shop/web-1/main: ended with exit code 137 (OOMKilled) after 2.5 s",
                "shop/web-1/main: throttled in 40 % of its CFS periods over 10 s",
                "shop/web-1/main: no longer throttled; it was in 40 % of its CFS periods over 10 s",
                "shop/web-1: evicted: The node was low on resource: memory.",
                "shop/web-1/main: the image example/app:1 cannot be had: ErrImagePull",
            ]
        );
    }
}
