//! Following the changes of all buckets.

use crate::{Change, Error, Objects, records};

impl Objects {
    /// Up to `limit` changes after a sequence number, in order, none left out. A new consumer begins at
    /// [`Objects::trimmed`].
    ///
    /// # Errors
    /// `Trimmed` if some of them are forgotten.
    pub async fn changes(&self, after: u64, limit: usize) -> Result<Vec<Change>, Error> {
        self.read(move |tables| records::changes(tables, after, limit)).await
    }

    /// The sequence number of the latest change; 0 before the first.
    pub fn latest_sequence(&self) -> u64 {
        *self.0.latest.borrow()
    }

    /// Waits until there are changes after a sequence number; answers with the latest. Cancel safe.
    pub async fn changed_after(&self, sequence: u64) -> u64 {
        let mut latest = self.0.latest.subscribe();
        // The guard must not live across the next await.
        let seen = latest.wait_for(|latest| *latest > sequence).await.map(|latest| *latest);
        match seen {
            Ok(latest) => latest,
            // Never: `self` holds the sender.
            Err(_) => std::future::pending().await,
        }
    }

    /// Forgets the changes up to and with a sequence number, once their consumer needs them no more.
    ///
    /// # Errors
    /// If the records can't be written.
    pub async fn trim_changes(&self, up_to: u64) -> Result<(), Error> {
        while self.0.ledger.write(move |tables| records::trim_some(tables, up_to)).await? {}
        Ok(())
    }

    /// Up to where changes were trimmed; 0 if never.
    ///
    /// # Errors
    /// If the records can't be read.
    pub async fn trimmed(&self) -> Result<u64, Error> {
        self.read(records::trimmed).await
    }
}
