//! Names that controllers give to the objects they create, and what they say about the owner.
//!
//! The agent, which sees pods, and the command, which sees series of Prometheus and snapshots, use the same rules.

/// Seconds after its scheduled time in which a run of a CronJob may start its pods: retries wait for minutes, and a suspended
/// or throttled controller may be late.
const LATEST_START: u64 = 24 * 3600;
/// Clocks of the controller and of the node may differ by this many seconds.
const CLOCK_SKEW: u64 = 300;

/// `name` without `-<suffix>`; `None` if nothing is left.
pub fn strip_dashed_suffix<'a>(name: &'a str, suffix: &str) -> Option<&'a str> {
    let stem = name.strip_suffix(suffix)?.strip_suffix('-')?;
    (!stem.is_empty() && !suffix.is_empty()).then_some(stem)
}

/// The name of a Deployment from that of its ReplicaSet, where the label with the hash is not known.
///
/// The controller appends a 32-bit hash of the template: its decimal digits, encoded as `4`-`9`, `b`, `c`, `d` and `f`
/// (`rand.SafeEncodeString` in k8s.io/apimachinery). Fewer than seven digits are as likely as one in 400; they are left alone,
/// because names that people choose may end so.
pub fn deployment_of_replica_set(replica_set: &str) -> Option<&str> {
    let (stem, hash) = replica_set.rsplit_once('-')?;
    let is_hash = (7..=10).contains(&hash.len())
        && hash.bytes().all(|byte| matches!(byte, b'4'..=b'9' | b'b' | b'c' | b'd' | b'f'));
    (is_hash && !stem.is_empty()).then_some(stem)
}

/// The name of a CronJob from that of one of its Jobs, if pods of the Job started between `first` and `last`, seconds since
/// the epoch.
///
/// The controller names a Job after the scheduled time: in minutes since the epoch, before Kubernetes 1.21 in seconds. The
/// name alone proves nothing, because any Job may end in a number; a number that is the time at which the pods ran does.
pub fn cron_job_of_job(job: &str, first: u64, last: u64) -> Option<&str> {
    let (stem, digits) = job.rsplit_once('-')?;
    let is_number = !digits.starts_with('0') && digits.bytes().all(|byte| byte.is_ascii_digit());
    let number: u64 = digits.parse().ok().filter(|_| is_number && !stem.is_empty())?;
    let scheduled = match digits.len() {
        8 => number * 60,
        10 => number,
        _ => return None,
    };
    (scheduled <= last.saturating_add(CLOCK_SKEW) && first <= scheduled.saturating_add(LATEST_START))
        .then_some(stem)
}

/// The name of a static pod without the name of its node, which the kubelet appends in lower case.
pub fn static_pod<'a>(pod: &'a str, node: &str) -> &'a str {
    strip_dashed_suffix(pod, &node.to_ascii_lowercase()).unwrap_or(pod)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What the controller does with the hash of a template.
    fn encoded(hash: u32) -> String {
        const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
        hash.to_string()
            .bytes()
            .map(|digit| char::from(ALPHABET[usize::from(digit) % ALPHABET.len()]))
            .collect()
    }

    #[test]
    fn the_encoding_is_that_of_kubernetes() {
        // `kubectl get replicaset` of a real cluster: pod-template-hash 5cf9767d58 and 687d76d795 have these symbols only.
        assert_eq!(encoded(1_234_567_890), "56789bcdf4");
        assert_eq!(deployment_of_replica_set("web-5d4f8c7b9c"), Some("web"));
        assert_eq!(deployment_of_replica_set("a-b-687d76d795"), Some("a-b"));
        for other in
            ["web", "web-1", "web-canary", "-5d4f8c7b9c", "web-5d4f8c7b9cc", "web-2024", "web-5d4f8a7b9c"]
        {
            assert_eq!(deployment_of_replica_set(other), None, "{other}");
        }
    }

    #[test]
    fn a_job_belongs_to_a_cron_job_only_if_it_ran_at_the_time_in_its_name() {
        let scheduled = 28_394_400 * 60;
        assert_eq!(cron_job_of_job("backup-28394400", scheduled + 5, scheduled + 60), Some("backup"));
        assert_eq!(
            cron_job_of_job("backup-28394400", scheduled - 60, scheduled - 60),
            Some("backup"),
            "clock skew"
        );
        assert_eq!(cron_job_of_job("backup-1703664000", scheduled + 5, scheduled + 60), Some("backup"));
        assert_eq!(
            cron_job_of_job("backup-28394400", scheduled - 7200, scheduled - 3600),
            None,
            "it ran before"
        );
        assert_eq!(
            cron_job_of_job("backup-28394400", scheduled + 90_000, scheduled + 90_001),
            None,
            "a day later"
        );
        for other in
            ["backup", "backup-1", "-28394400", "backup-028394400", "backup-2839440x", "backup-99999999999"]
        {
            assert_eq!(cron_job_of_job(other, scheduled, scheduled), None, "{other}");
        }
    }

    #[test]
    fn static_pods_lose_the_name_of_their_node() {
        assert_eq!(static_pod("etcd-node-1.example", "Node-1.example"), "etcd");
        assert_eq!(static_pod("etcd", "node-1"), "etcd");
        assert_eq!(static_pod("-node-1", "node-1"), "-node-1");
        assert_eq!(static_pod("etcd-", ""), "etcd-");
    }

    proptest! {
        #[test]
        fn every_replica_set_of_a_deployment_is_recognised(name in "[a-z]([a-z0-9-]{0,20}[a-z0-9])?", hash in 1_000_000..u32::MAX) {
            let replica_set = format!("{name}-{}", encoded(hash));
            prop_assert_eq!(deployment_of_replica_set(&replica_set), Some(name.as_str()));
        }

        #[test]
        fn any_name_is_accepted(name in "\\PC{0,40}", node in "\\PC{0,20}", at in any::<u64>()) {
            let shorter = |part: Option<&str>| part.is_none_or(|part| part.len() < name.len() && name.starts_with(part));
            prop_assert!(shorter(deployment_of_replica_set(&name)) && shorter(cron_job_of_job(&name, at, at)));
            prop_assert!(name.starts_with(static_pod(&name, &node)));
        }
    }
}
