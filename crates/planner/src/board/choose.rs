//! The best of many by their keys, without putting all in order.

mod spread;

use std::cmp::Reverse;

use super::OUT;
use crate::fleet::Slot;

pub(super) use spread::Spread;

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

fn distinct(dirty: &[Slot]) -> Vec<Slot> {
    let mut distinct = dirty.to_vec();
    distinct.sort_unstable();
    distinct.dedup();
    distinct
}

/// Gives the rows that match their new keys; answers how many these are.
fn sum_up(rows: &[Slot], keys: &mut [i64], key: impl Fn(Slot) -> i64) -> usize {
    let mut scored = 0;
    for slot in rows {
        if let Some(known) = keys.get_mut(*slot as usize).filter(|known| **known != OUT) {
            *known = key(*slot);
            scored += 1;
        }
    }
    scored
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
    let fresh = distinct(dirty);
    // All that match but aren't selected come behind the last that is.
    let has_outsiders = wanted.is_some_and(|wanted| selected.len() >= wanted);
    let boundary = selected.last().map(|slot| rank(*slot, keys, order));
    let scored = sum_up(&fresh, keys, key);
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
