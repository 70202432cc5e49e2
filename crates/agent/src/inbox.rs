//! Takes what waits for this site at the hub into its own buckets.

use std::time::Duration;

use api::{Arriving, ArrivingError, Client, Delivery, DeliveryKind};
use daemon::Shutdown;
use futures::StreamExt;
use objects::{Objects, PutOptions};
use reqwest::header::RANGE;
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde::Deserialize;
use serde_json::Value;
use tracing::debug;

use crate::offload::Offload;
use crate::{Error, Membership};

/// Long, because each question costs the uplink some bytes, and short enough for what forgets silent connections on the
/// way.
const WAIT: Duration = Duration::from_secs(120);
/// How much later than it was to the hub's answer may come.
const LATE: Duration = Duration::from_secs(15);

/// From how many bytes on a delivery goes on where it broke off.
pub(crate) const LARGE: u64 = 1 << 20;

/// What the hub has for a site.
#[derive(Deserialize)]
pub(crate) struct Waiting {
    pub deliveries: Vec<Delivery>,
    /// What other sites say; of kinds that this version may not know.
    #[serde(default)]
    pub notes: Vec<Value>,
}

/// Asks for what waits in a box, until there is something or the time is up.
pub(crate) async fn ask(
    client: &Client,
    address: &str,
    with: impl FnOnce(RequestBuilder) -> RequestBuilder,
) -> Result<Waiting, Error> {
    ask_for(WAIT, client, address, with).await
}

/// A hub that has nothing says nothing until then, so that the client's own patience must not end before.
async fn ask_for(
    wait: Duration,
    client: &Client,
    address: &str,
    with: impl FnOnce(RequestBuilder) -> RequestBuilder,
) -> Result<Waiting, Error> {
    let client = client.clone().with_patience(wait + LATE);
    let request = client.request(Method::GET, &format!("{address}?wait={}", wait.as_secs()));
    Ok(client.json(with(request).timeout(wait + LATE)).await?)
}

/// Receives until the hub can't be reached. Whatever is received twice is published once: the delivery's id is
/// the key of its publication.
pub(crate) async fn receive_all(
    client: Client,
    membership: Membership,
    objects: Objects,
    arriving: Arriving,
    offload: Offload,
    shutdown: Shutdown,
) -> Result<(), Error> {
    let address = format!("/avocet/v1/mailbox/{}", membership.site);
    arriving.give_up_old()?;
    loop {
        let waiting = tokio::select! {
            () = shutdown.wait() => return Ok(()),
            waiting = ask(&client, &address, |ask| ask.header(api::LISTENS, "1")) => waiting?,
        };
        waiting.notes.into_iter().for_each(|note| offload.note(note));
        let mut failure = None;
        for delivery in waiting.deliveries {
            let received = match delivery.kind {
                DeliveryKind::Output => receive(&client, &address, &objects, &arriving, delivery).await,
                DeliveryKind::Task | DeliveryKind::Result => offload.receive(&address, delivery).await,
            };
            match received {
                Ok(()) => {}
                // One delivery that is damaged must not hold up the others; it stays at the hub and is tried again.
                Err(
                    error
                    @ (Error::Objects(_) | Error::Artifacts(_) | Error::Disk { .. } | Error::Damaged(_)),
                ) => failure = Some(error),
                Err(error) => return Err(error),
            }
        }
        if let Some(failure) = failure {
            return Err(failure);
        }
    }
}

/// Receives what waits now, until something fails; answers how much that was.
#[cfg(test)]
pub(crate) async fn receive_some(
    client: &Client,
    site: &str,
    objects: &Objects,
    arriving: &Arriving,
) -> Result<usize, Error> {
    let address = format!("/avocet/v1/mailbox/{site}");
    let waiting = ask_for(Duration::ZERO, client, &address, |ask| ask).await?;
    let count = waiting.deliveries.len();
    for delivery in waiting.deliveries {
        receive(client, &address, objects, arriving, delivery).await?;
    }
    Ok(count)
}

/// A delivery from byte `offset` on, or from where the hub begins: those of older versions always begin at 0.
pub(crate) async fn fetch(client: &Client, path: &str, offset: u64) -> Result<(u64, Response), Error> {
    let client = client.clone().in_bulk();
    let request = client.request(Method::GET, path);
    if offset == 0 {
        return Ok((0, client.send(request).await?));
    }
    let response = client.send(request.header(RANGE, format!("bytes={offset}-"))).await?;
    let begins = if response.status() == StatusCode::PARTIAL_CONTENT { offset } else { 0 };
    Ok((begins, response))
}

async fn receive(
    client: &Client,
    address: &str,
    objects: &Objects,
    arriving: &Arriving,
    delivery: Delivery,
) -> Result<(), Error> {
    let Delivery { id, bucket, key, content_type, size, digest, .. } = delivery;
    let path = format!("{address}/{id}");
    let options = PutOptions {
        content_type,
        idempotency_key: Some(id.clone()),
        expected_length: Some(size),
        expected_digest: Some(digest),
        create_bucket: true,
        ..PutOptions::default()
    };
    if size < LARGE {
        let (_, response) = fetch(client, &path, 0).await?;
        objects.put(&bucket, &key, client.stream(response), options).await?;
    } else if objects.written_before(&id).await?.is_none() {
        let what = format!("{id} {digest}");
        gather(client, &path, arriving, &what, size, || ()).await?;
        let put = arriving.put(&what, size, objects, (&bucket, &key), options).await;
        put.map_err(|error| match error {
            ArrivingError::Beginning(error) => Error::Artifacts(error),
            ArrivingError::Object(error) => Error::Objects(error),
        })?;
    }
    client.send(client.request(Method::DELETE, &path)).await?;
    debug!(id, bucket, key, "received");
    Ok(())
}

