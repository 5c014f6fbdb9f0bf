//! The past days of all containers of a cluster, and what likes lend each other.
//!
//! A container whose own past is short or says little, such as a notebook that was idle so far, has likes whose past says more. Their usage
//! counts beside its own as if it were a few hours of it ([`WEIGHTS`], in pod-days). How much is learned by like: each day is also
//! judged with each weight, and the weight in use is the one with the smallest pinball loss on the days before. So likes of different sizes,
//! whose usage says nothing about each other, soon lend nothing. Before any day shows it, they lend the little of [`FIRST_WEIGHT`].

use std::collections::HashMap;

use super::{
    days::{JudgedDay, JudgedDays},
    lent::{Bins, Lent},
    replay::RequestReplay,
};
use crate::{
    engine::{likes::Like, rule::Rule},
    evidence::Hour,
};

/// Pod-days that the usage of likes can count as.
const WEIGHTS: [f64; 4] = [0.0, 0.03, 0.1, 0.5];

/// The weight before any day is judged: three quarters of an hour.
const FIRST_WEIGHT: f64 = 0.03;

/// What the past of a cluster says about the CPU usage of one container. The default is the prior.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct CpuPast {
    /// Losses of past days of all workloads.
    pub replay: RequestReplay,
    /// What the container's likes lend.
    pub lent: Lent,
}

/// Likes with windows of one length, milliseconds: others are not comparable.
type Group = (Like, u64);

/// What is known of a group of likes.
#[derive(Clone, Debug, Default)]
struct OfLikes {
    /// Pinball losses by weight, over all days of members that had likes.
    pinball: [u64; WEIGHTS.len()],
    days: u64,
    /// All usage of all members.
    all: Bins,
}

impl OfLikes {
    /// The weight with the smallest loss on the days so far, the smaller of equal ones.
    fn weight(&self) -> f64 {
        if self.days == 0 {
            return FIRST_WEIGHT;
        }
        let pairs = WEIGHTS.into_iter().zip(self.pinball);
        pairs.reduce(|best, it| if it.1 < best.1 { it } else { best }).map_or(0.0, |(weight, _)| weight)
    }
}

/// The past days of a cluster.
#[derive(Clone, Debug, Default)]
pub struct ClusterCpu {
    replay: RequestReplay,
    likes: HashMap<Group, OfLikes>,
    /// The usage of each member, by its name.
    own: HashMap<String, Bins>,
}

/// A container of the cluster, with its name, its like and its days.
#[derive(Clone, Copy, Debug)]
pub struct CpuMember<'m> {
    /// Its name: equal at each step.
    pub name: &'m str,
    pub like: &'m Like,
    pub days: &'m JudgedDays,
}

impl CpuMember<'_> {
    fn group(&self) -> Group {
        (self.like.clone(), self.days.window_millis)
    }
}

impl ClusterCpu {
    /// Counts the days that are over at the beginning of an hour and were not yet, of all containers, in order of time. A day that was
    /// counted stays, also when its usage is no longer kept.
    pub fn advance<'m>(
        &mut self,
        now: Hour,
        rule: Rule,
        members: &(impl Iterator<Item = CpuMember<'m>> + Clone),
    ) {
        loop {
            let until = self.replay.until();
            let new = |day: &&JudgedDay| day.end > until && day.end <= now;
            let next =
                members.clone().flat_map(|member| member.days.days.iter().find(new)).map(|day| day.end).min();
            let Some(end) = next else { break };
            let days: Vec<(Group, &JudgedDay)> = members
                .clone()
                .filter_map(|member| {
                    let day = member.days.days.iter().find(|day| day.end == end)?;
                    Some((member.group(), day))
                })
                .collect();
            self.count(end, rule, &days);
        }
    }

