//! Sites spread over the values of labels.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap};

use super::{MOST_MENDED, OUT, Rank, distinct, rank, sum_up};
use crate::fleet::{Fleet, Slot};
use crate::policy::SpreadOver;

/// The most labels that sites are spread over at once.
const LABELS: usize = 4;
/// The values of those labels that a site has: 0 where it has none.
type Place = [u32; LABELS];

/// How many sites were taken in each domain of one label.
#[derive(Default)]
struct Domains {
    counts: HashMap<u32, u32>,
    /// How many domains have so many sites.
    having: BTreeMap<u32, usize>,
}

impl Domains {
    fn know(&mut self, word: u32) {
        if word != 0 && self.counts.insert(word, 0).is_none() {
            *self.having.entry(0).or_default() += 1;
        }
    }

    fn least(&self) -> u32 {
        self.having.keys().next().copied().unwrap_or(0)
    }

    /// How many more than the emptiest domain this one would have with one more.
    fn skew(&self, word: u32) -> u32 {
        self.counts.get(&word).map_or(0, |count| count + 1 - self.least())
    }

    fn take(&mut self, word: u32) {
        let Some(count) = self.counts.get_mut(&word) else { return };
        if let Some(having) = self.having.get_mut(count) {
            *having -= 1;
            if *having == 0 {
                self.having.remove(count);
            }
        }
        *count += 1;
        *self.having.entry(*count).or_default() += 1;
    }
}

/// Sites of one place, the best last.
struct Queue {
    place: Place,
    ranks: Vec<Rank>,
}

/// How sites were spread last. Which are taken depends on the first of each place that was not, and on none behind it.
#[derive(Default)]
pub(in crate::board) struct Spread {
    /// The key and row of that one, by the place; `None` where all were taken.
    next: HashMap<Place, Option<(i64, Slot)>>,
    /// The rows that were taken, in their order.
    taken: Vec<Slot>,
}

impl Spread {
    /// Sums up what changed. Answers how many were, and whether all who are selected stay and nobody comes: else it is to
    /// be spread anew.
    pub fn mend(
        &self,
        dirty: &[Slot],
        keys: &mut [i64],
        fleet: &Fleet,
        over: &[SpreadOver],
        key: impl Fn(Slot) -> i64,
    ) -> (usize, bool) {
        let fresh = distinct(dirty);
        let scored = sum_up(&fresh, keys, key);
        let is_kept =
            fresh.len() <= MOST_MENDED && fresh.iter().all(|slot| self.is_behind(*slot, keys, fleet, over));
        (scored, is_kept)
    }

    /// Whether a row that changed was not taken, and comes behind one that was not, either.
    fn is_behind(&self, slot: Slot, keys: &[i64], fleet: &Fleet, over: &[SpreadOver]) -> bool {
        let was_next = self.next.values().flatten().any(|(_, next)| *next == slot);
        if was_next || self.taken.binary_search(&slot).is_ok() {
            return false;
        }
        let place =
            place_of(slot, fleet, over).filter(|_| keys.get(slot as usize).is_some_and(|key| *key != OUT));
        let Some(place) = place else { return true };
        let next = self.next.get(&place).copied().flatten();
        next.is_some_and(|(key, next)| {
            rank(slot, keys, fleet.order()) > (Reverse(key), fleet.place(next), next)
        })
    }

    /// Selects the best that keep to how sites are to be spread, best first.
    pub fn choose(
        &mut self,
        selected: &mut Vec<Slot>,
        keys: &[i64],
        fleet: &Fleet,
        over: &[SpreadOver],
        wanted: Option<usize>,
    ) {
        let queues = choose(selected, keys, fleet, over, wanted);
        let next = queues.iter().map(|queue| {
            let next = queue.ranks.last().map(|(Reverse(key), _, slot)| (*key, *slot));
            (queue.place, next)
        });
        self.next = next.collect();
        self.taken.clone_from(selected);
        self.taken.sort_unstable();
    }
}

