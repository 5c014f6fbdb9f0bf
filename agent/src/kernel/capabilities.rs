//! Capabilities that are needed at start only.

use std::io;

use rustix::thread::{CapabilitySet, capabilities, set_capabilities};

/// Drops `CAP_NET_ADMIN` from this thread and from those that it starts later. It is needed to attach programs to cgroups, and would
/// also allow to change the network of the host.
///
/// # Errors
/// The error of the kernel.
pub fn drop_net_admin() -> io::Result<()> {
    let mut sets = capabilities(None)?;
    for set in [&mut sets.effective, &mut sets.permitted, &mut sets.inheritable] {
        set.remove(CapabilitySet::NET_ADMIN);
    }
    Ok(set_capabilities(None, sets)?)
}

#[cfg(test)]
mod tests {
    use std::{fs, thread};

    use super::*;

    #[test]
    fn a_thread_and_its_children_lose_the_capability() {
        let lost = || {
            let status = fs::read_to_string("/proc/thread-self/status").unwrap();
            let sets = status.lines().filter(|line| ["CapEff", "CapPrm", "CapInh"].contains(&&line[..6]));
            let bits = sets.map(|line| u64::from_str_radix(line[8..].trim(), 16).unwrap());
            bits.fold(0, |all, bits| all | bits) & (1 << 12) == 0
        };
        let checked = thread::spawn(move || {
            drop_net_admin().unwrap();
            (lost(), thread::spawn(lost).join().unwrap())
        });
        assert_eq!(checked.join().unwrap(), (true, true));
    }
}
