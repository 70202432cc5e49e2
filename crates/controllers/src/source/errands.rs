//! What sites are to fetch for the hub, because only they reach it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sources::{Delivery, Order};
use tokio::sync::oneshot;

/// How much longer than the fetching itself a site may take: to see the order, and to bring what it made of it.
const WAYS: Duration = Duration::from_secs(30);

/// Orders that wait for their sites. Cheap to clone.
#[derive(Clone, Default)]
pub struct Errands(Arc<Mutex<HashMap<(String, String), Waiting>>>);

struct Waiting {
    order: Order,
    answer: oneshot::Sender<Delivery>,
}

impl Errands {
    fn waiting(&self) -> MutexGuard<'_, HashMap<(String, String), Waiting>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has a site do it; `None` if nothing comes in time.
    pub async fn send(&self, site: &str, order: Order) -> Option<Delivery> {
        let key = (site.to_owned(), order.id.clone());
        let patience = Duration::from_secs(order.timeout_seconds) + WAYS;
        let (answer, brought) = oneshot::channel();
        self.waiting().insert(key.clone(), Waiting { order, answer });
        let _withdrawn = Withdraw { errands: self, key };
        tokio::time::timeout(patience, brought).await.ok()?.ok()
    }

    /// What a site is to do now.
    pub fn of(&self, site: &str) -> Vec<Order> {
        let waiting = self.waiting();
        let own = waiting.iter().filter(|((of, _), _)| of == site);
        own.map(|(_, waiting)| waiting.order.clone()).collect()
    }

    /// A site brings something; answers whether anybody waits for it.
    pub fn deliver(&self, site: &str, id: &str, delivery: Delivery) -> bool {
        let known = self.waiting().remove(&(site.to_owned(), id.to_owned()));
        known.is_some_and(|waiting| waiting.answer.send(delivery).is_ok())
    }
}

/// Nobody waits any longer.
struct Withdraw<'a> {
    errands: &'a Errands,
    key: (String, String),
}

impl Drop for Withdraw<'_> {
    fn drop(&mut self) {
        self.errands.waiting().remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(id: &str) -> Order {
        Order { id: id.into(), ..Order::default() }
    }

    #[tokio::test]
    async fn what_a_site_brings_reaches_who_ordered_it_and_only_from_that_site() {
        let errands = Errands::default();
        let site = async {
            while errands.of("plant").is_empty() {
                tokio::task::yield_now().await;
            }
            assert!(errands.of("shop").is_empty());
            assert!(!errands.deliver("shop", "1", Delivery::default()), "it isn't theirs");
            let delivery = Delivery { revision: "r".into(), ..Delivery::default() };
            assert!(errands.deliver("plant", "1", delivery));
        };
        let (delivery, ()) = tokio::join!(errands.send("plant", order("1")), site);
        assert_eq!(delivery.unwrap().revision, "r");
        assert!(errands.of("plant").is_empty());
        assert!(!errands.deliver("plant", "1", Delivery::default()));
    }

    #[tokio::test]
    async fn an_order_that_nobody_waits_for_is_withdrawn() {
        let errands = Errands::default();
        drop(tokio::time::timeout(Duration::from_millis(1), errands.send("plant", order("1"))).await);
        assert!(errands.of("plant").is_empty());
    }
}