    /// Takes the usage that the containers have now as what likes lend each other.
    pub fn lend<'m>(&mut self, members: impl Iterator<Item = CpuMember<'m>>) {
        self.likes.values_mut().for_each(|likes| likes.all = Bins::default());
        for member in members {
            self.likes.entry(member.group()).or_default().all.add(&member.days.all);
            match self.own.get_mut(member.name) {
                Some(own) => *own = member.days.all,
                None => drop(self.own.insert(member.name.to_owned(), member.days.all)),
            }
        }
    }

    /// Counts the days that ended at one time.
    fn count(&mut self, end: Hour, rule: Rule, days: &[(Group, &JudgedDay)]) {
        let own: Vec<Bins> = days.iter().map(|(_, day)| day.past()).collect();
        let mut past: HashMap<&Group, (Bins, usize)> = HashMap::new();
        for ((group, _), own) in days.iter().zip(&own) {
            let (sum, members) = past.entry(group).or_default();
            sum.add(own);
            *members += 1;
        }
        let mut losses = Vec::new();
        let mut pinballs: Vec<(&Group, [u64; WEIGHTS.len()])> = Vec::new();
        for ((group, day), own) in days.iter().zip(&own) {
            let Some((sum, _)) = past.get(group).filter(|(_, members)| *members > 1) else {
                losses.push((day.observed, day.lost));
                continue;
            };
            let likes = sum.without(own);
            let in_use = self.likes.get(group).map_or(FIRST_WEIGHT, OfLikes::weight);
            let mut lost = day.lost;
            let of_weight = |weight: f64| {
                let lent = Some(Lent::new(likes, weight)).filter(|_| weight > 0.0);
                let Some(forecast) = lent.and_then(|lent| day.forecast(&lent)) else { return day.pinball };
                if weight == in_use {
                    lost = day.lost_by(&forecast);
                }
                day.pinball_by(&forecast)
            };
            pinballs.push((group, WEIGHTS.map(of_weight)));
            losses.push((day.observed, lost));
        }
        for (group, more) in pinballs {
            let of_likes = self.likes.entry(group.clone()).or_default();
            of_likes.days += 1;
            of_likes.pinball.iter_mut().zip(more).for_each(|(sum, more)| *sum = sum.saturating_add(more));
        }
        self.replay.add(end, rule, losses.into_iter());
    }

    /// What the past says about any container of the cluster.
    pub fn of_cluster(&self) -> CpuPast {
        CpuPast { replay: self.replay, lent: Lent::default() }
    }

    /// What the past says about one container, whether it is part of it or not.
    pub fn of(&self, name: &str, like: &Like, window_millis: u64) -> CpuPast {
        let lent = self.likes.get(&(like.clone(), window_millis)).map_or_else(Lent::default, |likes| {
            let own = self.own.get(name).copied().unwrap_or_default();
            Lent::new(likes.all.without(&own), likes.weight())
        });
        CpuPast { replay: self.replay, lent }
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::days::tests::{days, evidence},
        *,
    };
    use crate::{
        engine::likes::LikesScope,
        evidence::Evidence,
        random::Random,
        workload::tests::{container, workload},
    };

    const RULE: Rule = Rule::FITTED;
    const FOREVER: Hour = Hour(u32::MAX);

    /// A cluster of containers of one name, by the usage of their hours.
    fn cluster(all: &[Vec<f64>], stops: &[u32]) -> ClusterCpu {
        let all: Vec<Evidence> = all
            .iter()
            .enumerate()
            .map(|(number, hours)| Evidence { workload: workload(&format!("w{number}")), ..evidence(hours) })
            .collect();
        let judged: Vec<(String, Like, JudgedDays)> = all
            .iter()
            .map(|it| (it.title(), Like::new(it, LikesScope::Namespace), JudgedDays::new(it)))
            .collect();
        let mut cluster = ClusterCpu::default();
        let members = || judged.iter().map(|(name, like, days)| CpuMember { name, like, days });
        for now in stops.iter().map(|stop| Hour(*stop)).chain([FOREVER]) {
            cluster.advance(now, RULE, &members());
        }
        cluster.lend(members());
        cluster
    }

    fn lent(cluster: &ClusterCpu, name: &str) -> Lent {
        let of = Evidence::new(workload(name), container("app"), 60_000);
        cluster.of(&of.title(), &Like::new(&of, LikesScope::Namespace), 60_000).lent
    }

    #[test]
    fn the_delivered_share_is_what_levels_of_the_time_lost() {
        assert_eq!(ClusterCpu::default().of_cluster().replay.delivered(0.01), None);
        let steady = cluster(&[days(&[1.0; 5]), days(&[0.5; 5])], &[]);
        assert_eq!(steady.of_cluster().replay.delivered(0.01), Some((0.0, 8.0)));
        // On the last of five days all of a share of CPU time that was not foreseen is above; the level falls after it.
        let before = cluster(&[days(&[1.0; 4])], &[]).of_cluster().replay;
        let after = cluster(&[days(&[1.0, 1.0, 1.0, 1.0, 10.0])], &[]).of_cluster().replay;
        assert_eq!(after.delivered(0.01), Some((0.25, 4.0)));
        assert!(after.level(0.01, RULE) < before.level(0.01, RULE));
    }

    #[test]
    fn days_count_once_and_when_they_are_over() {
        let mut random = Random::new(3);
        let all: Vec<Vec<f64>> =
            (0..5).map(|_| days(&(0..9).map(|_| random.between(0.1, 2.0)).collect::<Vec<_>>())).collect();
        let at_once = cluster(&all, &[]).of_cluster();
        let first = 24_000;
        let stops: Vec<u32> = (first..first + 9 * 24).step_by(7).collect();
        assert_eq!(cluster(&all, &stops).of_cluster(), at_once);
        let turned: Vec<Vec<f64>> = all.iter().rev().cloned().collect();
        assert_eq!(cluster(&turned, &[]).of_cluster(), at_once);
        assert_eq!(at_once.replay.delivered(0.01).map(|(_, pod_days)| pod_days), Some(40.0));
    }

    /// With the level that the replay chooses, days of the same kind lose what was accepted.
    #[test]
    fn what_is_delivered_later_is_what_was_asked() {
        // Each day is by chance up to so many times the usage, which a short history cannot show.
        let mut random = Random::new(7);
        let mut of = |workloads: usize| -> Vec<Vec<f64>> {
            let mut one = || days(&(0..12).map(|_| random.unit().max(1e-9).powf(-0.15)).collect::<Vec<_>>());
            (0..workloads).map(|_| one()).collect()
        };
        let known = cluster(&of(400), &[]).of_cluster().replay;
        let later = cluster(&of(400), &[]).of_cluster().replay;
        // For much lower and higher risks the level reaches its bounds.
        let delivered = later.mean_lost(known.level(0.02, RULE)) / 0.02;
        assert!((0.8..1.2).contains(&delivered), "delivered {delivered} times what was asked");
    }

    #[test]
    fn likes_lend_their_past_where_that_helps() {
        // Notebooks: idle but for a busy day of two cores, each on another day.
        let notebook =
            |busy: usize| days(&(0..9).map(|day| if day == busy { 2.0 } else { 0.01 }).collect::<Vec<_>>());
        let notebooks = cluster(&(0..12).map(|number| notebook(number % 9)).collect::<Vec<_>>(), &[]);
        assert!(lent(&notebooks, "w1").pod_days() > 0.0 && lent(&notebooks, "new").pod_days() > 0.0);
        // Steady ones of different sizes say nothing about each other.
        let sizes =
            cluster(&(0..12).map(|number| days(&[0.1 * f64::from(1 << number); 9])).collect::<Vec<_>>(), &[]);
        assert_eq!(lent(&sizes, "w1").pod_days(), 0.0);
        // A container alone has no likes, and the usage of a container is not lent to itself.
        assert_eq!(lent(&cluster(&[notebook(3)], &[]), "w0").pod_days(), 0.0);
        let of_own = |name: &str| {
            lent(&notebooks, name).buckets(1440.0).map(|(_, _, upper)| upper).fold(0.0, f64::max)
        };
        assert!(of_own("w1") >= 2.0);
    }
}
