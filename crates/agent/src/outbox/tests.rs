//! The outbox towards a hub that breaks off, refuses and has no room.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use api::Client;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path as Named, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::put;
use daemon::Tasks;
use futures::StreamExt;
use tokio::net::TcpListener;

use super::*;

/// What a hub took, and how it behaves.
#[derive(Clone, Default)]
struct TestHub(Arc<State_>);

#[derive(Default)]
struct State_ {
    taken: Mutex<BTreeMap<String, Vec<u8>>>,
    arriving: Mutex<BTreeMap<String, Vec<u8>>>,
    /// All bytes that ever came.
    bytes: AtomicUsize,
    /// How often it was asked.
    asked: AtomicUsize,
    /// Breaks off now and then after half of a part.
    breaks: bool,
    /// Sites that are gone, and those whose boxes are full.
    gone: Mutex<HashSet<String>>,
    full: HashSet<String>,
}

#[derive(Deserialize)]
struct Asked {
    offset: Option<usize>,
    size: Option<usize>,
}

async fn take(
    State(hub): State<TestHub>,
    Named((site, id)): Named<(String, String)>,
    Query(Asked { offset, size }): Query<Asked>,
    body: Body,
) -> Response {
    let hub = &hub.0;
    let asked = hub.asked.fetch_add(1, Ordering::SeqCst);
    if hub.gone.lock().unwrap().contains(&site) {
        let said = serde_json::json!({"message": format!("sites {site:?} not found")});
        return (StatusCode::NOT_FOUND, said.to_string()).into_response();
    }
    if hub.full.contains(&site) {
        return StatusCode::INSUFFICIENT_STORAGE.into_response();
    }
    let came: Vec<Bytes> = body.into_data_stream().map(Result::unwrap).collect().await;
    let mut came = came.concat();
    hub.bytes.fetch_add(came.len(), Ordering::SeqCst);
    let (Some(offset), Some(size)) = (offset, size) else {
        hub.taken.lock().unwrap().insert(id, came);
        return StatusCode::NO_CONTENT.into_response();
    };
    let mut arriving = hub.arriving.lock().unwrap();
    let there = arriving.entry(id.clone()).or_default();
    if there.len() == offset && offset == size {
        hub.taken.lock().unwrap().insert(id, there.clone());
        return StatusCode::NO_CONTENT.into_response();
    }
    let breaks = hub.breaks && !came.is_empty() && asked % 3 == 2;
    if breaks {
        came.truncate(came.len() / 2);
    }
    if there.len() == offset {
        there.append(&mut came);
    }
    if breaks {
        return StatusCode::BAD_GATEWAY.into_response();
    }
    (StatusCode::ACCEPTED, serde_json::json!({"received": there.len()}).to_string()).into_response()
}

struct Setting {
    outbox: Outbox,
    client: Client,
    hub: TestHub,
    tasks: Tasks,
    _folder: tempfile::TempDir,
}

impl Setting {
    async fn with(hub: State_) -> Self {
        let (hub, tasks) = (TestHub(Arc::new(hub)), Tasks::default());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new().route("/avocet/v1/mailbox/{site}/{id}", put(take)).with_state(hub.clone());
        let shutdown = tasks.shutdown();
        tasks.spawn("hub", async move {
            let ends = async move { shutdown.wait().await };
            axum::serve(listener, router).with_graceful_shutdown(ends).await.unwrap();
        });
        let folder = tempfile::tempdir().unwrap();
        let outbox = Outbox::open(Ledger::memory().unwrap(), folder.path().to_owned()).unwrap();
        let client = Client::new(&url, "", None).unwrap();
        Self { outbox, client, hub, tasks, _folder: folder }
    }

    async fn add(&self, id: &str, site: &str, content: &[u8]) {
        std::fs::write(self.outbox.file(id), content).unwrap();
        let parcel = Parcel {
            id: id.to_owned(),
            assignment: "a".to_owned(),
            site: site.to_owned(),
            bucket: "photos".to_owned(),
            key: format!("out/{id}"),
            digest: Digest::of(content),
            size: content.len() as u64,
            result: None,
        };
        self.outbox.add(vec![parcel]).await.unwrap();
    }

    fn taken(&self) -> Vec<String> {
        self.hub.0.taken.lock().unwrap().keys().cloned().collect()
    }

    /// Sends until this is so.
    async fn send_until(&self, is_so: impl Fn(&Self) -> bool) {
        let mut changed = self.outbox.subscribe();
        let sending = async {
            loop {
                // As it is supervised: again after each failure.
                let _ = send_all(self.client.clone(), self.outbox.clone(), self.tasks.shutdown()).await;
            }
        };
        let seen = async {
            while !is_so(self) {
                changed.changed().await.unwrap();
            }
        };
        tokio::select! {
            () = sending => {}
            () = seen => {}
            () = tokio::time::sleep(Duration::from_secs(60)) => panic!("never so; the hub has {:?}", self.taken()),
        }
    }

