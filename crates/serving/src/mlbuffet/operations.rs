//! Counters of requests, as MLBuffet has them.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// What a request is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    Prediction,
    Test,
    Training,
    Storage,
}

/// How many there were of each.
#[derive(Default)]
pub(crate) struct Operations {
    predictions: AtomicU64,
    tests: AtomicU64,
    trainings: AtomicU64,
    storage: AtomicU64,
}

impl Operations {
    pub(super) fn count(&self, operation: Operation) {
        let counter = match operation {
            Operation::Prediction => &self.predictions,
            Operation::Test => &self.tests,
            Operation::Training => &self.trainings,
            Operation::Storage => &self.storage,
        };
        counter.fetch_add(1, Relaxed);
    }

    /// Names, what they are, and counts.
    pub(crate) fn read(&self) -> [(&'static str, &'static str, u64); 4] {
        let (predictions, tests) = (self.predictions.load(Relaxed), self.tests.load(Relaxed));
        let (trainings, storage) = (self.trainings.load(Relaxed), self.storage.load(Relaxed));
        [
            ("model_request_operations_total", "Predictions that MLBuffet's clients asked for", predictions),
            ("test_request_operations_total", "Requests for /api/test", tests),
            (
                "model_training_operations_total",
                "Trainings that were asked for; none is offered here",
                trainings,
            ),
            (
                "storage_request_operations_total",
                "Requests that list, bring, fetch or change uploaded models",
                storage,
            ),
        ]
    }
}
