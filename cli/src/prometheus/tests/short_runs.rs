//! Runs of jobs and crash loops, which rates do not show.

use super::*;
use crate::advice::CommandRule;

/// The window of rates.
const WINDOW: u64 = 4 * INTERVAL;

/// A run of a job: when it starts, for how long it runs, when in a minute it is scraped, and its cores.
#[derive(Clone, Debug)]
struct JobRun {
    start: u64,
    seconds: u64,
    phase: u64,
    cores: f64,
}

impl JobRun {
    /// Times of its samples.
    fn samples(&self) -> Vec<u64> {
        let times = (NOW - 4 * HOUR + self.phase..NOW).step_by(INTERVAL as usize);
        times.filter(|at| *at > self.start && *at <= self.start + self.seconds).collect()
    }
}

fn runs() -> impl Strategy<Value = Vec<JobRun>> {
    // Runs that are over two windows before the end.
    let run = (0..2 * HOUR, 1..3 * WINDOW, 0..INTERVAL, 0.05..4.0_f64);
    prop::collection::vec(run, 1..4).prop_map(|all| {
        all.into_iter()
            .map(|(ago, seconds, phase, cores)| {
                let start = NOW - 2 * WINDOW - seconds - ago;
                JobRun { start, seconds, phase, cores }
            })
            .collect()
    })
}

/// Adds the runs, each a pod of a Job of its own.
fn jobs(series: &mut SeriesInMemory, runs: &[JobRun], has_starts: bool) {
    for (number, run) in runs.iter().enumerate() {
        let pod = format!("namespace=batch,pod=load{number}-x7k2{number}");
        let labels = format!("{pod},container=app,id=/kubepods/load{number}/app");
        let samples = run.samples();
        let used = samples.iter().map(|at| (*at, (at - run.start) as f64 * run.cores));
        series.add("container_cpu_usage_seconds_total", &format!("{labels},cpu=total"), used);
        series.add("container_memory_working_set_bytes", &labels, samples.iter().map(|at| (*at, 64.0 * MIB)));
        if has_starts {
            let start = samples.iter().map(|at| (*at, run.start as f64));
            series.add("container_start_time_seconds", &labels, start);
        }
        let owner = format!("{pod},owner_kind=Job,owner_name=load{number},owner_is_controller=true");
        series.constant("kube_pod_owner", &owner, (NOW - 4 * HOUR, NOW + HOUR), 1.0);
        let none = format!("namespace=batch,job_name=load{number},owner_kind=<none>");
        series.constant("kube_job_owner", &none, (NOW - 4 * HOUR, NOW + HOUR), 1.0);
    }
}

fn others() -> Vec<Model> {
    vec![Model { namespace: "shop", workload: 1, cores: 0.5, memory: 100.0, limit: 256.0 }]
}

#[test]
fn a_short_run_has_the_usage_of_its_counter() {
    let seen = |runs: &[JobRun], has_starts: bool| {
        // Without start times, usage is that between samples.
        runs.iter().all(|run| run.samples().len() >= if has_starts { 1 } else { 2 })
    };
    CommandRule::RunsByCounter.prove(
        &(runs(), any::<bool>()),
        |(runs, has_starts)| seen(runs, *has_starts),
        |(runs, has_starts)| {
            let mut series = cluster(&others(), "", 4 * HOUR);
            jobs(&mut series, runs, *has_starts);
            if !has_starts {
                series.series.retain(|(labels, _)| labels["__name__"] != "container_start_time_seconds");
            }
            let found = read(&series, "", 4 * HOUR).map_err(|error| error.to_string())?;
            let all = evidence(&found);
            for (number, run) in runs.iter().enumerate() {
                let one = all.get(&format!("batch/load{number}/app")).ok_or("a run is not there")?;
                let highest =
                    one.hours.values().filter_map(|hour| hour.cpu.quantile(1.0)).fold(0.0, f64::max);
                // Histograms have buckets of a few percent.
                if (highest / run.cores - 1.0).abs() > 0.1 {
                    return Err(format!("{highest} in place of {} cores", run.cores));
                }
                let peak = one.hours.values().filter_map(|hour| Some(hour.highest()?.bytes)).max();
                assert_eq!(peak, Some(64 << 20));
            }
            // The others are read by rates.
            let one = &all["shop/web1/app"];
            let (observed, millis) =
                one.pods.values().fold((0, 0), |sum, it| (sum.0 + it.observed, sum.1 + it.cpu_millis));
            assert!((millis as f64 / 500.0 / observed as f64 - 1.0).abs() < 0.01, "{millis} in {observed}");
            Ok(())
        },
    );
}
