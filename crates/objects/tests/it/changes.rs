//! Following changes: nothing is missed, nothing comes twice.

use std::time::Duration;

use avocet_objects::{Change, ChangeKind, Error, Objects};

use super::Site;

async fn all_after(objects: &Objects, mut after: u64) -> Vec<Change> {
    let mut all = Vec::new();
    loop {
        let page = objects.changes(after, 7).await.unwrap();
        let Some(last) = page.last() else { return all };
        after = last.sequence;
        all.extend(page);
    }
}

#[tokio::test]
async fn each_change_comes_once_in_order_across_restarts_and_trims() {
    let mut site = Site::new().await;
    let mut seen = Vec::new();
    for round in 0..5_u64 {
        for number in 0..10 {
            site.put(&format!("{round}/{number}"), "x").await;
        }
        site.objects.delete("data", &format!("{round}/3")).await.unwrap();
        let after = seen.last().map_or(0, |change: &Change| change.sequence);
        let new = all_after(&site.objects, after).await;
        assert_eq!(new.len(), 11);
        seen.extend(new);
        if round % 2 == 0 {
            site.objects.trim_changes((round + 1) * 11).await.unwrap();
        }
        site = site.reopened();
        assert_eq!(site.objects.latest_sequence(), (round + 1) * 11);
    }
    let sequences: Vec<u64> = seen.iter().map(|change| change.sequence).collect();
    assert_eq!(sequences, (1..=55).collect::<Vec<_>>());
    let deleted = &seen[10];
    assert_eq!((deleted.kind, deleted.key.as_str(), deleted.size), (ChangeKind::Delete, "0/3", 1));
    assert_eq!(seen.iter().filter(|change| change.kind == ChangeKind::Put).count(), 50);
}

#[tokio::test]
async fn changes_that_were_trimmed_are_not_passed_over_in_silence() {
    let site = Site::new().await;
    for number in 0..5 {
        site.put(&number.to_string(), "x").await;
    }
    site.objects.trim_changes(3).await.unwrap();
    assert!(matches!(site.objects.changes(2, 10).await, Err(Error::Trimmed { after: 2, trimmed: 3 })));
    let from = site.objects.trimmed().await.unwrap();
    assert_eq!(site.objects.changes(from, 10).await.unwrap().len(), 2);
    site.objects.trim_changes(u64::MAX).await.unwrap();
    assert_eq!(site.objects.trimmed().await.unwrap(), 5);
    assert_eq!(site.put("next", "x").await.sequence, 6);
}

#[tokio::test]
async fn a_follower_is_woken_by_each_write() {
    let site = Site::new().await;
    let follow = async {
        let mut seen = 0;
        while seen < 20 {
            site.objects.changed_after(seen).await;
            for change in site.objects.changes(seen, 100).await.unwrap() {
                assert_eq!(change.sequence, seen + 1);
                seen = change.sequence;
            }
        }
    };
    let write = async {
        for number in 0..20 {
            site.put(&number.to_string(), "x").await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), async { tokio::join!(follow, write) }).await.unwrap();
}

#[tokio::test]
async fn many_writers_leave_no_gap() {
    let site = Site::new().await;
    let writes = (0..100).map(|number| site.put_owned(format!("{}", number % 10)));
    futures::future::join_all(writes).await;
    let changes = site.objects.changes(0, 1000).await.unwrap();
    assert!(changes.iter().zip(1..).all(|(change, number)| change.sequence == number));
    assert_eq!(changes.len(), 100);
    site.wait_for_files(10).await;
}

impl Site {
    async fn put_owned(&self, key: String) {
        self.put(&key, &key).await;
    }
}
