//! Who takes what a busy site offers: single judgements, what must hold of all of them, and a simulation.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use avocet_planner::offload::{Offer, Queue, Rate, Refusal, Request, Situation, Way, choose, judge};
use proptest::prelude::*;

fn rate(service_seconds: f64) -> Option<Rate> {
    let mut rate = Rate::default();
    rate.add(service_seconds, 100.0);
    Some(rate)
}

const REQUEST: Request = Request {
    input_bytes: 1_000_000,
    output_bytes: 1000,
    memory_bytes: 1 << 20,
    service_seconds: Some(2.0),
    within_seconds: None,
};

fn idle() -> Situation {
    Situation {
        places: 2,
        free: 2,
        promised: 0,
        is_busy: false,
        free_memory_bytes: 1 << 30,
        rate: rate(1.0),
        missing_bytes: 0,
    }
}

fn way(milliseconds: f64, megabytes: f64) -> Way {
    Way { round_trip_seconds: milliseconds / 1000.0, bytes_per_second: Some(megabytes * 1e6) }
}

#[test]
fn a_free_site_offers_its_own_pace_and_its_own_way() {
    let offer = judge(&REQUEST, &idle(), &way(10.0, 1.0)).unwrap();
    assert!((offer.finish_seconds - 2.021).abs() < 1e-9, "{offer:?}");
    let unknown = judge(&REQUEST, &Situation { rate: None, ..idle() }, &way(10.0, 1.0)).unwrap();
    assert!((unknown.finish_seconds - 3.021).abs() < 1e-9, "the pace of who asks: {unknown:?}");
    assert_eq!(unknown.confidence, 0.0);
    let code = judge(&REQUEST, &Situation { missing_bytes: 5_000_000, ..idle() }, &way(10.0, 1.0)).unwrap();
    assert!(code.finish_seconds > offer.finish_seconds + 5.0, "its code has to come first: {code:?}");
}

#[test]
fn every_refusal_has_its_word() {
    let judged = |request: Request, here| judge(&request, &here, &way(1.0, 10.0)).unwrap_err();
    assert_eq!(judged(REQUEST, Situation { is_busy: true, ..idle() }), Refusal::Busy);
    assert_eq!(judged(REQUEST, Situation { free: 0, promised: 2, ..idle() }), Refusal::Full);
    assert_eq!(judged(REQUEST, Situation { places: 0, free: 0, ..idle() }), Refusal::Full);
    assert_eq!(judged(REQUEST, Situation { free_memory_bytes: 1, ..idle() }), Refusal::Memory);
    assert_eq!(judged(Request { within_seconds: Some(1.0), ..REQUEST }, idle()), Refusal::TooLate);
}

#[test]
fn the_earliest_end_wins_and_only_by_a_margin() {
    let offer = |finish_seconds| Offer { finish_seconds, confidence: 0.5 };
    let here = way(10.0, 1.0);
    let chosen = |own, offers: &[Offer]| choose(own, &REQUEST, &here, offers, 20).map(|(index, _)| index);
    assert_eq!(chosen(10.0, &[offer(4.0), offer(3.0), offer(5.0)]), Some(1));
    assert_eq!(chosen(10.0, &[]), None);
    assert_eq!(chosen(4.5, &[offer(3.0)]), None, "3 s there and 1 s of transfers are not 20 % better");
    assert_eq!(chosen(10.0, &[offer(f64::NAN), offer(-5.0)]), Some(1), "nonsense is passed over");
    assert_eq!(chosen(0.001, &[offer(-5.0)]), None, "transfers count even for who promises the past");
    let sure = Offer { confidence: 0.9, ..offer(3.0) };
    assert_eq!(chosen(10.0, &[offer(3.0), sure]), Some(1), "of two alike the one that measured");
}

#[test]
fn a_rate_follows_what_it_measures() {
    let mut rate = Rate::default();
    assert_eq!(rate.confidence(), 0.0);
    rate.add(4.0, 10.0);
    assert_eq!(rate.service_seconds, 4.0);
    for _ in 0..30 {
        rate.add(1.0, 10.0);
    }
    assert!((rate.service_seconds - 1.0).abs() < 0.01 && rate.confidence() > 0.9, "{rate:?}");
}

fn situations() -> impl Strategy<Value = Situation> {
    (
        0..8_u32,
        0..8_u32,
        0..16_u32,
        any::<bool>(),
        0..1_u64 << 32,
        proptest::option::of(0.0..100.0_f64),
        0..1_u64 << 30,
    )
        .prop_map(|(places, free, promised, is_busy, free_memory_bytes, service, missing_bytes)| {
            Situation {
                places,
                free: free.min(places),
                promised,
                is_busy,
                free_memory_bytes,
                rate: service.and_then(rate),
                missing_bytes,
            }
        })
}

