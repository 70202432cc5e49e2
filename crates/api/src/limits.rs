//! Limits on what clients may ask for: their rate, their requests at once, their watches, and how many objects a
//! namespace may have. What is beyond is refused with 429 and `Retry-After`, or with 403 where waiting won't help.

mod fairness;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::ApiError;
use fairness::{Bounds, Entry, Fairness, Ticket};

/// The limits of a hub.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Requests per second of one client; twice as many at once after a pause.
    pub requests_per_second: u32,
    /// Requests at work at once, all clients together; one client has at most three quarters of them.
    pub requests_at_once: usize,
    /// Watches of one client.
    pub watches: usize,
    /// Objects of one kind in one namespace, or without a namespace.
    pub objects: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { requests_per_second: 5000, requests_at_once: 512, watches: 20_000, objects: 200_000 }
    }
}

/// How many requests of one client may wait, and for how long.
const WAITING_EACH: usize = 1024;
const LONGEST_WAIT: Duration = Duration::from_secs(15);

/// Keeps clients within their limits. Cheap to clone.
#[derive(Clone)]
pub struct Limits(Arc<Inner>);

struct Inner {
    options: Options,
    started: Instant,
    requests: Mutex<Requests>,
    watches: Mutex<HashMap<String, usize>>,
}

struct Requests {
    fairness: Fairness,
    /// How those who wait are told.
    waiting: HashMap<Ticket, oneshot::Sender<()>>,
}

impl Default for Limits {
    fn default() -> Self {
        Self::new(Options::default())
    }
}

impl Limits {
    pub fn new(options: Options) -> Self {
        let rate = f64::from(options.requests_per_second.max(1));
        let bounds = Bounds {
            at_work: options.requests_at_once.max(1),
            at_work_each: (options.requests_at_once * 3 / 4).max(1),
            waiting_each: WAITING_EACH,
            rate,
            burst: rate * 2.0,
        };
        let requests = Requests { fairness: Fairness::new(bounds), waiting: HashMap::new() };
        Self(Arc::new(Inner {
            options,
            started: Instant::now(),
            requests: Mutex::new(requests),
            watches: Mutex::default(),
        }))
    }

    /// How many objects of one kind a namespace may have.
    pub fn objects(&self) -> usize {
        self.0.options.objects
    }

    /// A place for a request, as soon as it is the client's turn.
    ///
    /// # Errors
    /// 429 if the client asks too often, has too many requests waiting, or had to wait too long.
    pub async fn enter(&self, client: &str) -> Result<Place, ApiError> {
        let (ticket, told) = {
            let mut requests = self.requests();
            match requests.fairness.enter(client, self.0.started.elapsed()) {
                Entry::Go => return Ok(self.place(client)),
                Entry::Refuse(after) => {
                    let message = "too many requests of this client; slow down, or ask for a higher limit";
                    return Err(ApiError::too_many_requests(message).retry_after(after));
                }
                Entry::Wait(ticket) => {
                    let (tell, told) = oneshot::channel();
                    requests.waiting.insert(ticket, tell);
                    (ticket, told)
                }
            }
        };
        let mut waiting = Waiting { limits: self, client, ticket: Some(ticket) };
        match tokio::time::timeout(LONGEST_WAIT, told).await {
            Ok(Ok(())) => {
                waiting.ticket = None;
                Ok(self.place(client))
            }
            _ => Err(ApiError::too_many_requests(
                "the server is busy with other requests of this client; ask again later",
            )
            .retry_after(Duration::from_secs(1))),
        }
    }

    fn place(&self, client: &str) -> Place {
        Place { limits: self.clone(), client: client.to_owned() }
    }

    fn requests(&self) -> MutexGuard<'_, Requests> {
        self.0.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn leave(&self, client: &str) {
        let mut requests = self.requests();
        if let Some(ticket) = requests.fairness.leave(client)
            && let Some(tell) = requests.waiting.remove(&ticket)
        {
            // Who gave up at this very moment has the place all the same, and leaves it when `Waiting` is dropped.
            let _ = tell.send(());
        }
    }

