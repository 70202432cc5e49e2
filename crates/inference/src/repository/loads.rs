//! Which loads go on at once, and how much memory each of them takes.

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};

use tokio::sync::{Mutex as Turns, OwnedMutexGuard, OwnedSemaphorePermit, Semaphore};
use types::Isolation;

use super::LoadRequest;
use crate::memory;

/// Loads in this process at once: one that hangs or is huge leaves the others their turn, and the peak of memory stays
/// a few models.
const HERE: std::ops::RangeInclusive<usize> = 2..=4;
/// Loads in processes of their own at once. This process only waits for them, for minutes where one hangs.
const ELSEWHERE: usize = 16;

/// The version of a model.
type Version = (String, String);

pub(super) struct Loads {
    /// Equal requests load once: the second one finds the model loaded.
    versions: Mutex<HashMap<Version, Weak<Turns<()>>>>,
    here: Arc<Semaphore>,
    elsewhere: Arc<Semaphore>,
    /// Ensembles are put together one at a time, so that no two can take each other for a step.
    pub ensembles: Mutex<()>,
    meter: Mutex<Meter>,
}

/// The right to load a version, once there is a place.
type Turn = OwnedMutexGuard<()>;

/// The right to load a version now.
pub(super) struct Slot {
    _version: Turn,
    _place: Option<OwnedSemaphorePermit>,
}

impl Loads {
    /// For so many threads that run models.
    pub fn new(workers: usize) -> Loads {
        Loads {
            versions: Mutex::default(),
            here: Arc::new(Semaphore::new(workers.clamp(*HERE.start(), *HERE.end()))),
            elsewhere: Arc::new(Semaphore::new(ELSEWHERE)),
            ensembles: Mutex::new(()),
            meter: Mutex::default(),
        }
    }

    /// Waits until this version may be loaded. Needs no runtime; cancel safe.
    pub async fn slot(&self, request: &LoadRequest) -> Slot {
        let version = self.version(request).lock_owned().await;
        Slot { _version: version, _place: self.place(request).await }
    }

    /// The same on a thread that may block.
    pub fn wait_for_slot(&self, request: &LoadRequest) -> Slot {
        wait_for(self.slot(request))
    }

    /// Waits until nobody else loads any of these versions, on a thread that may block. Each load waits for a place of its own
    /// then.
    pub fn wait_for_versions<'a>(&self, requests: impl Iterator<Item = &'a LoadRequest>) -> Vec<Turn> {
        // In one order for all, so that no two wait for each other.
        let ordered: BTreeMap<_, _> =
            requests.map(|request| ((&request.name, &request.version), request)).collect();
        ordered.into_values().map(|request| wait_for(self.version(request).lock_owned())).collect()
    }

    /// Waits until another load may begin, on a thread that may block.
    pub fn wait_for_place(&self, request: &LoadRequest) -> Option<OwnedSemaphorePermit> {
        wait_for(self.place(request))
    }

    async fn place(&self, request: &LoadRequest) -> Option<OwnedSemaphorePermit> {
        let places = match request.serving.isolation {
            // The models of its steps have been loaded.
            _ if request.ensemble.is_some() => return None,
            Isolation::None => &self.here,
            Isolation::Process => &self.elsewhere,
        };
        // Nobody closes it.
        Arc::clone(places).acquire_owned().await.ok()
    }

    fn version(&self, request: &LoadRequest) -> Arc<Turns<()>> {
        let mut versions = self.versions.lock().unwrap_or_else(PoisonError::into_inner);
        versions.retain(|_, turns| turns.strong_count() > 0);
        let known = versions.entry((request.name.clone(), request.version.clone())).or_default();
        known.upgrade().unwrap_or_else(|| {
            let turns = Arc::default();
            *known = Arc::downgrade(&turns);
            turns
        })
    }

    /// Reserves memory for a load that begins, and measures what it takes.
    pub fn begin(&self, request: &LoadRequest, file_bytes: u64) -> Load<'_> {
        let here = request.ensemble.is_none() && request.serving.isolation == Isolation::None;
        let id = self.metered(|meter, resident| meter.begin(resident, file_bytes, here));
        Load { loads: self, id }
    }

    /// Bytes that loads that go on will take at least.
    pub fn reserved(&self) -> u64 {
        self.meter.lock().unwrap_or_else(PoisonError::into_inner).reserved()
    }

    fn metered<T>(&self, note: impl FnOnce(&mut Meter, u64) -> T) -> T {
        let mut meter = self.meter.lock().unwrap_or_else(PoisonError::into_inner);
        note(&mut meter, memory::resident(std::process::id()))
    }
}

