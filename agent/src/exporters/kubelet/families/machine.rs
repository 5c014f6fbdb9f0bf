//! Families of the machine, and the scrape error.

use super::{Family, HostRow, Kind::Gauge, Samples};

const fn machine(name: &'static str, help: &'static str, value: fn(&HostRow) -> Option<u64>) -> Family {
    Family { name, kind: Gauge, help, differs: "", samples: Samples::Machine(value) }
}

pub(super) static FAMILIES: &[Family] = &[
    machine("machine_cpu_cores", "Online CPUs", |host| host.machine.cpus),
    machine("machine_cpu_physical_cores", "Physical cores", |host| host.machine.cores),
    machine("machine_cpu_sockets", "CPU sockets", |host| host.machine.sockets),
    machine("machine_memory_bytes", "Memory of the machine, in bytes", |host| host.machine.memory_bytes),
    machine("machine_swap_bytes", "Swap space of the machine, in bytes", |host| host.machine.swap_bytes),
    Family {
        name: "machine_scrape_error",
        kind: Gauge,
        help: "1 if something of the machine could not be read, 0 otherwise",
        differs: "",
        samples: Samples::Plain(|scrape| {
            let machine = &scrape.view.host.machine;
            let counts =
                [machine.cpus, machine.cores, machine.sockets, machine.memory_bytes, machine.swap_bytes];
            u64::from(counts.iter().any(Option::is_none))
        }),
    },
    Family {
        name: "container_scrape_error",
        kind: Gauge,
        help: "1 if the values are older than 10 seconds, 0 otherwise",
        differs: "1 if values are stale",
        samples: Samples::Plain(|scrape| u64::from(scrape.is_stale())),
    },
];