    /// A place for a watch, as long as the answer is kept.
    ///
    /// # Errors
    /// 429 if the client has too many.
    pub fn watch(&self, client: &str) -> Result<WatchPlace, ApiError> {
        let mut watches = self.0.watches.lock().unwrap_or_else(PoisonError::into_inner);
        let count = watches.entry(client.to_owned()).or_default();
        if *count >= self.0.options.watches {
            let message = format!("this client has {count} watches already, as many as it may; end some");
            return Err(ApiError::too_many_requests(message).retry_after(Duration::from_secs(10)));
        }
        *count += 1;
        Ok(WatchPlace { limits: self.clone(), client: client.to_owned() })
    }
}

/// The right to work on one request; given back when dropped.
pub struct Place {
    limits: Limits,
    client: String,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.limits.leave(&self.client);
    }
}

/// The right to one watch; given back when dropped.
pub struct WatchPlace {
    limits: Limits,
    client: String,
}

impl Drop for WatchPlace {
    fn drop(&mut self) {
        let mut watches = self.limits.0.watches.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = watches.get_mut(&self.client) {
            *count -= 1;
            if *count == 0 {
                watches.remove(&self.client);
            }
        }
    }
}

/// One who waits; their ticket is given up if they go.
struct Waiting<'a> {
    limits: &'a Limits,
    client: &'a str,
    ticket: Option<Ticket>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let Some(ticket) = self.ticket else { return };
        let still_waited = {
            let mut requests = self.limits.requests();
            requests.waiting.remove(&ticket);
            requests.fairness.abandon(self.client, ticket)
        };
        if !still_waited {
            self.limits.leave(self.client);
        }
    }
}

/// The place that the current request has.
#[derive(Clone)]
pub struct Held(Arc<Mutex<Option<Place>>>);

impl Held {
    pub fn new(place: Place) -> Self {
        Self(Arc::new(Mutex::new(Some(place))))
    }

    /// Gives the place back before the request is done: for handlers that only wait from here on.
    pub fn give_back(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_place_goes_to_who_waits_and_is_not_lost_with_who_gave_up() {
        let limits = Limits::new(Options { requests_at_once: 1, ..Options::default() });
        let first = limits.enter("a").await.unwrap();
        let impatient = tokio::time::timeout(Duration::from_millis(10), limits.enter("a")).await;
        assert!(impatient.is_err());
        let second = limits.enter("b");
        let release = async {
            tokio::task::yield_now().await;
            drop(first);
        };
        let (second, ()) = tokio::join!(second, release);
        drop(second.unwrap());
        limits.enter("a").await.unwrap();
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn however_many_give_up_while_they_wait_no_place_is_lost_or_given_twice() {
        use std::sync::atomic::{AtomicUsize, Ordering};

        let limits = Limits::new(Options { requests_at_once: 4, ..Options::default() });
        let working = Arc::new(AtomicUsize::new(0));
        let mut tasks = tokio::task::JoinSet::new();
        for number in 0..2000_u64 {
            let (limits, working) = (limits.clone(), working.clone());
            tasks.spawn(async move {
                let client = (number % 5).to_string();
                let patience = Duration::from_micros(number * 37 % 3000);
                let Ok(Ok(_place)) = tokio::time::timeout(patience, limits.enter(&client)).await else {
                    return;
                };
                assert!(working.fetch_add(1, Ordering::SeqCst) < 4);
                tokio::time::sleep(Duration::from_micros(number * 13 % 400)).await;
                working.fetch_sub(1, Ordering::SeqCst);
            });
        }
        while let Some(ended) = tasks.join_next().await {
            ended.unwrap();
        }
        assert_eq!(limits.requests().fairness.at_work(), 0);
        assert!(limits.requests().waiting.is_empty());
    }

    #[tokio::test]
    async fn watches_are_counted_until_they_end() {
        let limits = Limits::new(Options { watches: 1, ..Options::default() });
        let watch = limits.watch("a").unwrap();
        assert_eq!(limits.watch("a").err().unwrap().code, 429);
        limits.watch("b").unwrap();
        drop(watch);
        limits.watch("a").unwrap();
    }
}
