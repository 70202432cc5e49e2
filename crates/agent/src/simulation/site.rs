//! A site's outbox, inbox and buckets over a folder that outlives them.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use api::{Arriving, Client};
use daemon::Tasks;
use objects::Objects;
use store::Ledger;
use types::Digest;

use crate::inbox;
use crate::outbox::{Outbox, Parcel, send_all};

const ASSIGNMENT: &str = "a";
const BUCKET: &str = "photos";

pub struct TestSite {
    name: String,
    outbox: Outbox,
    objects: Objects,
    arriving: Arriving,
    tasks: Tasks,
}

impl TestSite {
    pub fn open(name: &str, folder: &Path) -> Self {
        let outbox = folder.join("outbox");
        std::fs::create_dir_all(&outbox).unwrap();
        let ledger = Ledger::open(&folder.join("site.db")).unwrap();
        Self {
            name: name.to_owned(),
            outbox: Outbox::open(ledger.clone(), outbox).unwrap(),
            objects: Objects::open(&folder.join("objects"), ledger).unwrap(),
            arriving: Arriving::open(&folder.join("arriving")).unwrap(),
            tasks: Tasks::default(),
        }
    }

    /// Puts an output for a site into the outbox.
    pub async fn make(&self, id: &str, site: &str, content: &[u8]) {
        std::fs::write(self.outbox.file(id), content).unwrap();
        let parcel = Parcel {
            id: id.to_owned(),
            assignment: ASSIGNMENT.to_owned(),
            site: site.to_owned(),
            bucket: BUCKET.to_owned(),
            key: format!("out/{id}"),
            digest: Digest::of(content),
            size: content.len() as u64,
            result: None,
        };
        self.outbox.add(vec![parcel]).await.unwrap();
    }

    /// Sends until all is sent or something fails; answers how many the hub took.
    pub async fn send(&self, client: &Client) -> usize {
        let before = self.to_be_sent().len();
        let mut changed = self.outbox.subscribe();
        let is_sent = async {
            while self.outbox.count(ASSIGNMENT) > 0 {
                changed.changed().await.unwrap();
            }
        };
        tokio::select! {
            biased;
            () = is_sent => {}
            _ = send_all(client.clone(), self.outbox.clone(), self.tasks.shutdown()) => {}
            () = tokio::time::sleep(Duration::from_secs(60)) => panic!("{} never ends to send", self.name),
        }
        before - self.to_be_sent().len()
    }

    /// Receives what waits, until something fails; answers how many came.
    pub async fn receive(&self, client: &Client) -> usize {
        let mut count = 0;
        while let Ok(some @ 1..) =
            inbox::receive_some(client, &self.name, &self.objects, &self.arriving).await
        {
            count += some;
        }
        count
    }

    /// The ids of what is in the outbox.
    pub fn to_be_sent(&self) -> Vec<String> {
        let mut ids: Vec<String> = self.outbox.ids().unwrap().into_iter().collect();
        ids.sort();
        ids
    }

    /// What a component here would be told of: each object as often as its bucket changed, by the id of its output.
    pub async fn arrived(&self) -> BTreeMap<String, Vec<Vec<u8>>> {
        let mut arrived = BTreeMap::<String, Vec<Vec<u8>>>::new();
        for change in self.objects.changes(0, usize::MAX).await.unwrap() {
            let (_, bytes) = self.objects.read_bytes(BUCKET, &change.key, 1 << 20).await.unwrap();
            let id = change.key.trim_start_matches("out/").to_owned();
            arrived.entry(id).or_default().push(bytes.to_vec());
        }
        arrived
    }
}
