//! Who may go on, who waits and who is sent away, so that no client can take the server from the others.
//!
//! Every client has a token bucket for its rate and a queue of its own. Places that become free go round the clients
//! that wait, one each: round-robin over flows, as in Kubernetes' API priority and fairness with one level. Time and
//! the names of clients arrive as arguments.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

/// How much may happen at once.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Requests at work, all clients together.
    pub at_work: usize,
    /// Requests at work for one client.
    pub at_work_each: usize,
    /// Requests that wait, for one client.
    pub waiting_each: usize,
    /// Requests per second of one client, in the long run.
    pub rate: f64,
    /// Requests of one client at once after a pause.
    pub burst: f64,
}

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Entry {
    /// It may go on.
    Go,
    /// It waits until [`Fairness::leave`] names its ticket.
    Wait(Ticket),
    /// It is sent away, and may come again after this time.
    Refuse(Duration),
}

/// One who waits.
pub type Ticket = u64;

/// The state of all clients.
#[derive(Debug)]
pub struct Fairness {
    bounds: Bounds,
    flows: HashMap<String, Flow>,
    /// Clients with someone waiting, in the order in which they are served.
    turn: VecDeque<String>,
    at_work: usize,
    next: Ticket,
    /// How many flows make it worth a look which are at rest.
    flows_to_look: usize,
}

#[derive(Debug)]
struct Flow {
    at_work: usize,
    waiting: VecDeque<Ticket>,
    tokens: f64,
    filled: Duration,
}

/// So many clients are remembered even at rest.
const REMEMBERED: usize = 4096;

impl Fairness {
    pub fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            flows: HashMap::new(),
            turn: VecDeque::new(),
            at_work: 0,
            next: 0,
            flows_to_look: REMEMBERED,
        }
    }

    /// A request of a client arrives. `now` is the time since some start.
    pub fn enter(&mut self, client: &str, now: Duration) -> Entry {
        let bounds = self.bounds;
        if self.flows.len() > self.flows_to_look {
            self.flows.retain(|_, flow| !flow.is_at_rest(bounds, now));
            self.flows_to_look = REMEMBERED.max(2 * self.flows.len());
        }
        let flow = self.flows.entry(client.to_owned()).or_insert_with(|| Flow {
            at_work: 0,
            waiting: VecDeque::new(),
            tokens: bounds.burst,
            filled: now,
        });
        flow.fill(bounds, now);
        if flow.tokens < 1.0 {
            return Entry::Refuse(Duration::from_secs_f64((1.0 - flow.tokens) / bounds.rate));
        }
        let has_place = self.at_work < bounds.at_work && flow.at_work < bounds.at_work_each;
        if has_place && flow.waiting.is_empty() {
            flow.tokens -= 1.0;
            flow.at_work += 1;
            self.at_work += 1;
            return Entry::Go;
        }
        if flow.waiting.len() >= bounds.waiting_each {
            return Entry::Refuse(Duration::from_secs(1));
        }
        flow.tokens -= 1.0;
        let ticket = self.next;
        self.next += 1;
        if flow.waiting.is_empty() {
            self.turn.push_back(client.to_owned());
        }
        flow.waiting.push_back(ticket);
        Entry::Wait(ticket)
    }

    /// A request of a client is done. Answers who may go on in its place, if anybody waits.
    pub fn leave(&mut self, client: &str) -> Option<Ticket> {
        if let Some(flow) = self.flows.get_mut(client) {
            flow.at_work = flow.at_work.saturating_sub(1);
        }
        self.at_work = self.at_work.saturating_sub(1);
        for _ in 0..self.turn.len() {
            let client = self.turn.pop_front()?;
            let Some(flow) = self.flows.get_mut(&client) else { continue };
            if flow.at_work >= self.bounds.at_work_each {
                self.turn.push_back(client);
                continue;
            }
            let Some(ticket) = flow.waiting.pop_front() else { continue };
            flow.at_work += 1;
            self.at_work += 1;
            if !flow.waiting.is_empty() {
                self.turn.push_back(client);
            }
            return Some(ticket);
        }
        None
    }

    /// How many requests are at work.
    #[cfg(test)]
    pub fn at_work(&self) -> usize {
        self.at_work
    }

    /// Whoever has this ticket waits no longer. Answers whether they still waited: if not, they have a place and must
    /// [`leave`](Self::leave) it.
    pub fn abandon(&mut self, client: &str, ticket: Ticket) -> bool {
        let Some(flow) = self.flows.get_mut(client) else { return false };
        let before = flow.waiting.len();
        flow.waiting.retain(|waiting| *waiting != ticket);
        if flow.waiting.is_empty() {
            self.turn.retain(|waiting| waiting != client);
        }
        flow.waiting.len() < before
    }
}

impl Flow {
    fn fill(&mut self, bounds: Bounds, now: Duration) {
        let passed = now.saturating_sub(self.filled).as_secs_f64();
        self.tokens = (self.tokens + passed * bounds.rate).min(bounds.burst);
        self.filled = self.filled.max(now);
    }

