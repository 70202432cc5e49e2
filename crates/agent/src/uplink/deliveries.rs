//! Carries outputs between the mailbox of this hub and that of the hub above.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use api::{Delivery, client};
use daemon::Shutdown;
use futures::StreamExt;
use reqwest::Method;
use tracing::{debug, warn};

use super::Up;
use crate::parts::{Content, Sending};
use crate::{Error, inbox};

/// From how many bytes on a delivery is a large one, beside which small ones pass.
const LARGE: u64 = 1 << 20;
/// How soon what broke off is sent again, behind the others.
const BROKEN: Duration = Duration::from_secs(15);
/// How long to wait until what the hub above had no room for is sent again, and what it refused.
const FULL: Duration = Duration::from_secs(60);
const REFUSED: Duration = Duration::from_secs(600);

/// What is not to be sent before its time. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Later(Arc<Mutex<HashMap<String, Instant>>>);

impl Later {
    fn all(&self) -> MutexGuard<'_, HashMap<String, Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, id: &str, during: Duration) {
        self.all().insert(id.to_owned(), Instant::now() + during);
    }

    fn has(&self, id: &str) -> bool {
        self.all().contains_key(id)
    }

    /// Waits until the time of one has come.
    async fn next(&self) {
        let next = self.all().values().min().copied();
        match next {
            Some(next) => tokio::time::sleep_until(next.into()).await,
            None => std::future::pending().await,
        }
        let now = Instant::now();
        self.all().retain(|_, until| *until > now);
    }
}

/// Sends what is for sites that are not below this hub, until the hub above can't be reached. What it refuses, or has no
/// room for, is kept and sent again later.
pub(super) async fn send_all(up: Up, shutdown: Shutdown) -> Result<(), Error> {
    let small = send_those(&up, |delivery| delivery.size < LARGE, &shutdown);
    let large = send_those(&up, |delivery| delivery.size >= LARGE, &shutdown);
    tokio::try_join!(small, large).map(drop)
}

async fn send_those(up: &Up, fits: impl Fn(&Delivery) -> bool, shutdown: &Shutdown) -> Result<(), Error> {
    let later = &up.later;
    loop {
        let wanted = |delivery: &Delivery| fits(delivery) && !later.has(&delivery.id);
        let waiting = tokio::select! {
            () = shutdown.wait() => return Ok(()),
            () = later.next() => continue,
            waiting = up.hub.mailbox.waiting_for_parent(wanted) => waiting?,
        };
        for delivery in waiting {
            let Delivery { id, site, key, .. } = &delivery;
            let sent = tokio::select! {
                () = shutdown.wait() => return Ok(()),
                sent = send(up, &delivery) => sent,
            };
            match sent {
                Ok(()) => {
                    up.hub.mailbox.sent_to_parent(id).await?;
                    debug!(id, site, "output is at the hub above");
                }
                Err(Error::Hub(client::Error::Refused {
                    code: code @ (400 | 403 | 404 | 413),
                    message,
                    ..
                })) => {
                    warn!(id, site, key, code, message, "the hub above refused an output; it is kept");
                    later.put(id, REFUSED);
                }
                Err(Error::Hub(client::Error::Refused { code: 507, message, .. })) => {
                    debug!(id, site, message, "the hub above has no room for an output yet");
                    later.put(id, FULL);
                }
                Err(Error::Objects(error)) => {
                    warn!(id, %error, "the content of an output is lost; check the disk");
                    later.put(id, REFUSED);
                }
                Err(error) => {
                    later.put(id, BROKEN);
                    return Err(error);
                }
            }
        }
    }
}

async fn send(up: &Up, delivery: &Delivery) -> Result<(), Error> {
    let client = up.client.clone().without_patience();
    let request = || {
        let mut address = vec![
            ("bucket", delivery.bucket.clone()),
            ("key", delivery.key.clone()),
            ("digest", delivery.digest.to_string()),
        ];
        address.extend(delivery.content_type.clone().map(|kind| ("contentType", kind)));
        let path = format!("/avocet/v1/mailbox/{}/{}", delivery.site, delivery.id);
        client.request(Method::PUT, &path).query(&address)
    };
    let content = Content::Delivery(&up.hub.mailbox, &delivery.id);
    Sending { client: &client, pace: &up.pace, content, size: delivery.size }.send(request).await
}

/// Receives what is for this hub's sites, until the hub above can't be reached.
pub(super) async fn receive_all(up: Up, shutdown: Shutdown) -> Result<(), Error> {
    let address = format!("/avocet/v1/mailbox/{}", up.membership.site);
    loop {
        let waiting = tokio::select! {
            () = shutdown.wait() => return Ok(()),
            waiting = inbox::ask(&up.client, &address, |ask| ask) => waiting?,
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
    let (id, site, there) = (delivery.id.clone(), delivery.site.clone(), up.hub.delivered(&delivery));
    let undeliverable = |error: api::ApiError| Error::Undeliverable(error.message);
    // All may be here, and only not have been looked through yet.
    let (offset, body) = if there > 0 && there == delivery.size {
        (there, futures::stream::empty().boxed())
    } else {
        let (offset, response) = inbox::fetch(&up.client, &path, there).await?;
        (offset, up.client.stream(response).boxed())
    };
    if offset != there {
        up.hub.forget_delivered(&delivery).map_err(undeliverable)?;
    }
    up.hub.deliver(delivery, offset, body).await.map_err(undeliverable)?;
    up.client.send(up.client.request(Method::DELETE, &path)).await?;
    debug!(id, site, "an output from above is here");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_failed_is_left_out_until_its_time_has_come() {
        let later = Later::default();
        later.put("broken", Duration::from_millis(20));
        later.put("refused", REFUSED);
        assert!(later.has("broken") && later.has("refused") && !later.has("other"));
        later.next().await;
        assert!(!later.has("broken") && later.has("refused"));
    }
}
