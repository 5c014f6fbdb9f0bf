//! Merges new values so that no counter decreases.
//!
//! A counter of a living cgroup cannot decrease, but its sources can differ by rounding: files have microseconds, the
//! kernel nanoseconds, and user and system time are rescaled at each read. `rate()` would take a decrease for a counter
//! reset. So the higher value is held until the raw value has caught up.
//!
//! User and system time are parts of the CPU time, so their sum never exceeds it. On cgroup v1 the kernel counts them in ticks, and
//! the CPU time exactly.

use std::sync::Arc;

use crate::{
    model::AgentRule,
    values::{
        Cpu, CpuSplit, Interface, IoDevice, MemoryEvents, MemoryStat, Network, Pressure, Stall, Tcp,
        Throttling, Traffic, Values,
    },
};

/// Merges every measurement that `new` has into `old`.
pub(super) fn advance(old: &mut Values, new: Values) -> Advanced {
    let Values {
        cpu,
        cpu_windows,
        quota_what_if,
        runqueue,
        cpu_split,
        throttling,
        pressure,
        memory,
        window_peak,
        memory_growth,
        memory_histograms,
        working_set,
        memory_events,
        swap,
        pids,
        memory_stat,
        io,
        spec,
        interfaces,
        processes,
        network,
        tcp,
        round_trips,
    } = new;
    let mut advanced = Advanced::default();
    let split_before = old.cpu_split;
    advanced.subject(&mut old.cpu, cpu, |advanced, old: &Cpu, new| {
        advanced.counter(old.usage_ns, &mut new.usage_ns);
    });
    advanced.shared(&mut old.runqueue, runqueue, |_, _, _| {});
    advanced.shared(&mut old.round_trips, round_trips, |_, _, _| {});
    advanced.shared(&mut old.cpu_windows, cpu_windows, |_, _, _| {});
    advanced.shared(&mut old.quota_what_if, quota_what_if, |_, _, _| {});
    advanced.subject(&mut old.cpu_split, cpu_split, |advanced, old: &CpuSplit, new| {
        advanced.counter(old.user_ns, &mut new.user_ns);
        advanced.counter(old.system_ns, &mut new.system_ns);
    });
    if let (Some(split), Some(cpu)) = (&mut old.cpu_split, old.cpu)
        && AgentRule::PartsOfCpuTime.is_on()
    {
        *split = within(*split, split_before.unwrap_or_default(), cpu.usage_ns);
    }
    advanced.subject(&mut old.throttling, throttling, Advanced::throttling);
    advanced.subject(&mut old.pressure, pressure, |advanced, old: &Pressure, new| {
        advanced.stall(old.cpu, &mut new.cpu);
        advanced.stall(old.memory, &mut new.memory);
        advanced.stall(old.io, &mut new.io);
    });
    advanced.subject(&mut old.memory, memory, |_, old, new| {
        new.peak_bytes = watermark(old.peak_bytes, new.peak_bytes);
    });
    advanced.subject(&mut old.window_peak, window_peak, |_, _, _| {});
    advanced.subject(&mut old.memory_growth, memory_growth, |_, _, _| {});
    advanced.shared(&mut old.memory_histograms, memory_histograms, |_, _, _| {});
    advanced.subject(&mut old.working_set, working_set, |_, _, _| {});
    advanced.subject(&mut old.memory_events, memory_events, |advanced, old: &MemoryEvents, new| {
        advanced.counter(old.low, &mut new.low);
        advanced.counter(old.high, &mut new.high);
        advanced.counter(old.max, &mut new.max);
        advanced.counter(old.oom, &mut new.oom);
        advanced.counter(old.oom_kill, &mut new.oom_kill);
    });
    advanced.subject(&mut old.swap, swap, |_, old, new| {
        new.peak_bytes = watermark(old.peak_bytes, new.peak_bytes);
    });
    advanced.subject(&mut old.pids, pids, |_, _, _| {});
    advanced.shared(&mut old.memory_stat, memory_stat, |advanced, old, new| {
        advanced.memory_stat(old, Arc::make_mut(new));
    });
    advanced.shared(&mut old.io, io, |advanced, old, new| advanced.devices(old, new));
    advanced.subject(&mut old.spec, spec, |_, _, _| {});
    advanced.shared(&mut old.interfaces, interfaces, |advanced, old, new| advanced.interfaces(old, new));
    advanced.subject(&mut old.processes, processes, |_, _, _| {});
    advanced.subject(&mut old.network, network, |advanced, old: &Network, new| {
        let mut old = *old;
        advanced.counters(old.counters_mut(), new.counters_mut());
    });
    advanced.subject(&mut old.tcp, tcp, |advanced, old: &Tcp, new| {
        let mut old = *old;
        advanced.counters(old.counters_mut(), new.counters_mut());
    });
    advanced
}

