//! Which occurrences are told anew, which are counted, and which are dropped.

use std::collections::HashMap;

use types::Time;
use types::core::ObjectReference;

use super::{Occurrence, stem};

/// For how long, in seconds, what repeats is counted and what is alike is told as one.
const WINDOW: f64 = 600.0;
/// From how many different messages of a kind on they are told as one.
const ALIKE: usize = 10;
/// How many events of an object are told at once, and in how many seconds it may tell one more.
const BURST: f64 = 25.0;
const REFILL: f64 = 300.0;
/// How many objects are remembered.
const REMEMBERED: usize = 4096;

/// What becomes of an occurrence.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Verdict {
    /// It is not told.
    Drop,
    /// It is told, in an event of this name.
    New { name: String, message: String },
    /// It is counted in an earlier event.
    Again { name: String, message: String, count: i64 },
}

/// What was told of late.
#[derive(Debug, Default)]
pub(super) struct Correlator {
    objects: HashMap<Identity, Told>,
    /// Tells apart events of one instant.
    told: u64,
}

/// Kind, namespace, name and UID of an object.
type Identity = [String; 4];
/// Type and reason of events.
type Sort = (&'static str, &'static str);

/// What was told of an object: of most of them one thing, so that lists are smaller than maps, and no slower.
#[derive(Debug)]
struct Told {
    last: Time,
    tokens: f64,
    events: Vec<Counted>,
    messages: Vec<Messages>,
}

#[derive(Debug)]
struct Counted {
    sort: Sort,
    /// `None` if it is of no account.
    message: Option<String>,
    name: String,
    count: i64,
    last: Time,
}

/// Different messages of one sort; none is let go before all are.
#[derive(Debug)]
struct Messages {
    sort: Sort,
    seen: Vec<String>,
    last: Time,
}

impl Correlator {
    pub(super) fn judge(&mut self, occurrence: &Occurrence, now: Time) -> Verdict {
        let identity = identity(&occurrence.object);
        if self.objects.len() >= REMEMBERED && !self.objects.contains_key(&identity) {
            self.forget_oldest();
        }
        self.told += 1;
        let serial = self.told;
        let told = self.objects.entry(identity).or_insert_with(|| Told {
            last: now,
            tokens: BURST,
            events: Vec::new(),
            messages: Vec::new(),
        });
        told.tokens = (told.tokens + seconds(told.last, now) / REFILL).min(BURST);
        told.last = now;
        told.events.retain(|event| seconds(event.last, now) <= WINDOW);
        told.messages.retain(|messages| seconds(messages.last, now) <= WINDOW);
        if told.tokens < 1.0 {
            return Verdict::Drop;
        }
        told.tokens -= 1.0;
        let sort = (occurrence.kind, occurrence.reason);
        let (alike, message) = told.liken(occurrence, now);
        let is_alike = |event: &&mut Counted| event.sort == sort && event.message == alike;
        if let Some(event) = told.events.iter_mut().find(is_alike) {
            event.count += 1;
            event.last = now;
            return Verdict::Again { name: event.name.clone(), message, count: event.count };
        }
        let instant = now.0.as_nanosecond().unsigned_abs() + u128::from(serial);
        let name = format!("{}.{instant:x}", stem(&occurrence.object));
        told.events.reserve_exact(1);
        told.events.push(Counted { sort, message: alike, name: name.clone(), count: 1, last: now });
        Verdict::New { name, message }
    }

    fn forget_oldest(&mut self) {
        let oldest =
            self.objects.iter().min_by_key(|(_, told)| told.last).map(|(identity, _)| identity.clone());
        if let Some(oldest) = oldest {
            self.objects.remove(&oldest);
        }
    }
}

impl Told {
    /// The message that an occurrence is counted with, unless it is of no account, and how it is worded.
    fn liken(&mut self, occurrence: &Occurrence, now: Time) -> (Option<String>, String) {
        let Occurrence { kind, reason, message, .. } = occurrence;
        let (sort, empty) = ((*kind, *reason), Vec::new);
        let known = self.messages.iter().position(|messages| messages.sort == sort);
        let mut seen = known.map_or_else(empty, |place| self.messages.swap_remove(place).seen);
        if seen.len() < ALIKE && !seen.contains(message) {
            seen.reserve_exact(1);
            seen.push(message.clone());
        }
        let are_too_many = seen.len() >= ALIKE;
        self.messages.reserve_exact(1);
        self.messages.push(Messages { sort, seen, last: now });
        if are_too_many {
            return (None, format!("(combined from similar events): {message}"));
        }
        (Some(message.clone()), message.clone())
    }
}

