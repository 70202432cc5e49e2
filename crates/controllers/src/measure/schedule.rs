//! When whom is asked: each question as often as the others, however long some answers take.

use std::collections::HashMap;
use std::time::Instant;

use super::{AT_ONCE, Asked, PERIOD};

/// How many of the questions to one origin may be such that were not answered last time: who answers never waits for
/// those who don't.
const UNANSWERED_AT_ONCE: usize = AT_ONCE / 2;

/// All questions, and when each is to be asked.
#[derive(Debug, Default)]
pub(super) struct Schedule {
    known: HashMap<Asked, Standing>,
}

#[derive(Debug)]
struct Standing {
    due: Instant,
    is_being_asked: bool,
    was_answered: bool,
}

/// How many questions are being asked at one origin.
#[derive(Debug, Default)]
struct Load {
    all: usize,
    unanswered: usize,
}

impl Schedule {
    /// These questions are asked from now on, and no others.
    pub fn keep(&mut self, asked: &[Asked], now: Instant) {
        self.known.retain(|known, _| asked.contains(known));
        for question in asked {
            let new = Standing { due: now, is_being_asked: false, was_answered: true };
            self.known.entry(question.clone()).or_insert(new);
        }
    }

    /// The questions to ask now; each is to be [`done`](Self::done) then.
    pub fn next(&mut self, now: Instant) -> Vec<Asked> {
        let mut loads: HashMap<String, Load> = HashMap::new();
        for (asked, standing) in self.known.iter().filter(|(_, standing)| standing.is_being_asked) {
            let load = loads.entry(asked.origin()).or_default();
            load.all += 1;
            load.unanswered += usize::from(!standing.was_answered);
        }
        let is_due = |standing: &Standing| !standing.is_being_asked && standing.due <= now;
        let mut due: Vec<(&Asked, &mut Standing)> =
            self.known.iter_mut().filter(|(_, standing)| is_due(standing)).collect();
        due.sort_by_key(|(_, standing)| (!standing.was_answered, standing.due));
        let mut next = Vec::new();
        for (asked, standing) in due {
            let load = loads.entry(asked.origin()).or_default();
            let has_room =
                load.all < AT_ONCE && (standing.was_answered || load.unanswered < UNANSWERED_AT_ONCE);
            if has_room {
                load.all += 1;
                load.unanswered += usize::from(!standing.was_answered);
                standing.is_being_asked = true;
                standing.due = now + PERIOD;
                next.push(asked.clone());
            }
        }
        next
    }

    /// A question was answered, or wasn't.
    pub fn done(&mut self, asked: &Asked, was_answered: bool) {
        if let Some(standing) = self.known.get_mut(asked) {
            standing.is_being_asked = false;
            standing.was_answered = was_answered;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use super::*;

    fn question(url: &str) -> Asked {
        Asked::Json { url: url.to_owned(), pointer: String::new() }
    }

    #[test]
    fn who_answers_is_asked_every_period_however_many_others_hang() {
        for (good_at, bad_at) in [("http://a", "http://b"), ("http://a", "http://a")] {
            let good: Vec<Asked> = (0..4).map(|index| question(&format!("{good_at}/good-{index}"))).collect();
            let bad: Vec<Asked> = (0..50).map(|index| question(&format!("{bad_at}/bad-{index}"))).collect();
            let all = [good.clone(), bad].concat();
            let start = Instant::now();
            let mut schedule = Schedule::default();
            let mut hanging: Vec<(u64, Asked)> = Vec::new();
            let mut times: BTreeMap<String, Vec<u64>> = BTreeMap::new();
            for second in 0..300 {
                let now = start + Duration::from_secs(second);
                schedule.keep(&all, now);
                let (over, rest) = hanging.into_iter().partition(|(until, _)| *until <= second);
                hanging = rest;
                let over: Vec<(u64, Asked)> = over;
                over.iter().for_each(|(_, asked)| schedule.done(asked, false));
                for asked in schedule.next(now) {
                    times.entry(asked.url().to_owned()).or_default().push(second);
                    if good.contains(&asked) {
                        schedule.done(&asked, true);
                    } else {
                        hanging.push((second + 10, asked));
                    }
                }
                assert!(hanging.len() <= AT_ONCE);
            }
            for asked in &good {
                let times = &times[asked.url()];
                // At first nobody knows who hangs.
                let steady = times.iter().filter(|second| **second >= 75).collect::<Vec<_>>();
                assert!(steady.windows(2).all(|pair| pair[1] - pair[0] == PERIOD.as_secs()), "{times:?}");
                assert!(steady.len() >= 14, "{times:?}");
            }
            assert_eq!(times.len(), 54, "the others are asked, too, when there is room");
        }
    }

    #[test]
    fn what_is_no_longer_wanted_is_no_longer_asked() {
        let now = Instant::now();
        let mut schedule = Schedule::default();
        schedule.keep(&[question("http://a/1"), question("http://a/2")], now);
        schedule.keep(&[question("http://a/2")], now);
        assert_eq!(schedule.next(now), [question("http://a/2")]);
        assert_eq!(schedule.next(now + PERIOD), [], "it is not answered yet");
        schedule.done(&question("http://a/1"), true);
        schedule.done(&question("http://a/2"), true);
        assert_eq!(schedule.next(now + PERIOD), [question("http://a/2")]);
    }
}