fn requests() -> impl Strategy<Value = Request> {
    (
        0..1_u64 << 32,
        0..1_u64 << 32,
        0..1_u64 << 32,
        proptest::option::of(0.0..100.0_f64),
        proptest::option::of(0.0..200.0_f64),
    )
        .prop_map(|(input_bytes, output_bytes, memory_bytes, service_seconds, within_seconds)| Request {
            input_bytes,
            output_bytes,
            memory_bytes,
            service_seconds,
            within_seconds,
        })
}

fn ways() -> impl Strategy<Value = Way> {
    (0.0..2.0_f64, proptest::option::of(1e3..1e9_f64))
        .prop_map(|(round_trip_seconds, bytes_per_second)| Way { round_trip_seconds, bytes_per_second })
}

proptest! {
    #[test]
    fn more_promised_never_ends_earlier(request in requests(), here in situations(), way in ways()) {
        let more = Situation { promised: here.promised + 1, ..here };
        match (judge(&request, &here, &way), judge(&request, &more, &way)) {
            (Ok(one), Ok(other)) => prop_assert!(other.finish_seconds >= one.finish_seconds),
            (Err(_), answered) => prop_assert!(answered.is_err()),
            (Ok(_), Err(_)) => {}
        }
    }

    #[test]
    fn a_wider_way_never_ends_later(request in requests(), here in situations(), way in ways()) {
        let wider = Way { bytes_per_second: Some(way.bytes_per_second.unwrap_or(1e6) * 2.0), ..way };
        match (judge(&request, &here, &way), judge(&request, &here, &wider)) {
            (Ok(one), Ok(other)) => prop_assert!(other.finish_seconds <= one.finish_seconds),
            (Ok(_), Err(refusal)) => prop_assert!(false, "{refusal:?}"),
            (Err(_), _) => {}
        }
    }

    #[test]
    fn nothing_is_offered_beyond_what_is_there_or_past_its_time(
        request in requests(), here in situations(), way in ways()
    ) {
        if let Ok(offer) = judge(&request, &here, &way) {
            prop_assert!(here.promised < here.free + here.places && !here.is_busy);
            prop_assert!(request.memory_bytes <= here.free_memory_bytes);
            prop_assert!(request.within_seconds.is_none_or(|within| offer.finish_seconds <= within));
            prop_assert!(offer.finish_seconds.is_finite() && offer.finish_seconds >= 0.0);
        }
    }

    #[test]
    fn who_is_chosen_ends_before_the_one_who_asks(
        own in 0.0..1000.0_f64, request in requests(), way in ways(),
        ends in proptest::collection::vec(0.0..1000.0_f64, 0..8), margin in 0..1000_u32,
    ) {
        let offers: Vec<Offer> = ends.iter().map(|end| Offer { finish_seconds: *end, confidence: 0.0 }).collect();
        if let Some((index, seconds)) = choose(own, &request, &way, &offers, margin) {
            prop_assert!(seconds < own);
            prop_assert!(offers.iter().all(|offer| offer.finish_seconds >= offers[index].finish_seconds));
        }
    }
}

/// A task of the simulation.
#[derive(Debug, Clone)]
struct Task {
    born: f64,
    home: usize,
    hops: u32,
}

#[derive(Debug, Clone)]
struct Node {
    places: u32,
    running: u32,
    service: f64,
    own: VecDeque<Task>,
    guests: VecDeque<Task>,
    /// Guests on their way.
    promised: u32,
    rate: Option<Rate>,
}

/// What happens at a time.
#[derive(Debug, Clone)]
enum Event {
    Born(usize),
    Arrives(usize, Task),
    Ends(usize, Task),
}

/// Times as whole microseconds, so that they are ordered.
type Agenda = BinaryHeap<Reverse<(u64, usize)>>;

struct World {
    nodes: Vec<Node>,
    offloads: bool,
    agenda: Agenda,
    events: Vec<Event>,
    spans: Vec<f64>,
    hops: Vec<u32>,
}

impl World {
    fn at(&mut self, seconds: f64, event: Event) {
        self.agenda.push(Reverse(((seconds * 1e6) as u64, self.events.len())));
        self.events.push(event);
    }

    fn run(mut self) -> Self {
        while let Some(Reverse((micros, index))) = self.agenda.pop() {
            let now = micros as f64 / 1e6;
            match self.events[index].clone() {
                Event::Born(site) => self.nodes[site].own.push_back(Task { born: now, home: site, hops: 0 }),
                Event::Arrives(site, task) => {
                    self.nodes[site].promised -= 1;
                    self.nodes[site].guests.push_back(task);
                }
                Event::Ends(site, task) => {
                    let node = &mut self.nodes[site];
                    node.running -= 1;
                    node.rate.get_or_insert_default().add(node.service, 0.0);
                    let back = if task.home == site { 0.0 } else { way(20.0, 10.0).seconds_for(1000) };
                    self.spans.push(now + back - task.born);
                    self.hops.push(task.hops);
                }
            }
            self.start(now);
            if self.offloads {
                self.offload(now);
            }
        }
        self
    }