    fn left(&self) -> u64 {
        self.outbox.count("a")
    }
}

#[tokio::test]
async fn a_large_output_goes_on_where_it_broke_off_and_small_ones_pass_it() {
    let setting = Setting::with(State_ { breaks: true, ..State_::default() }).await;
    let content: Vec<u8> = (0..3_000_000_u32).map(|number| (number % 251) as u8).collect();
    setting.add("large", "shop", &content).await;
    setting.add("small", "shop", b"small").await;
    setting.send_until(|setting| setting.left() == 0).await;
    assert_eq!(setting.taken(), ["large", "small"]);
    assert!(setting.hub.0.taken.lock().unwrap()["large"] == content);
    let bytes = setting.hub.0.bytes.load(Ordering::SeqCst);
    assert!(bytes < 2 * content.len(), "{bytes} bytes were sent for {}", content.len());
    assert_eq!(setting.outbox.ids().unwrap().len(), 0);
}

#[tokio::test]
async fn a_box_that_is_full_holds_up_nothing_for_others() {
    let setting =
        Setting::with(State_ { full: HashSet::from(["full".to_owned()]), ..State_::default() }).await;
    for number in 0..5 {
        setting.add(&format!("f{number}"), "full", b"later").await;
    }
    setting.add("other", "shop", b"now").await;
    setting.send_until(|setting| setting.left() == 5).await;
    assert_eq!(setting.taken(), ["other"]);
    assert_eq!(setting.hub.0.asked.load(Ordering::SeqCst), 2, "it is not asked about each");
    assert_eq!(setting.outbox.status().refused, 0);
}

#[tokio::test]
async fn what_the_hub_refuses_is_kept_and_told_and_sent_once_it_is_taken() {
    let gone = Mutex::new(HashSet::from(["shop".to_owned()]));
    let setting = Setting::with(State_ { gone, ..State_::default() }).await;
    for number in 0..3 {
        setting.add(&format!("p{number}"), "shop", b"kept").await;
    }
    assert_eq!(setting.outbox.status(), OutputsStatus::default());
    setting.send_until(|setting| setting.outbox.ids().unwrap().is_empty()).await;
    let status = setting.outbox.status();
    assert_eq!(status.refused, 3);
    assert!(status.reason.contains("\"shop\" not found"), "{status:?}");
    assert!(is_news(&OutputsStatus::default(), &status));
    assert!(setting.outbox.text().contains("\navocet_outbox_refused_outputs 3\n"));
    assert_eq!(setting.left(), 3);

    let asked = setting.hub.0.asked.load(Ordering::SeqCst);
    setting.outbox.retry_some_refused().await.unwrap();
    setting.send_until(|setting| setting.outbox.ids().unwrap().is_empty()).await;
    assert_eq!(setting.hub.0.asked.load(Ordering::SeqCst), asked + 1, "one of its like is enough");
    setting.hub.0.gone.lock().unwrap().clear();
    setting.outbox.retry_some_refused().await.unwrap();
    setting.send_until(|setting| setting.left() == 0).await;
    assert_eq!(setting.taken(), ["p0", "p1", "p2"]);
    setting.tasks.end(Duration::from_secs(1)).await;
}

#[tokio::test]
async fn the_oldest_comes_first_and_what_failed_after_all_others() {
    let setting = Setting::with(State_::default()).await;
    // Another way round than their ids are.
    for id in ["c", "b", "a"] {
        setting.add(id, "shop", id.as_bytes()).await;
    }
    setting.add("c", "shop", b"c").await;
    let mut turns = Vec::new();
    for _ in 0..4 {
        turns.push(setting.outbox.next(Size::Small).unwrap().unwrap().parcel.id);
    }
    assert_eq!(turns, ["c", "b", "a", "c"]);
    assert!(setting.outbox.next(Size::Large).unwrap().is_none());
}

#[tokio::test]
async fn outputs_of_older_versions_have_their_turn_and_are_late() {
    let ledger = Ledger::memory().unwrap();
    let parcel = serde_json::json!({
        "id": "old", "assignment": "a", "site": "shop", "bucket": "b", "key": "k", "digest": Digest::of(b"x"), "size": 1,
    });
    ledger.write(move |tables| tables.put(TABLE, "old", &parcel)).await.unwrap();
    let outbox = Outbox::open(ledger, PathBuf::new()).unwrap();
    outbox.begin().await.unwrap();
    assert_eq!(outbox.next(Size::Small).unwrap().unwrap().parcel.id, "old");
    let status = outbox.status();
    assert_eq!((status.late, status.late_bytes), (1, 1));
}