    fn is_at_rest(&mut self, bounds: Bounds, now: Duration) -> bool {
        self.fill(bounds, now);
        self.at_work == 0 && self.waiting.is_empty() && self.tokens >= bounds.burst
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BOUNDS: Bounds = Bounds { at_work: 4, at_work_each: 3, waiting_each: 2, rate: 10.0, burst: 1000.0 };

    fn at(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn who_fills_its_places_waits_and_then_is_sent_away() {
        let mut fairness = Fairness::new(BOUNDS);
        let entries: Vec<Entry> = (0..6).map(|_| fairness.enter("a", at(0))).collect();
        assert_eq!(entries[..3], [Entry::Go; 3]);
        assert_eq!(entries[3..5], [Entry::Wait(0), Entry::Wait(1)]);
        assert!(matches!(entries[5], Entry::Refuse(_)));
        assert_eq!(fairness.enter("b", at(0)), Entry::Go, "the last place is for somebody else");
        assert_eq!(fairness.leave("a"), Some(0));
    }

    #[test]
    fn free_places_go_round_those_who_wait() {
        let mut fairness = Fairness::new(Bounds { at_work: 1, at_work_each: 1, ..BOUNDS });
        assert_eq!(fairness.enter("greedy", at(0)), Entry::Go);
        let first = fairness.enter("greedy", at(0));
        let second = fairness.enter("greedy", at(0));
        let modest = fairness.enter("modest", at(0));
        let (Entry::Wait(first), Entry::Wait(second), Entry::Wait(modest)) = (first, second, modest) else {
            panic!("{first:?} {second:?} {modest:?}")
        };
        assert_eq!(fairness.leave("greedy"), Some(first));
        assert_eq!(fairness.leave("greedy"), Some(modest));
        assert_eq!(fairness.leave("modest"), Some(second));
        assert_eq!(fairness.leave("greedy"), None);
    }

    #[test]
    fn a_client_over_its_rate_is_told_when_to_come_again() {
        let mut fairness = Fairness::new(Bounds { burst: 2.0, ..BOUNDS });
        for _ in 0..2 {
            assert_eq!(fairness.enter("a", at(0)), Entry::Go);
            fairness.leave("a");
        }
        assert_eq!(fairness.enter("a", at(0)), Entry::Refuse(at(100)));
        assert_eq!(fairness.enter("a", at(100)), Entry::Go);
    }

    #[test]
    fn clients_at_rest_are_forgotten_in_time() {
        let mut fairness = Fairness::new(Bounds { at_work: usize::MAX, ..BOUNDS });
        for number in 0..3 * REMEMBERED {
            assert_eq!(fairness.enter(&number.to_string(), at(0)), Entry::Go);
        }
        assert_eq!(fairness.flows.len(), 3 * REMEMBERED, "all of them are at work");
        for number in 0..3 * REMEMBERED {
            fairness.leave(&number.to_string());
        }
        for number in 0..3 * REMEMBERED {
            fairness.enter(&format!("later {number}"), at(1000));
        }
        assert!(fairness.flows.len() <= 4 * REMEMBERED, "{}", fairness.flows.len());
    }

    #[derive(Debug, Clone)]
    enum Step {
        Enter(u8),
        Leave(usize),
        Abandon(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0_u8..4).prop_map(Step::Enter),
            (0_usize..8).prop_map(Step::Leave),
            (0_usize..8).prop_map(Step::Abandon),
        ]
    }

    proptest! {
        /// Whatever happens, no bound is passed, no place is lost, and nobody waits while they could work.
        #[test]
        fn places_are_neither_lost_nor_given_twice(steps in prop::collection::vec(step(), 0..200)) {
            let mut fairness = Fairness::new(BOUNDS);
            let mut working: Vec<String> = vec![];
            let mut waiting: Vec<(String, Ticket)> = vec![];
            for step in steps {
                match step {
                    Step::Enter(client) => {
                        let client = client.to_string();
                        match fairness.enter(&client, at(0)) {
                            Entry::Go => working.push(client),
                            Entry::Wait(ticket) => waiting.push((client, ticket)),
                            Entry::Refuse(_) => {}
                        }
                    }
                    Step::Leave(index) if index < working.len() => {
                        let client = working.remove(index);
                        if let Some(ticket) = fairness.leave(&client) {
                            let index = waiting.iter().position(|(_, known)| *known == ticket);
                            working.push(waiting.remove(index.unwrap()).0);
                        }
                    }
                    Step::Abandon(index) if index < waiting.len() => {
                        let (client, ticket) = waiting.remove(index);
                        prop_assert!(fairness.abandon(&client, ticket));
                    }
                    _ => {}
                }
                prop_assert!(working.len() <= BOUNDS.at_work);
                for client in ["0", "1", "2", "3"] {
                    let own = working.iter().filter(|working| *working == client).count();
                    prop_assert!(own <= BOUNDS.at_work_each);
                    let waits = waiting.iter().any(|(waiting, _)| waiting == client);
                    let could = working.len() < BOUNDS.at_work && own < BOUNDS.at_work_each;
                    prop_assert!(!(waits && could), "{client} waits though it could work");
                }
            }
            prop_assert_eq!(fairness.at_work, working.len());
        }
    }
}