    fn start(&mut self, now: f64) {
        for site in 0..self.nodes.len() {
            while self.nodes[site].running < self.nodes[site].places {
                let node = &mut self.nodes[site];
                let Some(task) = node.own.pop_front().or_else(|| node.guests.pop_front()) else { break };
                node.running += 1;
                let end = now + node.service;
                self.at(end, Event::Ends(site, task));
            }
        }
    }

    /// Every site offers what would wait longest; guests are none of what it offers.
    fn offload(&mut self, now: f64) {
        let way = way(20.0, 10.0);
        for site in 0..self.nodes.len() {
            loop {
                let node = &self.nodes[site];
                let Some(ahead) = node.own.len().checked_sub(1) else { break };
                let queue = Queue {
                    places: node.places,
                    running: node.running,
                    ahead: ahead as u32,
                    rate: node.rate,
                };
                let asked: Vec<usize> = (0..self.nodes.len()).filter(|other| *other != site).collect();
                let judged = asked.iter().filter_map(|other| {
                    let here = &self.nodes[*other];
                    let situation = Situation {
                        places: here.places,
                        free: here.places - here.running,
                        promised: here.promised + here.guests.len() as u32,
                        is_busy: !here.own.is_empty(),
                        free_memory_bytes: 1 << 30,
                        rate: here.rate,
                        missing_bytes: 0,
                    };
                    Some((*other, judge(&REQUEST, &situation, &way).ok()?))
                });
                let (sites, offers): (Vec<usize>, Vec<Offer>) = judged.unzip();
                let chosen = choose(queue.finish_seconds(), &REQUEST, &way, &offers, 20);
                let Some((index, _)) = chosen else { break };
                let mut task = self.nodes[site].own.pop_back().unwrap();
                task.hops += 1;
                self.nodes[sites[index]].promised += 1;
                let arrival = now + 2.0 * way.seconds_for(REQUEST.input_bytes);
                self.at(arrival, Event::Arrives(sites[index], task));
            }
        }
    }
}

/// Sites with these loads (work that arrives per second and place) for a while, from a seed.
fn simulate(loads: &[f64], seed: u64, offloads: bool) -> World {
    let node = Node {
        places: 2,
        running: 0,
        service: 1.0,
        own: VecDeque::new(),
        guests: VecDeque::new(),
        promised: 0,
        rate: None,
    };
    let mut world = World {
        nodes: vec![node; loads.len()],
        offloads,
        agenda: Agenda::new(),
        events: vec![],
        spans: vec![],
        hops: vec![],
    };
    let mut state = seed | 1;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as f64 / (1_u64 << 53) as f64
    };
    for (site, load) in loads.iter().enumerate() {
        let mut now = 0.0;
        while now < 200.0 {
            now += -(1.0 - random()).ln() / (load * 2.0);
            world.at(now, Event::Born(site));
        }
    }
    world.run()
}

fn mean(spans: &[f64]) -> f64 {
    spans.iter().sum::<f64>() / spans.len() as f64
}

#[test]
fn work_of_an_overloaded_site_ends_earlier_with_neighbours_than_without() {
    for seed in 1..20 {
        let loads = [2.0, 0.2, 0.3, 0.1];
        let (without, with) = (simulate(&loads, seed, false), simulate(&loads, seed, true));
        assert_eq!(without.spans.len(), with.spans.len(), "seed {seed}: nothing is lost or run twice");
        assert_eq!(without.hops.iter().sum::<u32>(), 0);
        let (alone, together) = (mean(&without.spans), mean(&with.spans));
        assert!(together < alone / 4.0, "seed {seed}: {alone} s alone, {together} s together");
        assert!(with.hops.iter().all(|hops| *hops <= 1), "seed {seed}: nothing travels on");
    }
}

#[test]
fn sites_that_are_all_overloaded_do_not_pass_work_to_and_fro() {
    for seed in 1..20 {
        let loads = [1.5, 1.5, 1.5];
        let (without, with) = (simulate(&loads, seed, false), simulate(&loads, seed, true));
        assert_eq!(without.spans.len(), with.spans.len());
        assert!(with.hops.iter().all(|hops| *hops <= 1));
        let moved = f64::from(with.hops.iter().sum::<u32>()) / with.hops.len() as f64;
        assert!(moved < 0.25, "seed {seed}: {moved} of it travelled");
        assert!(
            mean(&with.spans) < mean(&without.spans) * 1.1,
            "seed {seed}: and nobody is worse off for it"
        );
    }
}