/// Brings all of a delivery that is not here yet; what came stays, if it breaks off. Tells of each bit that `comes`.
pub(crate) async fn gather(
    client: &Client,
    path: &str,
    arriving: &Arriving,
    what: &str,
    size: u64,
    comes: impl Fn() + Send,
) -> Result<(), Error> {
    let there = arriving.received(what);
    if there >= size {
        return Ok(());
    }
    let (offset, response) = fetch(client, path, there).await?;
    if offset != there {
        arriving.forget(what)?;
    }
    let body = client.stream(response).inspect(move |_| comes());
    let received = arriving.append(what, offset, size, body).await?;
    if received < size {
        return Err(Error::Damaged(format!("{path} broke off after {received} of {size} bytes")));
    }
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::{Arc, Mutex};

    use axum::Router;
    use axum::body::{Body, Bytes};
    use axum::extract::{Query, State};
    use axum::http::HeaderMap;
    use axum::response::IntoResponse;
    use axum::routing::get;
    use tokio::net::TcpListener;

    use super::*;

    #[derive(Deserialize)]
    struct Asked {
        wait: u64,
    }

    /// Has nothing for anybody, and says so when the time is up.
    async fn idle(Query(Asked { wait }): Query<Asked>) -> &'static str {
        tokio::time::sleep(Duration::from_secs(wait)).await;
        r#"{"deliveries": []}"#
    }

    #[tokio::test]
    async fn a_hub_that_has_nothing_to_tell_is_waited_for_longer_than_one_that_owes_an_answer() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let hub = axum::serve(listener, Router::new().route("/box", get(idle)));
        let client = Client::new(&url, "", None).unwrap().with_patience(Duration::from_millis(100));
        let asked = ask_for(Duration::from_secs(1), &client, "/box", |ask| ask);
        let waiting = tokio::select! {
            ended = hub.into_future() => panic!("the hub ended: {ended:?}"),
            waiting = asked => waiting.unwrap(),
        };
        assert!(waiting.deliveries.is_empty());
        assert!(WAIT > crate::identity::PATIENCE, "else there is nothing to see here");
    }

    /// Gives a delivery of two mebibytes: at first only its beginning, and later only what is asked for.
    #[derive(Clone, Default)]
    pub(crate) struct Giving {
        pub asked: Arc<Mutex<Vec<String>>>,
        pub confirmed: Arc<AtomicBool>,
    }

    pub(crate) const SIZE: usize = 2 << 20;

    pub(crate) fn content() -> Vec<u8> {
        (0..SIZE).map(|index| (index % 251) as u8).collect()
    }

    async fn give(State(giving): State<Giving>, headers: HeaderMap) -> axum::response::Response {
        let range = headers.get(RANGE).map(|range| range.to_str().unwrap().to_owned()).unwrap_or_default();
        giving.asked.lock().unwrap().push(range.clone());
        let content = content();
        if range.is_empty() {
            let beginning =
                [Ok(Bytes::from(content[..SIZE / 2].to_vec())), Err(std::io::Error::other("it broke"))];
            return Body::from_stream(futures::stream::iter(beginning)).into_response();
        }
        let from: usize = range.strip_prefix("bytes=").unwrap().strip_suffix('-').unwrap().parse().unwrap();
        (StatusCode::PARTIAL_CONTENT, content[from..].to_vec()).into_response()
    }

    async fn confirm(State(giving): State<Giving>) -> StatusCode {
        giving.confirmed.store(true, Ordering::SeqCst);
        StatusCode::NO_CONTENT
    }

    impl Giving {
        /// The hub, and the client of one who asks it for `/box/d1`.
        pub(crate) async fn serve(&self) -> (impl Future<Output = std::io::Result<()>>, Client) {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let url = format!("http://{}", listener.local_addr().unwrap());
            let router = Router::new().route("/box/d1", get(give).delete(confirm)).with_state(self.clone());
            (axum::serve(listener, router).into_future(), Client::new(&url, "", None).unwrap())
        }
    }

    #[tokio::test]
    async fn a_large_delivery_goes_on_where_it_broke_off_also_after_a_restart() {
        let giving = Giving::default();
        let (hub, client) = giving.serve().await;
        let folder = tempfile::tempdir().unwrap();
        let ledger = store::Ledger::memory().unwrap();
        let objects = Objects::open(folder.path(), ledger).unwrap();
        let delivery: Delivery = serde_json::from_value(serde_json::json!({
            "id": "d1", "bucket": "photos", "key": "out/1", "size": SIZE, "digest": types::Digest::of(&content()),
        }))
        .unwrap();
        let received = async {
            let mut results = Vec::new();
            for _ in 0..3 {
                let arriving = Arriving::open(&folder.path().join("arriving")).unwrap();
                results.push(receive(&client, "/box", &objects, &arriving, delivery.clone()).await.is_ok());
            }
            results
        };
        let results = tokio::select! {
            ended = hub => panic!("the hub ended: {ended:?}"),
            results = received => results,
        };
        assert_eq!(results, [false, true, true]);
        let asked = giving.asked.lock().unwrap().clone();
        assert_eq!(
            asked,
            [String::new(), format!("bytes={}-", SIZE / 2)],
            "what is here is not fetched again"
        );
        assert!(giving.confirmed.load(Ordering::SeqCst));
        let (_, bytes) = objects.read_bytes("photos", "out/1", 4 << 20).await.unwrap();
        assert!(bytes == content());
    }
}
