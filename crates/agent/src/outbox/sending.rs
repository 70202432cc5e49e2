//! Sends what is in the outbox: the oldest first, large ones beside small ones, and what failed after all others.

use std::io::ErrorKind;
use std::time::Duration;

use api::{Client, client};
use daemon::Shutdown;
use reqwest::Method;
use tracing::{debug, error, warn};

use super::{Outbox, Parcel, Size};
use crate::Error;
use crate::parts::{Content, Sending};

/// How long to wait until a box that was full is tried again.
const FULL: Duration = Duration::from_secs(60);
/// How often one of those that were refused is tried again, for each site and assignment.
const REFUSED: Duration = Duration::from_secs(600);

/// Sends what is in the outbox, and what comes into it, until the hub can't be reached.
pub(crate) async fn send_all(client: Client, outbox: Outbox, shutdown: Shutdown) -> Result<(), Error> {
    // What is sent has time limits of its own, by parts.
    let client = client.without_patience();
    let lane = |size| send_those(&client, &outbox, size, &shutdown);
    tokio::try_join!(lane(Size::Small), lane(Size::Large), retry(&outbox, &shutdown)).map(drop)
}

/// Other times, other answers: a site may be there again, or an application.
async fn retry(outbox: &Outbox, shutdown: &Shutdown) -> Result<(), Error> {
    while shutdown.sleep(REFUSED).await {
        outbox.retry_some_refused().await?;
    }
    Ok(())
}

async fn send_those(client: &Client, outbox: &Outbox, size: Size, shutdown: &Shutdown) -> Result<(), Error> {
    let mut changed = outbox.subscribe();
    while !shutdown.is_due() {
        changed.borrow_and_update();
        let Some(kept) = outbox.next(size)? else {
            tokio::select! {
                () = shutdown.wait() => return Ok(()),
                _ = changed.changed() => {}
                () = tokio::time::sleep(FULL) => {}
            }
            continue;
        };
        let Parcel { id, site, key, .. } = &kept.parcel;
        let sent = tokio::select! {
            () = shutdown.wait() => return Ok(()),
            sent = send(client, outbox, &kept.parcel) => sent,
        };
        match sent {
            Ok(()) => {
                debug!(id, site, key, "output is at the hub");
                outbox.done(kept).await?;
            }
            Err(Error::Hub(client::Error::Refused { code: 400 | 403 | 404 | 413, message, .. }))
                if kept.parcel.result.is_some() =>
            {
                debug!(id, site, message, "nobody waits for what was run for another site");
                outbox.done(kept).await?;
            }
            Err(Error::Hub(client::Error::Refused {
                code: code @ (400 | 403 | 404 | 413), message, ..
            })) => {
                if kept.refusal.is_none() {
                    warn!(
                        id,
                        site, key, code, message, "the hub refused an output; it is kept and tried again"
                    );
                }
                outbox.refused(kept, &message).await?;
            }
            // Others go to other boxes, and this one may be taken later.
            Err(Error::Hub(client::Error::Refused { code: 507, message, .. })) => {
                debug!(id, site, message, "there is no room for an output yet");
                outbox.is_full(site, FULL);
            }
            // One parcel whose file is lost must not hold up the others for ever.
            Err(Error::Disk { path, source }) if source.kind() == ErrorKind::NotFound => {
                error!(id, path = %path.display(), "the content of an output is lost; check the disk");
                outbox.refused(kept, &format!("its content, {}, is lost", path.display())).await?;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

async fn send(client: &Client, outbox: &Outbox, parcel: &Parcel) -> Result<(), Error> {
    let Parcel { id, site, .. } = parcel;
    let request = || {
        let request = match &parcel.result {
            None => client
                .request(Method::PUT, &format!("/avocet/v1/mailbox/{site}/{id}"))
                .query(&[("bucket", &parcel.bucket), ("key", &parcel.key)]),
            Some(result) => client
                .request(Method::PUT, &format!("/avocet/v1/offload/{}/results/{site}/{id}", result.site))
                .query(&[("ticket", &result.ticket)]),
        };
        request.query(&[("digest", parcel.digest.to_string())])
    };
    let file = outbox.file(id);
    Sending { client, pace: &outbox.pace, content: Content::File(&file), size: parcel.size }
        .send(request)
        .await
}
