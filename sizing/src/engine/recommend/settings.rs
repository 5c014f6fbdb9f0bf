//! What settings of language runtimes mean for the values.

use crate::{
    engine::{advice::AdviceRule, note::SettingNote, reason::Reason},
    settings::{Meaning, Runtime, meaning, runtime_of_image},
    workload::{Container, Resources},
};

fn meanings(container: &Container) -> impl Iterator<Item = (&str, &str, Meaning)> {
    container.settings.iter().map(|(name, value)| (name.as_str(), value.as_str(), meaning(name, value)))
}

fn needed(runtime: Runtime, heap: u64) -> f64 {
    heap as f64 * runtime.overhead()
}

/// What the largest configured heap needs with its overhead, bytes.
pub(super) fn heap_floor(container: &Container) -> Option<f64> {
    let heaps = meanings(container).filter_map(|(_, _, meaning)| match meaning {
        Meaning::Heap(runtime, heap) => Some(needed(runtime, heap)),
        _ => None,
    });
    heaps.reduce(f64::max).filter(|_| AdviceRule::ConfiguredHeap.is_on())
}

/// The smallest share of the limit that is a heap. A size of the heap has precedence over a share of the same runtime.
pub(super) fn heap_share(container: &Container) -> Option<f64> {
    let has_heap = |of: Runtime| {
        meanings(container)
            .any(|(_, _, meaning)| matches!(meaning, Meaning::Heap(runtime, _) if runtime == of))
    };
    let shares = meanings(container).filter_map(|(_, _, meaning)| match meaning {
        Meaning::HeapShare(runtime, share) if !has_heap(runtime) => Some(share),
        _ => None,
    });
    shares.reduce(f64::min)
}

/// Remarks on settings that belong to the values, and on what runtimes do without settings.
pub(super) fn notes(container: &Container, values: &Resources) -> Vec<Reason> {
    if !AdviceRule::Warnings.is_on() {
        return Vec::new();
    }
    let mut notes: Vec<SettingNote> = meanings(container).filter_map(|it| of_setting(it, values)).collect();
    notes.extend(unset_heap(container));
    if values.cpu_limit != container.current.cpu_limit && container.seen > 0 {
        notes.extend(threads(container));
    }
    notes.into_iter().map(Reason::Setting).collect()
}

fn of_setting((name, value, meaning): (&str, &str, Meaning), values: &Resources) -> Option<SettingNote> {
    let (setting, value) = (name.to_owned(), value.to_owned());
    match meaning {
        Meaning::Heap(runtime, heap) => {
            let needed = needed(runtime, heap);
            let decides = values.memory_limit.is_some_and(|limit| limit as f64 <= needed * DECIDES);
            Some(SettingNote::Heap { setting, value, needed: needed as u64, decides })
        }
        Meaning::HeapShare(_, share) => Some(SettingNote::HeapShare { setting, value, share }),
        Meaning::Workers(_) => Some(SettingNote::Workers { setting, value }),
        Meaning::Threads(_) => Some(SettingNote::Threads { setting, value }),
        Meaning::Unknown => Some(SettingNote::Unknown { setting }),
        Meaning::Program(_) => None,
    }
}

/// A limit up to this many times what a heap needs is that of the heap: it was rounded.
const DECIDES: f64 = 1.05;

/// The runtime that a container runs by its program or image, and what shows it.
fn runtime(container: &Container) -> Option<(String, Runtime)> {
    let program = meanings(container).find_map(|(name, _, meaning)| match meaning {
        Meaning::Program(runtime) => Some((format!("the program {name}"), runtime)),
        _ => None,
    });
    program.or_else(|| {
        let runtime = runtime_of_image(&container.image)?;
        Some((format!("the image {}", container.image), runtime))
    })
}

/// A runtime whose heap follows the memory limit, because no setting is known.
fn unset_heap(container: &Container) -> Option<SettingNote> {
    let (setting, runtime) = runtime(container)?;
    let is_set = meanings(container).any(|(_, _, meaning)| match meaning {
        Meaning::Heap(of, _) | Meaning::HeapShare(of, _) => of == runtime,
        _ => false,
    });
    let behaviour = match runtime {
        Runtime::Jvm => {
            "without a setting, the JVM's heap is a quarter of the memory limit, so usage follows the limit and is not the demand; \
             settings in the image cannot be read"
        }
        Runtime::Node => {
            "without a setting, Node.js takes the size of its heap from the memory limit, so usage follows the limit and is not \
             the demand; settings in the image cannot be read"
        }
        Runtime::DotNet => {
            "without a setting, the heap of .NET may fill 75 % of the memory limit, so usage follows the limit and is not the demand; \
             settings in the image cannot be read"
        }
        Runtime::Go => return None,
    };
    (!is_set).then_some(SettingNote::FollowsLimits { setting, behaviour })
}

/// A changed CPU limit changes numbers of threads, unless they are set.
fn threads(container: &Container) -> Option<SettingNote> {
    let is_set = meanings(container).any(|(_, _, meaning)| matches!(meaning, Meaning::Threads(_)));
    let behaviour =
        "the number of threads of Java, .NET and Go (from 1.25 on) follows it, and memory grows with threads";
    (!is_set).then(|| SettingNote::FollowsLimits { setting: "the CPU limit changes".to_owned(), behaviour })
}
