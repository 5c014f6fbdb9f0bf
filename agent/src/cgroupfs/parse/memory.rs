//! `memory.stat`, `memory.events`, and on v1 `memory.limit_in_bytes` and `memory.oom_control`.

use super::{ParseError, number, required, rows};
use crate::values::{MemoryEvents, MemoryStat};

/// v1 `memory.oom_control`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OomControl {
    /// Tasks killed by the OOM killer in the cgroup, without its descendants.
    pub oom_kill: u64,
    /// The cgroup is out of memory and its tasks are stopped.
    pub under_oom: bool,
}

/// v2 `memory.events`.
pub fn memory_events(text: &[u8]) -> Result<MemoryEvents, ParseError> {
    let (mut low, mut high, mut max, mut oom, mut oom_kill) = (None, None, None, None, None);
    for row in rows(text) {
        let value = match row.key {
            b"low" => &mut low,
            b"high" => &mut high,
            b"max" => &mut max,
            b"oom" => &mut oom,
            b"oom_kill" => &mut oom_kill,
            _ => continue,
        };
        *value = Some(row.number()?);
    }
    Ok(MemoryEvents {
        low: required(low, "low", text)?,
        high: required(high, "high", text)?,
        max: required(max, "max", text)?,
        oom: required(oom, "oom", text)?,
        oom_kill: required(oom_kill, "oom_kill", text)?,
    })
}

/// v1 `memory.oom_control`.
pub fn oom_control(text: &[u8]) -> Result<OomControl, ParseError> {
    let (mut oom_kill, mut under_oom) = (None, None);
    for row in rows(text) {
        match row.key {
            b"oom_kill" => oom_kill = Some(row.number()?),
            b"under_oom" => under_oom = Some(row.number()? != 0),
            _ => {}
        }
    }
    Ok(OomControl {
        oom_kill: required(oom_kill, "oom_kill", text)?,
        under_oom: required(under_oom, "under_oom", text)?,
    })
}

/// v1 `memory.limit_in_bytes` and `memory.memsw.limit_in_bytes`; `None` = no limit.
///
/// No limit is the kernel's `PAGE_COUNTER_MAX` pages: `i64::MAX` rounded down to whole pages, above 2^62 for every page
/// size. No machine has 2^62 bytes, so larger limits mean no limit.
pub fn limit_v1(text: &[u8]) -> Result<Option<u64>, ParseError> {
    number(text).map(|bytes| (bytes <= 1 << 62).then_some(bytes))
}

/// `inactive_file` of v2 `memory.stat`; other rows are not parsed.
pub fn inactive_file(text: &[u8]) -> Result<u64, ParseError> {
    one_row(text, "inactive_file")
}

/// `total_inactive_file` of v1 `memory.stat`; other rows are not parsed.
pub fn inactive_file_v1(text: &[u8]) -> Result<u64, ParseError> {
    one_row(text, "total_inactive_file")
}

fn one_row(text: &[u8], name: &'static str) -> Result<u64, ParseError> {
    let row = rows(text).find(|row| row.key == name.as_bytes());
    required(row, name, text)?.number()
}

/// The rows of `memory.stat`.
#[derive(Default)]
struct Found {
    anon: Option<u64>,
    file: Option<u64>,
    kernel: Option<u64>,
    shmem: Option<u64>,
    file_mapped: Option<u64>,
    file_dirty: Option<u64>,
    file_writeback: Option<u64>,
    active_file: Option<u64>,
    inactive_file: Option<u64>,
    active_anon: Option<u64>,
    inactive_anon: Option<u64>,
    slab_reclaimable: Option<u64>,
    slab_unreclaimable: Option<u64>,
    unevictable: Option<u64>,
    page_faults: Option<u64>,
    major_page_faults: Option<u64>,
    page_scans: Option<u64>,
    page_steals: Option<u64>,
    refaults_anon: Option<u64>,
    refaults_file: Option<u64>,
}