/// User and system time whose sum is at most `usage_ns`, in the same proportion as far as neither falls below its value `before`. This
/// is what the kernel does for a process (`cputime_adjust`).
fn within(split: CpuSplit, before: CpuSplit, usage_ns: u64) -> CpuSplit {
    let CpuSplit { user_ns, system_ns } = split;
    let sum = u128::from(user_ns) + u128::from(system_ns);
    if sum <= u128::from(usage_ns) {
        return split;
    }
    let share = u128::from(system_ns) * u128::from(usage_ns) / sum;
    let mut system_ns = u64::try_from(share).unwrap_or(usage_ns).max(before.system_ns);
    let mut user_ns = usage_ns.saturating_sub(system_ns);
    if user_ns < before.user_ns {
        user_ns = before.user_ns;
        system_ns = usage_ns.saturating_sub(user_ns).max(before.system_ns);
    }
    CpuSplit { user_ns, system_ns }
}

/// A watermark is a gauge: users may reset it through the file. A source without one keeps the last.
fn watermark(old: Option<u64>, new: Option<u64>) -> Option<u64> {
    new.or(old)
}

/// The outcome of [`advance`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Advanced {
    /// The number of counters that were held.
    pub(super) held: u64,
    /// Whether any value changed. A shared value counts as changed if it is another allocation.
    pub(super) changed: bool,
}

impl Advanced {
    fn subject<T: PartialEq>(
        &mut self,
        old: &mut Option<T>,
        new: Option<T>,
        merge: impl FnOnce(&mut Self, &T, &mut T),
    ) {
        self.take(old, new, merge, T::eq);
    }

    fn shared<T: ?Sized>(
        &mut self,
        old: &mut Option<Arc<T>>,
        new: Option<Arc<T>>,
        merge: impl FnOnce(&mut Self, &Arc<T>, &mut Arc<T>),
    ) {
        self.take(old, new, merge, Arc::ptr_eq);
    }

    fn take<T>(
        &mut self,
        old: &mut Option<T>,
        new: Option<T>,
        merge: impl FnOnce(&mut Self, &T, &mut T),
        same: impl FnOnce(&T, &T) -> bool,
    ) {
        let Some(mut new) = new else { return };
        if let Some(old) = old {
            merge(self, old, &mut new);
            if same(old, &new) {
                return;
            }
        }
        self.changed = true;
        *old = Some(new);
    }

    fn counter(&mut self, old: u64, new: &mut u64) {
        if *new < old {
            *new = old;
            self.held += 1;
        }
    }

    fn counters<const N: usize>(&mut self, old: [&mut u64; N], new: [&mut u64; N]) {
        for (old, new) in old.into_iter().zip(new) {
            self.counter(*old, new);
        }
    }

    fn optional(&mut self, old: Option<u64>, new: &mut Option<u64>) {
        if let (Some(old), Some(new)) = (old, new) {
            self.counter(old, new);
        }
    }

    fn stall(&mut self, old: Stall, new: &mut Stall) {
        self.counter(old.some_ns, &mut new.some_ns);
        self.counter(old.full_ns, &mut new.full_ns);
    }

