//! The attempts of other sites that this one took, on its disk.

use serde::{Deserialize, Serialize};
use store::ledger::{self, Ledger};
use types::{Assignment, AssignmentSpec, ObjectMeta, Time};

use crate::invocations::{Input, Invocation};

const TABLE: &str = "guests";

/// An attempt of another site.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Guest {
    pub attempt: String,
    /// The other site.
    pub from: String,
    /// Proves towards the hub that the result was asked for.
    pub ticket: String,
    /// The name of the assignment at both sites, and what the other one was assigned.
    pub assignment: String,
    pub spec: AssignmentSpec,
    pub invocation: String,
    pub bucket: String,
    pub key: String,
    pub etag: String,
    /// When it was taken.
    pub taken: Time,
    /// How often it was started here.
    pub runs: u32,
}

impl Guest {
    /// What was assigned, as if to this site.
    pub(super) fn assignment(&self, site: &str) -> Assignment {
        let metadata =
            ObjectMeta { name: self.assignment.clone(), namespace: site.to_owned(), ..ObjectMeta::default() };
        Assignment::new(metadata, self.spec.clone())
    }

    /// The invocation, under the attempt's name: folders and logs here go by that.
    pub(super) fn invocation(&self, assignment: &Assignment) -> Option<Invocation> {
        let input = Input { bucket: self.bucket.clone(), key: self.key.clone(), etag: self.etag.clone() };
        let invocation = Invocation::new(assignment, input, self.taken)?;
        Some(Invocation { id: self.attempt.clone(), ..invocation })
    }
}

/// All of them. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Guests(Ledger);

impl Guests {
    pub(crate) fn open(ledger: Ledger) -> Self {
        Self(ledger)
    }

    pub(crate) fn all(&self) -> Result<Vec<Guest>, ledger::Error> {
        let rows: Vec<(String, Guest)> = self.0.read(|tables| tables.range(TABLE, "", "", usize::MAX))?;
        Ok(rows.into_iter().map(|(_, guest)| guest).collect())
    }

    pub(super) fn has(&self, attempt: &str) -> Result<bool, ledger::Error> {
        Ok(self.0.read(|tables| tables.get::<Guest>(TABLE, attempt))?.is_some())
    }

    pub(super) async fn put(&self, guest: &Guest) -> Result<(), ledger::Error> {
        let guest = guest.clone();
        self.0.write(move |tables| tables.put(TABLE, &guest.attempt, &guest)).await
    }

    pub(super) async fn remove(&self, attempt: &str) -> Result<(), ledger::Error> {
        let attempt = attempt.to_owned();
        self.0.write(move |tables| tables.delete(TABLE, &attempt).map(drop)).await
    }
}
