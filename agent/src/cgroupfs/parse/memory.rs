//! `memory.stat`, `memory.events`, and on v1 `memory.limit_in_bytes` and `memory.oom_control`.

use super::{ParseError, fields_of, number, required, rows};
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
    Ok(fields_of!(text: MemoryEvents {
        low: required "low",
        high: required "high",
        max: required "max",
        oom: required "oom",
        oom_kill: required "oom_kill",
    }))
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

/// v2 `memory.stat`. `kernel` (Linux 5.18) and the rows on slab, scans and refaults may be missing.
pub fn memory_stat(text: &[u8]) -> Result<MemoryStat, ParseError> {
    Ok(fields_of!(text: MemoryStat {
        anon_bytes: required "anon",
        file_bytes: required "file",
        kernel_bytes: optional "kernel",
        shmem_bytes: required "shmem",
        file_mapped_bytes: required "file_mapped",
        file_dirty_bytes: required "file_dirty",
        file_writeback_bytes: required "file_writeback",
        active_file_bytes: required "active_file",
        inactive_file_bytes: required "inactive_file",
        active_anon_bytes: required "active_anon",
        inactive_anon_bytes: required "inactive_anon",
        slab_reclaimable_bytes: optional "slab_reclaimable",
        slab_unreclaimable_bytes: optional "slab_unreclaimable",
        unevictable_bytes: required "unevictable",
        page_faults: required "pgfault",
        major_page_faults: required "pgmajfault",
        page_scans: optional "pgscan",
        page_steals: optional "pgsteal",
        refaults_anon: optional "workingset_refault_anon",
        refaults_file: optional "workingset_refault_file",
    }))
}

/// The `total_*` rows of v1 `memory.stat`; `kernel_bytes` comes from `memory.kmem.usage_in_bytes`.
pub fn memory_stat_v1(text: &[u8], kernel_bytes: Option<u64>) -> Result<MemoryStat, ParseError> {
    Ok(fields_of!(text: MemoryStat {
        anon_bytes: required "total_rss",
        file_bytes: required "total_cache",
        shmem_bytes: required "total_shmem",
        file_mapped_bytes: required "total_mapped_file",
        file_dirty_bytes: required "total_dirty",
        file_writeback_bytes: required "total_writeback",
        active_file_bytes: required "total_active_file",
        inactive_file_bytes: required "total_inactive_file",
        active_anon_bytes: required "total_active_anon",
        inactive_anon_bytes: required "total_inactive_anon",
        unevictable_bytes: required "total_unevictable",
        page_faults: required "total_pgfault",
        major_page_faults: required "total_pgmajfault",
        refaults_anon: optional "total_workingset_refault_anon",
        refaults_file: optional "total_workingset_refault_file",
        ..MemoryStat { kernel_bytes, ..MemoryStat::default() }
    }))
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