    fn throttling(&mut self, old: &Throttling, new: &mut Throttling) {
        self.counter(old.periods, &mut new.periods);
        self.counter(old.throttled_periods, &mut new.throttled_periods);
        self.counter(old.throttled_ns, &mut new.throttled_ns);
        self.counter(old.burst_periods, &mut new.burst_periods);
        self.counter(old.burst_ns, &mut new.burst_ns);
    }

    fn memory_stat(&mut self, old: &MemoryStat, new: &mut MemoryStat) {
        self.counter(old.page_faults, &mut new.page_faults);
        self.counter(old.major_page_faults, &mut new.major_page_faults);
        self.optional(old.page_scans, &mut new.page_scans);
        self.optional(old.page_steals, &mut new.page_steals);
        self.optional(old.refaults_anon, &mut new.refaults_anon);
        self.optional(old.refaults_file, &mut new.refaults_file);
    }

    /// A device that is missing from io.stat (unplugged, or no I/O since a reset) keeps its counters.
    fn devices(&mut self, old: &[IoDevice], new: &mut Arc<[IoDevice]>) {
        let number = |device: &IoDevice| (device.major, device.minor);
        let mut all = new.to_vec();
        for before in old {
            match all.iter_mut().find(|device| number(device) == number(before)) {
                Some(device) => {
                    self.counter(before.read_bytes, &mut device.read_bytes);
                    self.counter(before.write_bytes, &mut device.write_bytes);
                    self.counter(before.reads, &mut device.reads);
                    self.counter(before.writes, &mut device.writes);
                }
                None => all.push(*before),
            }
        }
        all.sort_unstable_by_key(number);
        *new = all.into();
    }

    /// An interface that no longer exists is dropped: its namespace may outlive it.
    fn interfaces(&mut self, old: &[Interface], new: &mut Arc<[Interface]>) {
        for now in Arc::make_mut(new) {
            if let Some(before) = old.iter().find(|before| before.name == now.name) {
                self.traffic(before.receive, &mut now.receive);
                self.traffic(before.transmit, &mut now.transmit);
            }
        }
    }

