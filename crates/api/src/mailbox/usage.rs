//! How full each box is, so that none takes the disk from the others.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::ApiError;

/// What a delivery takes of its box beside its own bytes: its record, and what the file system adds. So nobody fills a
/// disk with empty ones.
const EACH: u64 = 4096;

/// What is in a box.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Fill {
    /// How many deliveries wait there.
    pub deliveries: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Whether something found no room there, and much of what is there is there still.
    pub is_full: bool,
}

impl Fill {
    fn taken(&self) -> u64 {
        self.bytes.saturating_add(self.deliveries.saturating_mul(EACH))
    }
}

#[derive(Default)]
struct Known {
    fill: Fill,
    /// What is on its way into it, and how many bytes each will be.
    expected: HashMap<String, u64>,
}

/// How full the boxes are. Cheap to clone.
#[derive(Clone)]
pub(super) struct Usage {
    most: u64,
    boxes: Arc<Mutex<HashMap<String, Known>>>,
}

impl Usage {
    /// Nothing yet; a box may hold `most` bytes.
    pub fn new(most: u64) -> Self {
        Self { most, boxes: Arc::default() }
    }

    fn boxes(&self) -> MutexGuard<'_, HashMap<String, Known>> {
        self.boxes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps room in a box for what is to come, until it came or is expected no more.
    ///
    /// # Errors
    /// 413 if it is more than a box holds, 507 if there is no room now.
    pub fn expect(&self, site: &str, what: &str, size: u64) -> Result<(), ApiError> {
        let most = self.most;
        if size.saturating_add(EACH) > self.most {
            return Err(ApiError::too_large(format!(
                "a delivery of {size} bytes fits into no box: they hold {most} bytes (--max-mailbox-bytes)"
            )));
        }
        let mut boxes = self.boxes();
        let known = boxes.entry(site.to_owned()).or_default();
        let others = known.expected.iter().filter(|(other, _)| *other != what);
        let expected: u64 = others.map(|(_, size)| size.saturating_add(EACH)).sum();
        let wanted = size.saturating_add(EACH);
        if known.fill.taken().saturating_add(expected).saturating_add(wanted) > self.most {
            known.fill.is_full = true;
            let Fill { deliveries, bytes, .. } = known.fill;
            return Err(ApiError::insufficient_storage(format!(
                "the box of site `{site}` has no room for {size} bytes: {deliveries} deliveries of {bytes} bytes wait \
                 there, {} more are coming, and it may hold {most} (--max-mailbox-bytes); send it again once `{site}` \
                 has fetched some",
                known.expected.len()
            )));
        }
        known.expected.insert(what.to_owned(), size);
        Ok(())
    }

    /// Something is not on its way any more.
    pub fn settle(&self, site: &str, what: &str) {
        let mut boxes = self.boxes();
        if let Some(known) = boxes.get_mut(site) {
            known.expected.remove(what);
            if known.expected.is_empty() && known.fill == Fill::default() {
                boxes.remove(site);
            }
        }
    }

    /// Something came into a box, perhaps in the place of something else.
    pub fn came(&self, site: &str, size: u64, replaced: Option<u64>) {
        let mut boxes = self.boxes();
        let fill = &mut boxes.entry(site.to_owned()).or_default().fill;
        fill.bytes = fill.bytes.saturating_sub(replaced.unwrap_or_default()).saturating_add(size);
        fill.deliveries += u64::from(replaced.is_none());
    }

    /// Something went from a box.
    pub fn went(&self, site: &str, size: u64) {
        let mut boxes = self.boxes();
        let Some(known) = boxes.get_mut(site) else { return };
        let fill = &mut known.fill;
        fill.bytes = fill.bytes.saturating_sub(size);
        fill.deliveries = fill.deliveries.saturating_sub(1);
        fill.is_full &= fill.taken() > self.most / 4 * 3;
        if known.expected.is_empty() && known.fill == Fill::default() {
            boxes.remove(site);
        }
    }

    /// What was on its way but is so no more, as `is_coming` says, takes no room any longer.
    pub fn settle_lost(&self, is_coming: impl Fn(&str) -> bool) {
        let mut boxes = self.boxes();
        boxes.values_mut().for_each(|known| known.expected.retain(|what, _| is_coming(what)));
        boxes.retain(|_, known| !known.expected.is_empty() || known.fill != Fill::default());
    }

    /// The boxes with something in them, by name.
    pub fn all(&self) -> Vec<(String, Fill)> {
        let boxes = self.boxes();
        let mut all: Vec<_> = boxes.iter().map(|(site, known)| (site.clone(), known.fill)).collect();
        all.sort_by(|(a, _), (b, _)| a.cmp(b));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(usage: &Usage) -> (u64, u64, bool) {
        usage.all().first().map_or((0, 0, false), |(_, fill)| (fill.deliveries, fill.bytes, fill.is_full))
    }

    #[test]
    fn a_box_takes_what_it_has_room_for_and_more_once_some_was_fetched() {
        let usage = Usage::new(20_000);
        assert_eq!(usage.expect("shop", "a", 16_000).err().unwrap().code, 413);
        usage.expect("shop", "a", 6000).unwrap();
        usage.expect("shop", "a", 6000).unwrap();
        let refused = usage.expect("shop", "b", 6000).err().unwrap();
        assert_eq!(refused.code, 507);
        assert!(
            refused.message.contains("`shop`") && refused.message.contains("6000"),
            "{}",
            refused.message
        );
        usage.expect("plant", "b", 6000).unwrap();
        usage.settle("plant", "b");
        usage.came("shop", 6000, None);
        usage.settle("shop", "a");
        assert_eq!(fill(&usage), (1, 6000, true));
        usage.came("shop", 5000, Some(6000));
        assert_eq!(fill(&usage), (1, 5000, true));
        usage.went("shop", 5000);
        assert_eq!(usage.all(), []);
        usage.expect("shop", "b", 6000).unwrap();
    }

    #[test]
    fn empty_deliveries_fill_a_box_too() {
        let usage = Usage::new(20_000);
        for number in 0..4 {
            usage.expect("shop", &number.to_string(), 0).unwrap();
        }
        assert_eq!(usage.expect("shop", "4", 0).err().unwrap().code, 507);
        usage.settle_lost(|what| what == "1");
        usage.expect("shop", "4", 0).unwrap();
    }
}
