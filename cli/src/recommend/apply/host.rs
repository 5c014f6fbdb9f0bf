//! Commands for a host without Kubernetes: limits of systemd units and of containers.
//!
//! Requests have no counterpart on a host: the weights of cgroups only mean something beside those of all others, so they are
//! left as they are.

use crate::{columns::plain, recommend::report::Entry};

/// Where systemd reads settings of a unit that its package did not ship.
const DROP_INS: &str = "/etc/systemd/system";

/// Commands that set the limits of units and containers.
pub(super) fn commands(entries: &[&Entry]) -> String {
    entries.iter().map(|entry| command(entry)).collect()
}

fn command(entry: &Entry) -> String {
    let name = &entry.workload;
    let comment = |text: &str| format!("# {}: {text}\n", plain(name));
    match entry.owner.as_str() {
        "Unit" => match name.rsplit_once('/') {
            Some((guest, unit)) if is_unit(unit) => {
                let command = unit_command(entry, unit).unwrap_or_else(|why| format!("{why}\n"));
                comment(&format!("in the guest {}: {}", plain(guest), command.trim_end()))
            }
            None if is_unit(name) => unit_command(entry, name).unwrap_or_else(|why| comment(&why)),
            _ => comment("cannot be changed: invalid name"),
        },
        "Container" if !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_hexdigit()) => {
            container(entry)
        }
        "Container" => comment("cannot be changed: invalid id"),
        "Cgroup" if name.ends_with(".slice") && is_unit(name) => comment(&of_slice(entry, name)),
        owner => comment(&format!(
            "cannot be changed: made by the program that starts it ({}): set the limits there",
            plain(owner)
        )),
    }
}

/// Whether a name can be that of a unit. Such names need single quotes alone.
fn is_unit(name: &str) -> bool {
    let is_valid = |byte: u8| byte.is_ascii_alphanumeric() || b":-_.\\@".contains(&byte);
    !name.is_empty() && !name.starts_with(['-', '.']) && name.bytes().all(is_valid)
}

/// Settings of systemd for the recommended limits.
fn settings(entry: &Entry) -> Vec<String> {
    let (now, then) = (entry.current, entry.recommended);
    let mut settings = Vec::new();
    match then.memory_limit {
        Some(bytes) => settings.push(format!("MemoryMax={bytes}")),
        None if now.memory_limit.is_some() => settings.push("MemoryMax=infinity".to_owned()),
        None => {}
    }
    match then.cpu_limit {
        // Percent of one CPU. Rounded up, because old versions of systemd take whole percents only.
        Some(millicores) => settings.push(format!("CPUQuota={}%", millicores.div_ceil(10).max(1))),
        None if now.cpu_limit.is_some() => settings.push("CPUQuota=".to_owned()),
        None => {}
    }
    settings
}

/// The command for a unit, or why there is none.
fn unit_command(entry: &Entry, unit: &str) -> Result<String, String> {
    let settings = settings(entry);
    let (stem, unit_type) = unit.rsplit_once('.').unwrap_or((unit, ""));
    if unit_type == "slice" {
        return Err(of_slice(entry, unit));
    }
    if unit_type != "service" || matches!(stem, "run" | "session") {
        return Err("made by the program that starts it: set the limits there".to_owned());
    }
    if settings.is_empty() {
        return Err("no limit to set".to_owned());
    }
    // `set-property` refuses templates: they are no units that run.
    if stem.ends_with('@') {
        if stem.starts_with("dbus-") {
            return Err(
                "started by the bus for each connection: set the limits in its own unit file".to_owned()
            );
        }
        let folder = format!("{DROP_INS}/{unit}.d");
        let lines: Vec<String> =
            std::iter::once("[Service]".to_owned()).chain(settings).map(|line| format!("'{line}'")).collect();
        return Ok(format!(
            "mkdir -p '{folder}' && printf '%s\\n' {} > '{folder}/50-snug.conf' && systemctl daemon-reload\n",
            lines.join(" ")
        ));
    }
    let settings: Vec<String> = settings.iter().map(|setting| format!("'{setting}'")).collect();
    Ok(format!("systemctl set-property '{unit}' {}\n", settings.join(" ")))
}

/// What to do about a slice. Its limits hold for all of its units together, so this is for a person to decide.
fn of_slice(entry: &Entry, slice: &str) -> String {
    let settings = settings(entry);
    if settings.is_empty() {
        return "no limit to set".to_owned();
    }
    let settings: Vec<String> = settings.iter().map(|setting| format!("'{setting}'")).collect();
    format!(
        "limits of a slice hold for all units in it together; if that is meant: systemctl set-property '{slice}' {}",
        settings.join(" ")
    )
}

/// `docker update`, and the same for a compose file. Podman and nerdctl have the same command and options.
fn container(entry: &Entry) -> String {
    let id = &entry.workload;
    let mut options = String::new();
    let mut limits = Vec::new();
    if let Some(bytes) = entry.recommended.memory_limit {
        // Without `--memory-swap`, a limit above the sum that was set before is refused. Twice the memory is the default.
        options += &format!(" --memory {bytes} --memory-swap {}", bytes.saturating_mul(2));
        limits.push(format!("memory: {bytes}"));
    }
    if let Some(millicores) = entry.recommended.cpu_limit {
        let cpus = format!("{}.{:03}", millicores / 1000, millicores % 1000);
        options += &format!(" --cpus {cpus}");
        limits.push(format!("cpus: \"{cpus}\""));
    }
    if options.is_empty() {
        return format!("# {id}: no limit to set\n");
    }
    format!(
        "docker update{options} {id}\n# in a compose file: deploy: {{resources: {{limits: {{{}}}}}}}\n",
        limits.join(", ")
    )
}