/// The same, and what was not taken.
fn choose(
    selected: &mut Vec<Slot>,
    keys: &[i64],
    fleet: &Fleet,
    over: &[SpreadOver],
    wanted: Option<usize>,
) -> Vec<Queue> {
    let mut domains: Vec<Domains> = over.iter().map(|_| Domains::default()).collect();
    let mut queues = queues(keys, fleet, over, &mut domains);
    let skew_of = |domains: &[Domains], place: &Place, only_hard: bool| -> (bool, u32) {
        let skews = domains.iter().zip(over).zip(place);
        skews.fold((true, 0), |(fits, sum), ((domains, over), word)| {
            let skew = domains.skew(*word);
            (fits && (skew <= over.max_skew || (only_hard && !over.is_hard)), sum + skew)
        })
    };
    let mut taken: Vec<Rank> = Vec::new();
    let mut heads: BinaryHeap<Reverse<(Rank, usize)>> = BinaryHeap::new();
    for (index, queue) in queues.iter().enumerate() {
        heads.extend(queue.ranks.last().map(|rank| Reverse((*rank, index))));
    }
    let mut parked: Vec<(Rank, usize)> = Vec::new();
    while wanted.is_none_or(|wanted| taken.len() < wanted) {
        let at = |queues: &[Queue], index: usize| queues.get(index).map_or([0; LABELS], |queue| queue.place);
        let next = match heads.pop() {
            Some(Reverse((rank, index))) => {
                if !skew_of(&domains, &at(&queues, index), false).0 {
                    parked.push((rank, index));
                    continue;
                }
                index
            }
            // Nothing fits: what only preferences speak against is taken, as evenly as can be.
            None => {
                let fitting = parked.iter().filter_map(|(rank, index)| {
                    let (fits, skew) = skew_of(&domains, &at(&queues, *index), true);
                    fits.then_some((skew, *rank, *index))
                });
                let Some((_, _, index)) = fitting.min() else { break };
                parked.retain(|(_, parked)| *parked != index);
                index
            }
        };
        let Some(queue) = queues.get_mut(next) else { break };
        taken.extend(queue.ranks.pop());
        let before: Vec<u32> = domains.iter().map(Domains::least).collect();
        for (domains, word) in domains.iter_mut().zip(&queue.place) {
            domains.take(*word);
        }
        heads.extend(queue.ranks.last().map(|rank| Reverse((*rank, next))));
        if domains.iter().map(Domains::least).ne(before) || heads.is_empty() {
            heads.extend(parked.drain(..).map(Reverse));
        }
    }
    taken.sort_unstable();
    selected.clear();
    selected.extend(taken.into_iter().map(|(_, _, slot)| slot));
    queues
}

/// Where a row is; `None` where it has no place for a hard spread.
fn place_of(slot: Slot, fleet: &Fleet, over: &[SpreadOver]) -> Option<Place> {
    let mut place = [0; LABELS];
    for (word, over) in place.iter_mut().zip(over) {
        *word = fleet.columns.word_at(over.column, slot);
        if *word == 0 && over.is_hard {
            return None;
        }
    }
    Some(place)
}

/// All that match, by the place they are at. What has no place for a hard spread is left out.
fn queues(keys: &[i64], fleet: &Fleet, over: &[SpreadOver], domains: &mut [Domains]) -> Vec<Queue> {
    let mut by_place: BTreeMap<Place, Vec<Rank>> = BTreeMap::new();
    for (slot, key) in (0..).zip(keys) {
        if *key == OUT {
            continue;
        }
        let Some(place) = place_of(slot, fleet, over) else { continue };
        by_place.entry(place).or_default().push((Reverse(*key), fleet.place(slot), slot));
    }
    let queues = by_place.into_iter().map(|(place, mut ranks)| {
        domains.iter_mut().zip(place).for_each(|(domains, word)| domains.know(word));
        ranks.sort_unstable_by(|one, other| other.cmp(one));
        Queue { place, ranks }
    });
    queues.collect()
}