/// v2 `memory.stat`. `kernel` (Linux 5.18) and the rows on slab, scans and refaults may be missing.
pub fn memory_stat(text: &[u8]) -> Result<MemoryStat, ParseError> {
    let mut found = Found::default();
    for row in rows(text) {
        let value = match row.key {
            b"anon" => &mut found.anon,
            b"file" => &mut found.file,
            b"kernel" => &mut found.kernel,
            b"shmem" => &mut found.shmem,
            b"file_mapped" => &mut found.file_mapped,
            b"file_dirty" => &mut found.file_dirty,
            b"file_writeback" => &mut found.file_writeback,
            b"active_file" => &mut found.active_file,
            b"inactive_file" => &mut found.inactive_file,
            b"active_anon" => &mut found.active_anon,
            b"inactive_anon" => &mut found.inactive_anon,
            b"slab_reclaimable" => &mut found.slab_reclaimable,
            b"slab_unreclaimable" => &mut found.slab_unreclaimable,
            b"unevictable" => &mut found.unevictable,
            b"pgfault" => &mut found.page_faults,
            b"pgmajfault" => &mut found.major_page_faults,
            b"pgscan" => &mut found.page_scans,
            b"pgsteal" => &mut found.page_steals,
            b"workingset_refault_anon" => &mut found.refaults_anon,
            b"workingset_refault_file" => &mut found.refaults_file,
            _ => continue,
        };
        *value = Some(row.number()?);
    }
    Ok(MemoryStat {
        anon_bytes: required(found.anon, "anon", text)?,
        file_bytes: required(found.file, "file", text)?,
        kernel_bytes: found.kernel,
        shmem_bytes: required(found.shmem, "shmem", text)?,
        file_mapped_bytes: required(found.file_mapped, "file_mapped", text)?,
        file_dirty_bytes: required(found.file_dirty, "file_dirty", text)?,
        file_writeback_bytes: required(found.file_writeback, "file_writeback", text)?,
        active_file_bytes: required(found.active_file, "active_file", text)?,
        inactive_file_bytes: required(found.inactive_file, "inactive_file", text)?,
        active_anon_bytes: required(found.active_anon, "active_anon", text)?,
        inactive_anon_bytes: required(found.inactive_anon, "inactive_anon", text)?,
        slab_reclaimable_bytes: found.slab_reclaimable,
        slab_unreclaimable_bytes: found.slab_unreclaimable,
        unevictable_bytes: required(found.unevictable, "unevictable", text)?,
        page_faults: required(found.page_faults, "pgfault", text)?,
        major_page_faults: required(found.major_page_faults, "pgmajfault", text)?,
        page_scans: found.page_scans,
        page_steals: found.page_steals,
        refaults_anon: found.refaults_anon,
        refaults_file: found.refaults_file,
    })
}

