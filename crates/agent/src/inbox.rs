//! Takes what waits for this site at the hub into its own buckets.

use std::time::Duration;

use api::{Client, Delivery, DeliveryKind};
use daemon::Shutdown;
use objects::{Objects, PutOptions};
use reqwest::Method;
use serde::Deserialize;
use serde_json::Value;
use tracing::debug;

use crate::offload::Offload;
use crate::{Error, Membership};

/// Long, because each question costs the uplink some bytes, and short enough for what forgets silent connections on the
/// way.
pub(crate) const WAIT_SECONDS: u64 = 120;

#[derive(Deserialize)]
struct Waiting {
    deliveries: Vec<Delivery>,
    /// What other sites say; of kinds that this version may not know.
    #[serde(default)]
    notes: Vec<Value>,
}

/// Receives until the hub can't be reached. Whatever is received twice is published once: the delivery's id is
/// the key of its publication.
pub(crate) async fn receive_all(
    client: Client,
    membership: Membership,
    objects: Objects,
    offload: Offload,
    shutdown: Shutdown,
) -> Result<(), Error> {
    let address = format!("/avocet/v1/mailbox/{}", membership.site);
    loop {
        let ask = client
            .request(Method::GET, &format!("{address}?wait={WAIT_SECONDS}"))
            .header(api::LISTENS, "1")
            .timeout(Duration::from_secs(WAIT_SECONDS + 15));
        let waiting: Waiting = tokio::select! {
            () = shutdown.wait() => return Ok(()),
            waiting = client.json(ask) => waiting?,
        };
        waiting.notes.into_iter().for_each(|note| offload.note(note));
        let mut failure = None;
        for delivery in waiting.deliveries {
            let received = match delivery.kind {
                DeliveryKind::Output => receive(&client, &address, &objects, delivery).await,
                DeliveryKind::Task | DeliveryKind::Result => offload.receive(&address, delivery).await,
            };
            match received {
                Ok(()) => {}
                // One delivery that is damaged must not hold up the others; it stays at the hub and is tried again.
                Err(error @ (Error::Objects(_) | Error::Disk { .. } | Error::Damaged(_))) => {
                    failure = Some(error)
                }
                Err(error) => return Err(error),
            }
        }
        if let Some(failure) = failure {
            return Err(failure);
        }
    }
}

async fn receive(client: &Client, address: &str, objects: &Objects, delivery: Delivery) -> Result<(), Error> {
    let Delivery { id, bucket, key, content_type, size, digest, .. } = delivery;
    let response = client.send(client.request(Method::GET, &format!("{address}/{id}"))).await?;
    let body = client.stream(response);
    let options = PutOptions {
        content_type,
        idempotency_key: Some(id.clone()),
        expected_length: Some(size),
        expected_digest: Some(digest),
        create_bucket: true,
        ..PutOptions::default()
    };
    objects.put(&bucket, &key, body, options).await?;
    client.send(client.request(Method::DELETE, &format!("{address}/{id}"))).await?;
    debug!(id, bucket, key, "received");
    Ok(())
}