    fn traffic(&mut self, old: Traffic, new: &mut Traffic) {
        self.counter(old.bytes, &mut new.bytes);
        self.counter(old.packets, &mut new.packets);
        self.counter(old.errors, &mut new.errors);
        self.counter(old.dropped, &mut new.dropped);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::values::{Memory, Swap};
    use proptest::prelude::*;

    fn cpu(usage_ns: u64) -> Values {
        Values { cpu: Some(Cpu { usage_ns }), ..Values::default() }
    }

    #[test]
    fn a_step_back_is_held_and_counted() {
        let mut values = cpu(1_000);
        assert_eq!(advance(&mut values, cpu(999)), Advanced { held: 1, changed: false });
        assert_eq!(values, cpu(1_000));
        assert_eq!(advance(&mut values, cpu(1_001)), Advanced { held: 0, changed: true });
        assert_eq!(advance(&mut values, cpu(1_001)), Advanced::default());
        assert_eq!(values, cpu(1_001));
    }

    #[test]
    fn a_subject_that_was_not_sampled_stays() {
        let mut values = cpu(5);
        let memory = Some(Memory { usage_bytes: 9, peak_bytes: Some(10), ..Memory::default() });
        advance(&mut values, Values { memory, ..Values::default() });
        assert_eq!(values.cpu, Some(Cpu { usage_ns: 5 }));
        let without_peak = Memory { usage_bytes: 3, limit_bytes: Some(4), ..Memory::default() };
        advance(&mut values, Values { memory: Some(without_peak), ..Values::default() });
        assert_eq!(values.memory, Some(Memory { peak_bytes: Some(10), ..without_peak }));
    }

    #[test]
    fn a_watermark_that_a_source_lacks_stays_and_one_that_was_reset_falls() {
        let sample = |peak_bytes| {
            let memory = Some(Memory { peak_bytes, ..Memory::default() });
            let swap = Some(Swap { peak_bytes, ..Swap::default() });
            Values { memory, swap, ..Values::default() }
        };
        let mut values = Values::default();
        for (sampled, expected) in [(None, None), (Some(9), Some(9)), (None, Some(9)), (Some(4), Some(4))] {
            advance(&mut values, sample(sampled));
            assert_eq!(values, sample(expected));
        }
    }

    #[test]
    fn a_device_that_vanished_keeps_its_counters() {
        let device = |minor, read_bytes| IoDevice { major: 8, minor, read_bytes, ..IoDevice::default() };
        let io = |devices: &[IoDevice]| Values { io: Some(devices.into()), ..Values::default() };
        let mut values = io(&[device(0, 10), device(16, 20)]);
        assert_eq!(advance(&mut values, io(&[device(16, 25)])).held, 0);
        assert_eq!(values.io.as_deref(), Some(&[device(0, 10), device(16, 25)][..]));
    }

    #[test]
    fn an_interface_that_vanished_leaves_and_one_that_stays_is_held() {
        let interface = |name: &str, bytes| Interface {
            name: name.into(),
            receive: Traffic { bytes, ..Traffic::default() },
            transmit: Traffic { packets: bytes, ..Traffic::default() },
        };
        let with = |all: &[Interface]| Values { interfaces: Some(all.into()), ..Values::default() };
        let mut values = with(&[interface("eth0", 10), interface("net1", 20)]);
        assert_eq!(advance(&mut values, with(&[interface("eth0", 9)])).held, 2);
        assert_eq!(values.interfaces.as_deref(), Some(&[interface("eth0", 10)][..]));
        advance(&mut values, with(&[]));
        assert_eq!(values.interfaces.as_deref(), Some(&[][..]));
    }

    #[test]
    fn user_and_system_time_never_exceed_the_cpu_time() {
        let step = (0..1000_u64, 0..1000_u64, 0..1000_u64, any::<[bool; 2]>());
        let steps = proptest::collection::vec(step, 1..40);
        let applies = |steps: &Vec<(u64, u64, u64, [bool; 2])>| {
            steps.iter().any(|(_, _, _, [_, has_split])| *has_split)
        };
        AgentRule::PartsOfCpuTime.prove(&steps, applies, |steps| {
            let (mut values, mut raw) = (Values::default(), [0_u64; 3]);
            let mut before = CpuSplit::default();
            for (usage, user, system, [has_cpu, has_split]) in steps {
                raw = [raw[0] + usage, raw[1] + user, raw[2] + system];
                let [usage_ns, user_ns, system_ns] = raw;
                let first = values.cpu.is_none();
                let sample = Values {
                    cpu: (*has_cpu || first).then_some(Cpu { usage_ns }),
                    cpu_split: has_split.then_some(CpuSplit { user_ns, system_ns }),
                    ..Values::default()
                };
                let held = advance(&mut values, sample).held;
                let (cpu, split) = (values.cpu.unwrap(), values.cpu_split.unwrap_or_default());
                let never_falls = split.user_ns >= before.user_ns && split.system_ns >= before.system_ns;
                // Nothing is taken away that fits.
                let fits = *has_split && *has_cpu && user_ns + system_ns <= usage_ns;
                let is_whole = split == CpuSplit { user_ns, system_ns };
                let is_within = split.user_ns + split.system_ns <= cpu.usage_ns;
                if held > 0 || !is_within || !never_falls || (fits && !is_whole) {
                    return Err(format!("{split:?} of {cpu:?}, after {before:?}; {raw:?} was read"));
                }
                before = split;
            }
            Ok(())
        });
    }

    proptest! {
        #[test]
        fn counters_never_go_back(raw in proptest::collection::vec(any::<[u64; 3]>(), 1..40)) {
            let mut values = Values::default();
            let mut before = [0; 3];
            for [periods, throttled_periods, throttled_ns] in raw {
                let sample = Throttling { periods, throttled_periods, throttled_ns, ..Throttling::default() };
                advance(&mut values, Values { throttling: Some(sample), ..Values::default() });
                let now = values.throttling.unwrap();
                let now = [now.periods, now.throttled_periods, now.throttled_ns];
                prop_assert!(now.iter().zip(before).all(|(now, before)| *now >= before));
                before = now;
            }
        }
    }
}