fn identity(object: &ObjectReference) -> Identity {
    [object.kind.clone(), object.namespace.clone(), object.name.clone(), object.uid.clone()]
}

fn seconds(from: Time, to: Time) -> f64 {
    to.0.duration_since(from.0).as_secs_f64().max(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::time::Duration;

    fn at(second: u64) -> Time {
        Time("2026-01-01T00:00:00Z".parse::<jiff::Timestamp>().unwrap() + Duration::from_secs(second))
    }

    fn about(name: &str, reason: &'static str, message: &str) -> Occurrence {
        let object = ObjectReference { name: name.to_owned(), ..ObjectReference::default() };
        Occurrence { object, kind: "Normal", reason, message: message.to_owned() }
    }

    /// What becomes of it, shortly.
    fn told(correlator: &mut Correlator, occurrence: &Occurrence, second: u64) -> String {
        match correlator.judge(occurrence, at(second)) {
            Verdict::Drop => "dropped".to_owned(),
            Verdict::New { message, .. } => format!("new: {message}"),
            Verdict::Again { message, count, .. } => format!("{count} times: {message}"),
        }
    }

    #[test]
    fn what_repeats_within_ten_minutes_is_counted() {
        let mut correlator = Correlator::default();
        for (second, message, expected) in [
            (0, "up", "new: up"),
            (60, "up", "2 times: up"),
            (61, "down", "new: down"),
            (660, "up", "3 times: up"),
            (1261, "up", "new: up"),
        ] {
            assert_eq!(
                told(&mut correlator, &about("a", "Ready", message), second),
                expected,
                "at {second} s"
            );
        }
        assert_eq!(told(&mut correlator, &about("a", "Other", "up"), 1262), "new: up");
        assert_eq!(told(&mut correlator, &about("b", "Ready", "up"), 1262), "new: up");
    }

    #[test]
    fn from_the_tenth_message_of_a_kind_on_they_are_told_as_one() {
        let mut correlator = Correlator::default();
        for number in 1..10 {
            let occurrence = about("a", "Failed", &format!("try {number}"));
            assert_eq!(told(&mut correlator, &occurrence, number), format!("new: try {number}"));
        }
        let combined = "(combined from similar events): try";
        for (message, expected) in
            [("try 10", format!("new: {combined} 10")), ("try 11", format!("2 times: {combined} 11"))]
        {
            assert_eq!(told(&mut correlator, &about("a", "Failed", message), 11), expected);
        }
        assert_eq!(told(&mut correlator, &about("a", "Ready", "up"), 12), "new: up");
        assert_eq!(told(&mut correlator, &about("a", "Failed", "try 12"), 700), "new: try 12");
    }

    #[test]
    fn an_object_with_too_much_to_tell_is_not_listened_to_for_a_while() {
        let mut correlator = Correlator::default();
        for _ in 0..25 {
            assert_ne!(told(&mut correlator, &about("a", "Ready", "up"), 0), "dropped");
        }
        assert_eq!(told(&mut correlator, &about("a", "Ready", "up"), 299), "dropped");
        assert_eq!(told(&mut correlator, &about("b", "Ready", "up"), 299), "new: up");
        assert_eq!(told(&mut correlator, &about("a", "Ready", "up"), 301), "26 times: up");
        assert_eq!(told(&mut correlator, &about("a", "Ready", "up"), 302), "dropped");
    }

    #[test]
    fn events_of_one_instant_have_names_of_their_own_and_what_is_remembered_is_bounded() {
        let mut correlator = Correlator::default();
        let mut names = BTreeSet::new();
        for number in 0..=REMEMBERED {
            match correlator.judge(&about(&format!("{number}"), "Ready", "up"), at(0)) {
                Verdict::New { name, .. } => assert!(names.insert(name)),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(correlator.objects.len(), REMEMBERED);
    }
}