/// The `total_*` rows of v1 `memory.stat`; `kernel_bytes` comes from `memory.kmem.usage_in_bytes`.
pub fn memory_stat_v1(text: &[u8], kernel_bytes: Option<u64>) -> Result<MemoryStat, ParseError> {
    let mut found = Found::default();
    for row in rows(text) {
        let Some(key) = row.key.strip_prefix(b"total_") else { continue };
        let value = match key {
            b"rss" => &mut found.anon,
            b"cache" => &mut found.file,
            b"shmem" => &mut found.shmem,
            b"mapped_file" => &mut found.file_mapped,
            b"dirty" => &mut found.file_dirty,
            b"writeback" => &mut found.file_writeback,
            b"active_file" => &mut found.active_file,
            b"inactive_file" => &mut found.inactive_file,
            b"active_anon" => &mut found.active_anon,
            b"inactive_anon" => &mut found.inactive_anon,
            b"unevictable" => &mut found.unevictable,
            b"pgfault" => &mut found.page_faults,
            b"pgmajfault" => &mut found.major_page_faults,
            b"workingset_refault_anon" => &mut found.refaults_anon,
            b"workingset_refault_file" => &mut found.refaults_file,
            _ => continue,
        };
        *value = Some(row.number()?);
    }
    Ok(MemoryStat {
        anon_bytes: required(found.anon, "total_rss", text)?,
        file_bytes: required(found.file, "total_cache", text)?,
        kernel_bytes,
        shmem_bytes: required(found.shmem, "total_shmem", text)?,
        file_mapped_bytes: required(found.file_mapped, "total_mapped_file", text)?,
        file_dirty_bytes: required(found.file_dirty, "total_dirty", text)?,
        file_writeback_bytes: required(found.file_writeback, "total_writeback", text)?,
        active_file_bytes: required(found.active_file, "total_active_file", text)?,
        inactive_file_bytes: required(found.inactive_file, "total_inactive_file", text)?,
        active_anon_bytes: required(found.active_anon, "total_active_anon", text)?,
        inactive_anon_bytes: required(found.inactive_anon, "total_inactive_anon", text)?,
        slab_reclaimable_bytes: None,
        slab_unreclaimable_bytes: None,
        unevictable_bytes: required(found.unevictable, "total_unevictable", text)?,
        page_faults: required(found.page_faults, "total_pgfault", text)?,
        major_page_faults: required(found.major_page_faults, "total_pgmajfault", text)?,
        page_scans: None,
        page_steals: None,
        refaults_anon: found.refaults_anon,
        refaults_file: found.refaults_file,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const V2_ROWS: [&str; 20] = [
        "anon",
        "file",
        "kernel",
        "shmem",
        "file_mapped",
        "file_dirty",
        "file_writeback",
        "active_file",
        "inactive_file",
        "active_anon",
        "inactive_anon",
        "slab_reclaimable",
        "slab_unreclaimable",
        "unevictable",
        "pgfault",
        "pgmajfault",
        "pgscan",
        "pgsteal",
        "workingset_refault_anon",
        "workingset_refault_file",
    ];

    fn expected(n: &[u64; 20]) -> MemoryStat {
        let [
            anon,
            file,
            kernel,
            shmem,
            mapped,
            dirty,
            writeback,
            af,
            inf,
            aa,
            ia,
            rec,
            unrec,
            une,
            pf,
            mpf,
            sc,
            st,
            ra,
            rf,
        ] = *n;
        MemoryStat {
            anon_bytes: anon,
            file_bytes: file,
            kernel_bytes: Some(kernel),
            shmem_bytes: shmem,
            file_mapped_bytes: mapped,
            file_dirty_bytes: dirty,
            file_writeback_bytes: writeback,
            active_file_bytes: af,
            inactive_file_bytes: inf,
            active_anon_bytes: aa,
            inactive_anon_bytes: ia,
            slab_reclaimable_bytes: Some(rec),
            slab_unreclaimable_bytes: Some(unrec),
            unevictable_bytes: une,
            page_faults: pf,
            major_page_faults: mpf,
            page_scans: Some(sc),
            page_steals: Some(st),
            refaults_anon: Some(ra),
            refaults_file: Some(rf),
        }
    }

    /// The v1 name of a row, without `total_`; `None` for those that v1 lacks.
    fn v1_name(row: &str) -> Option<&str> {
        Some(match row {
            "anon" => "rss",
            "file" => "cache",
            "file_mapped" => "mapped_file",
            "file_dirty" => "dirty",
            "file_writeback" => "writeback",
            "kernel" | "slab_reclaimable" | "slab_unreclaimable" | "pgscan" | "pgsteal" => return None,
            same => same,
        })
    }

    proptest! {
        #[test]
        fn rendered_memory_stat_parses_back(values: [u64; 20], order in Just(V2_ROWS.to_vec()).prop_shuffle()) {
            let mut text = String::from("sock 1\nnuma_pages_migrated 3\n");
            let mut v1 = String::from("cache 0\nhierarchical_memory_limit 9223372036854771712\ninactive_file 0\n");
            for row in order {
                let value = values[V2_ROWS.iter().position(|other| *other == row).unwrap()];
                text += &format!("{row} {value}\n");
                if let Some(row) = v1_name(row) {
                    v1 += &format!("total_{row} {value}\n");
                }
            }
            let all = expected(&values);
            prop_assert_eq!(memory_stat(text.as_bytes()), Ok(all));
            prop_assert_eq!(inactive_file(text.as_bytes()), Ok(all.inactive_file_bytes));
            prop_assert_eq!(inactive_file_v1(v1.as_bytes()), Ok(all.inactive_file_bytes));
            let on_v1 = MemoryStat {
                slab_reclaimable_bytes: None,
                slab_unreclaimable_bytes: None,
                page_scans: None,
                page_steals: None,
                ..all
            };
            prop_assert_eq!(memory_stat_v1(v1.as_bytes(), all.kernel_bytes), Ok(on_v1));
        }

        #[test]
        fn rendered_memory_events_parse_back(low: u64, high: u64, max: u64, oom: u64, oom_kill: u64) {
            let text = format!("low {low}\nhigh {high}\nmax {max}\noom {oom}\noom_kill {oom_kill}\noom_group_kill 9\n");
            prop_assert_eq!(memory_events(text.as_bytes()), Ok(MemoryEvents { low, high, max, oom, oom_kill }));
        }
    }

    #[test]
    fn each_required_row_is_missed() {
        let optional = ["kernel", "pgscan", "pgsteal"];
        for missing in V2_ROWS {
            let text: String =
                V2_ROWS.iter().filter(|row| **row != missing).map(|row| format!("{row} 1\n")).collect();
            let result = memory_stat(text.as_bytes());
            if optional.contains(&missing) || missing.starts_with("slab") || missing.starts_with("workingset")
            {
                assert!(result.is_ok(), "{missing}");
            } else {
                assert_eq!(result.unwrap_err().to_string(), format!("line 19: the row {missing} is missing"));
            }
        }
    }

    #[test]
    fn oom_control_and_limits_of_v1() {
        assert_eq!(
            oom_control(b"oom_kill_disable 0\nunder_oom 1\noom_kill 3\n"),
            Ok(OomControl { oom_kill: 3, under_oom: true })
        );
        assert!(oom_control(b"oom_kill_disable 0\nunder_oom 0\n").is_err());
        for page_size in [4096, 16384, 65536] {
            let none = i64::MAX as u64 / page_size * page_size;
            assert_eq!(limit_v1(format!("{none}\n").as_bytes()), Ok(None));
        }
        assert_eq!(limit_v1(b"67108864\n"), Ok(Some(67_108_864)));
        assert_eq!(limit_v1(b"4611686018427387904\n"), Ok(Some(1 << 62)));
        assert_eq!(limit_v1(b"4611686018427387905\n"), Ok(None));
    }

    #[test]
    fn malformed() {
        let say = |error: ParseError| error.to_string();
        assert_eq!(say(memory_events(b"low 0\nhigh x\n").unwrap_err()), "line 2: \"x\" is not a number");
        assert_eq!(say(inactive_file(b"anon 1\n").unwrap_err()), "line 1: the row inactive_file is missing");
        assert_eq!(say(limit_v1(b"max\n").unwrap_err()), "line 1: \"max\" is not a number");
    }
}
