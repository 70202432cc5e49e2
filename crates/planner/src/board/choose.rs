//! The best of many by their keys, without putting all in order.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap};

use super::OUT;
use crate::fleet::{Fleet, Slot};
use crate::policy::SpreadOver;

/// The greater key first, of equal ones the name that comes first.
type Rank = (Reverse<i64>, u64, Slot);

fn rank(slot: Slot, keys: &[i64], order: &[u64]) -> Rank {
    let row = slot as usize;
    let key = keys.get(row).copied().unwrap_or(OUT);
    (Reverse(key), order.get(row).copied().unwrap_or(u64::MAX), slot)
}

/// The best of all that match, best first.
pub(super) fn best(selected: &mut Vec<Slot>, keys: &[i64], order: &[u64], wanted: Option<usize>) {
    selected.clear();
    let ranks = keys.iter().zip(order).zip(0..).filter(|((key, _), _)| **key != OUT);
    let ranks = ranks.map(|((key, order), slot)| (Reverse(*key), *order, slot));
    let mut kept: Vec<Rank> = match wanted {
        None => ranks.collect(),
        Some(0) => vec![],
        Some(wanted) => top(ranks, wanted),
    };
    kept.sort_unstable();
    selected.extend(kept.into_iter().map(|(_, _, slot)| slot));
}

/// The `wanted` best, in no order, in a single pass: what is worse than so many others is dropped at once.
fn top(ranks: impl Iterator<Item = Rank>, wanted: usize) -> Vec<Rank> {
    let mut kept: Vec<Rank> = Vec::new();
    let mut worst: Option<Rank> = None;
    let room = wanted.saturating_mul(2).max(64);
    for rank in ranks {
        if worst.is_some_and(|worst| rank >= worst) {
            continue;
        }
        kept.push(rank);
        if kept.len() >= room {
            worst = cut(&mut kept, wanted);
        }
    }
    cut(&mut kept, wanted);
    kept
}

/// Keeps the best, and answers the worst of them if there are enough.
fn cut(kept: &mut Vec<Rank>, wanted: usize) -> Option<Rank> {
    let last = wanted.checked_sub(1)?;
    if kept.len() <= last {
        return None;
    }
    let (_, worst, _) = kept.select_nth_unstable(last);
    let worst = *worst;
    kept.truncate(wanted);
    Some(worst)
}

/// So many changed rows are put right one by one; more are not worth it.
const MOST_MENDED: usize = 256;

/// Puts a selection right after rows changed. `keys` holds their old keys, or `OUT` for what doesn't match, and gets the
/// new ones by `key`. Answers how many were summed up.
pub(super) fn mend(
    selected: &mut Vec<Slot>,
    dirty: &[Slot],
    keys: &mut [i64],
    order: &[u64],
    wanted: Option<usize>,
    key: impl Fn(Slot) -> i64,
) -> usize {
    let mut fresh = dirty.to_vec();
    fresh.sort_unstable();
    fresh.dedup();
    // All that match but aren't selected come behind the last that is.
    let has_outsiders = wanted.is_some_and(|wanted| selected.len() >= wanted);
    let boundary = selected.last().map(|slot| rank(*slot, keys, order));
    let mut scored = 0;
    for slot in &fresh {
        if let Some(known) = keys.get_mut(*slot as usize).filter(|known| **known != OUT) {
            *known = key(*slot);
            scored += 1;
        }
    }
    let is_lost = |rank: &Rank| rank.0 == Reverse(OUT);
    if fresh.len() > MOST_MENDED || (has_outsiders && boundary.as_ref().is_none_or(is_lost)) {
        best(selected, keys, order, wanted);
        return scored;
    }
    selected.retain(|slot| fresh.binary_search(slot).is_err());
    for slot in fresh {
        let rank_of = rank(slot, keys, order);
        if !is_lost(&rank_of) {
            let place = selected.partition_point(|other| rank(*other, keys, order) < rank_of);
            selected.insert(place, slot);
        }
    }
    let Some(wanted) = wanted else { return scored };
    selected.truncate(wanted);
    let last = selected.last().map(|slot| rank(*slot, keys, order));
    if has_outsiders && (selected.len() < wanted || last > boundary) {
        best(selected, keys, order, Some(wanted));
    }
    scored
}

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

/// Selects the best that keep to how sites are to be spread, best first.
pub(super) fn spread(
    selected: &mut Vec<Slot>,
    keys: &[i64],
    fleet: &Fleet,
    over: &[SpreadOver],
    wanted: Option<usize>,
) {
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
        let place_of =
            |queues: &[Queue], index: usize| queues.get(index).map_or([0; LABELS], |queue| queue.place);
        let next = match heads.pop() {
            Some(Reverse((rank, index))) => {
                if !skew_of(&domains, &place_of(&queues, index), false).0 {
                    parked.push((rank, index));
                    continue;
                }
                index
            }
            // Nothing fits: what only preferences speak against is taken, as evenly as can be.
            None => {
                let fitting = parked.iter().filter_map(|(rank, index)| {
                    let (fits, skew) = skew_of(&domains, &place_of(&queues, *index), true);
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
}

/// All that match, by the place they are at. What has no place for a hard spread is left out.
fn queues(keys: &[i64], fleet: &Fleet, over: &[SpreadOver], domains: &mut [Domains]) -> Vec<Queue> {
    let mut by_place: BTreeMap<Place, Vec<Rank>> = BTreeMap::new();
    for (slot, key) in (0..).zip(keys) {
        if *key == OUT {
            continue;
        }
        let mut place = [0; LABELS];
        for (word, over) in place.iter_mut().zip(over) {
            *word = fleet.columns.word_at(over.column, slot);
        }
        if place.iter().zip(over).any(|(word, over)| *word == 0 && over.is_hard) {
            continue;
        }
        by_place.entry(place).or_default().push((Reverse(*key), fleet.place(slot), slot));
    }
    let queues = by_place.into_iter().map(|(place, mut ranks)| {
        domains.iter_mut().zip(place).for_each(|(domains, word)| domains.know(word));
        ranks.sort_unstable_by(|one, other| other.cmp(one));
        Queue { place, ranks }
    });
    queues.collect()
}