/// Waits for a future on a thread that may block, without a runtime.
pub(crate) fn wait_for<T>(future: impl Future<Output = T>) -> T {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(ready) => return ready,
            Poll::Pending => thread::park(),
        }
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// A load that goes on.
pub(super) struct Load<'a> {
    loads: &'a Loads,
    id: u64,
}

impl Load<'_> {
    /// Bytes that this process grew by for its sake.
    pub fn grown(&self) -> u64 {
        self.loads.metered(|meter, resident| meter.grown(resident, self.id))
    }
}

impl Drop for Load<'_> {
    fn drop(&mut self) {
        self.loads.metered(|meter, resident| meter.end(resident, self.id));
    }
}

/// Shares what the process grows by among the loads that go on, by the sizes of their files: the sum is right, and so
/// is a load's share that was alone.
#[derive(Default)]
struct Meter {
    /// What the process held at the last look.
    last: u64,
    running: BTreeMap<u64, Running>,
    begun: u64,
}

struct Running {
    file_bytes: u64,
    /// Whether it is in this process.
    here: bool,
    grown: i128,
}

impl Running {
    fn weight(&self) -> i128 {
        if self.here { i128::from(self.file_bytes) + 1 } else { 0 }
    }
}

impl Meter {
    fn begin(&mut self, resident: u64, file_bytes: u64, here: bool) -> u64 {
        self.look(resident);
        self.begun += 1;
        self.running.insert(self.begun, Running { file_bytes, here, grown: 0 });
        self.begun
    }

    fn grown(&mut self, resident: u64, load: u64) -> u64 {
        self.look(resident);
        let grown = self.running.get(&load).map_or(0, |running| running.grown);
        u64::try_from(grown).unwrap_or(0)
    }

    fn end(&mut self, resident: u64, load: u64) {
        self.look(resident);
        self.running.remove(&load);
    }

    fn look(&mut self, resident: u64) {
        let grown = i128::from(resident) - i128::from(self.last);
        self.last = resident;
        let total: i128 = self.running.values().map(Running::weight).sum();
        for running in self.running.values_mut().filter(|running| running.here) {
            running.grown += grown * running.weight() / total.max(1);
        }
    }

    fn reserved(&self) -> u64 {
        self.running.values().map(|running| running.file_bytes).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_process_grows_by_is_shared_among_the_loads_that_go_on() {
        let mut meter = Meter::default();
        let large = meter.begin(1_000, 299, true);
        assert_eq!(meter.grown(1_100, large), 100, "it was alone");
        let small = meter.begin(1_100, 99, true);
        let outside = meter.begin(1_100, 5_000, false);
        assert_eq!(meter.reserved(), 299 + 99 + 5_000);
        assert_eq!(meter.grown(1_500, small), 100);
        meter.end(1_500, small);
        assert_eq!(meter.grown(1_700, large), 100 + 300 + 200);
        assert_eq!(meter.grown(1_700, outside), 0, "it grows elsewhere");
        meter.end(1_000, large);
        meter.end(1_000, outside);
        assert_eq!(meter.reserved(), 0);
        let next = meter.begin(1_200, 0, true);
        assert_eq!(meter.grown(1_100, next), 0, "others gave back more than it took");
    }
}
