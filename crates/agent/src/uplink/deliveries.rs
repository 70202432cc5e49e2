//! Carries outputs between the mailbox of this hub and that of the hub above.

use std::collections::HashSet;
use std::time::Duration;

use api::{Delivery, client};
use daemon::Shutdown;
use futures::StreamExt;
use reqwest::Method;
use serde::Deserialize;
use tokio_util::io::ReaderStream;
use tracing::{debug, warn};

use super::Up;
use crate::Error;
use crate::inbox::WAIT_SECONDS;

const LONGEST_SEND: Duration = Duration::from_secs(3600);

/// Sends what is for sites that are not below this hub, until the hub above can't be reached. What it refuses is kept,
/// and sent again after the next start.
pub(super) async fn send_all(up: Up, shutdown: Shutdown) -> Result<(), Error> {
    let mut refused = HashSet::new();
    loop {
        let waiting = tokio::select! {
            () = shutdown.wait() => return Ok(()),
            waiting = up.hub.mailbox.waiting_for_parent(&refused) => waiting?,
        };
        for delivery in waiting {
            match send(&up, &delivery).await {
                Ok(()) => {
                    up.hub.mailbox.sent_to_parent(&delivery.id).await?;
                    debug!(id = delivery.id, site = delivery.site, "output is at the hub above");
                }
                Err(Error::Hub(client::Error::Refused {
                    code: code @ (400 | 403 | 404 | 413),
                    message,
                    ..
                })) => {
                    let Delivery { id, site, key, .. } = delivery;
                    warn!(id, site, key, code, message, "the hub above refused an output; it is kept");
                    refused.insert(id);
                }
                Err(Error::Objects(error)) => {
                    warn!(id = delivery.id, %error, "the content of an output is lost; check the disk");
                    refused.insert(delivery.id);
                }
                Err(error) => return Err(error),
            }
        }
    }
}

async fn send(up: &Up, delivery: &Delivery) -> Result<(), Error> {
    let file = up.hub.mailbox.open_for_parent(&delivery.id).await?;
    let mut address = vec![
        ("bucket", delivery.bucket.clone()),
        ("key", delivery.key.clone()),
        ("digest", delivery.digest.to_string()),
    ];
    address.extend(delivery.content_type.clone().map(|kind| ("contentType", kind)));
    let request = up
        .client
        .request(Method::PUT, &format!("/avocet/v1/mailbox/{}/{}", delivery.site, delivery.id))
        .query(&address)
        .header("content-length", delivery.size)
        .timeout(LONGEST_SEND)
        .body(reqwest::Body::wrap_stream(ReaderStream::new(file)));
    up.client.send(request).await?;
    Ok(())
}

#[derive(Deserialize)]
struct Waiting {
    deliveries: Vec<Delivery>,
}

/// Receives what is for this hub's sites, until the hub above can't be reached.
pub(super) async fn receive_all(up: Up, shutdown: Shutdown) -> Result<(), Error> {
    let address = format!("/avocet/v1/mailbox/{}", up.membership.site);
    loop {
        let ask = up
            .client
            .request(Method::GET, &format!("{address}?wait={WAIT_SECONDS}"))
            .timeout(Duration::from_secs(WAIT_SECONDS + 15));
        let waiting: Waiting = tokio::select! {
            () = shutdown.wait() => return Ok(()),
            waiting = up.client.json(ask) => waiting?,
        };
        let mut failure = None;
        for delivery in waiting.deliveries {
            // One that can't be delivered must not hold up the others; it stays above and is tried again.
            if let Err(error) = receive(&up, &address, delivery).await {
                failure = Some(error);
            }
        }
        if let Some(failure) = failure {
            return Err(failure);
        }
    }
}

async fn receive(up: &Up, address: &str, delivery: Delivery) -> Result<(), Error> {
    let path = format!("{address}/{}", delivery.id);
    let response = up.client.send(up.client.request(Method::GET, &path)).await?;
    let body = up.client.stream(response).boxed();
    let (id, site) = (delivery.id.clone(), delivery.site.clone());
    up.hub.deliver(delivery, body).await.map_err(|error| Error::Undeliverable(error.message))?;
    up.client.send(up.client.request(Method::DELETE, &path)).await?;
    debug!(id, site, "an output from above is here");
    Ok(())
}
