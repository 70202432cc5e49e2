//! What `/metrics` tells of offloading.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::{Arc, Mutex, PoisonError};

use planner::offload::Refusal;

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Happening {
    /// An invocation was handed to another site.
    HandedOver,
    /// Another site's result was taken.
    Returned,
    /// An attempt was taken back.
    Reclaimed,
    /// A result came that nobody waited for any more.
    Dropped,
    /// This site offered to take work.
    Offered,
    /// This site took an attempt of another.
    Accepted,
    /// An attempt of another site was done here.
    Done,
    /// An attempt of another site was given back or called off.
    GivenUp,
    /// This site refused to take work.
    Refused(Refusal),
    /// Another site refused to take work of this one.
    RefusedBy(Refusal),
}

impl Happening {
    /// The name of the series, its help, and its label.
    fn series(self) -> (&'static str, &'static str, Option<Refusal>) {
        match self {
            Self::HandedOver => {
                ("avocet_offload_handed_over_total", "Invocations handed to other sites", None)
            }
            Self::Returned => {
                ("avocet_offload_returned_total", "Results of other sites that were taken", None)
            }
            Self::Reclaimed => {
                ("avocet_offload_reclaimed_total", "Attempts that were taken back from other sites", None)
            }
            Self::Dropped => {
                ("avocet_offload_dropped_total", "Results that came after their attempt was taken back", None)
            }
            Self::Offered => ("avocet_offload_offered_total", "Offers to take work of other sites", None),
            Self::Accepted => {
                ("avocet_offload_accepted_total", "Attempts of other sites that were taken", None)
            }
            Self::Done => {
                ("avocet_offload_done_total", "Attempts of other sites that were run to their end", None)
            }
            Self::GivenUp => (
                "avocet_offload_given_up_total",
                "Attempts of other sites that were given back or called off",
                None,
            ),
            Self::Refused(why) => {
                ("avocet_offload_refused_total", "Questions of other sites that were refused", Some(why))
            }
            Self::RefusedBy(why) => {
                ("avocet_offload_refused_by_others_total", "Answers of other sites that refused", Some(why))
            }
        }
    }
}

/// Counts since the start. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Counters(Arc<Mutex<BTreeMap<Happening, u64>>>);

impl Counters {
    pub(crate) fn count(&self, what: Happening) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(what).or_default() += 1;
    }

    /// In Prometheus' text format; nothing of what never happened.
    pub(crate) fn text(&self) -> String {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let (mut text, mut last) = (String::new(), "");
        for (what, count) in counts {
            let (name, help, why) = what.series();
            // Writing to a string can't fail.
            if name != last {
                let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} counter\n");
            }
            last = name;
            let _ = match why {
                Some(why) => writeln!(text, "{name}{{reason=\"{}\"}} {count}", why.as_str()),
                None => writeln!(text, "{name} {count}"),
            };
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_told_by_their_reasons_under_one_heading() {
        let counters = Counters::default();
        assert_eq!(counters.text(), "");
        for why in [Refusal::Full, Refusal::Busy, Refusal::Full] {
            counters.count(Happening::Refused(why));
        }
        counters.count(Happening::Accepted);
        let text = counters.text();
        assert_eq!(text.matches("# TYPE avocet_offload_refused_total counter").count(), 1, "{text}");
        assert!(text.contains("avocet_offload_refused_total{reason=\"Full\"} 2\n"), "{text}");
        assert!(text.contains("avocet_offload_accepted_total 1\n"), "{text}");
    }
}
