//! Tells the hub that the site lives and what it has, and keeps the site's certificate fresh.

use std::time::{Duration, Instant};

use api::{Client, Heartbeat, HeartbeatAnswer, client};
use daemon::Shutdown;
use reqwest::Method;
use tracing::warn;
use types::{Kind, MeasuredLocation, SiteSpec, SiteStatus};

use crate::facts;
use crate::identity::Identity;
use crate::links::{self, Links};
use crate::{Error, Membership, usage};

/// How often a site looks whether there is news of it to tell, at least.
const LOOK: Duration = Duration::from_secs(5);
/// How long the hub may take to answer.
const LONGEST_ANSWER: Duration = Duration::from_secs(15);

/// Asks the hub who it is: an agent obeys only the one that it joined.
pub(crate) async fn check_hub(client: &Client, membership: &Membership) -> Result<(), Error> {
    ask(client, membership, &Heartbeat::default()).await.map(drop)
}

async fn ask(client: &Client, membership: &Membership, told: &Heartbeat) -> Result<HeartbeatAnswer, Error> {
    let path = format!("/avocet/v1/sites/{}/heartbeat", membership.site);
    let told = serde_json::to_string(told).map_err(Error::Assignment)?;
    // Each byte counts: without a header for the media type, which nobody asks for.
    let request = client.request(Method::POST, &path).timeout(LONGEST_ANSWER).body(told);
    let answer: HeartbeatAnswer = client.json(request).await?;
    if answer.hub == membership.hub {
        return Ok(answer);
    }
    Err(Error::AnotherHub {
        url: membership.url.clone(),
        expected: membership.hub.clone(),
        found: answer.hub,
    })
}

/// Heartbeats until one fails; each is a round trip measured. Tells the site's status when it changed, and looks for that
/// between heartbeats, too.
pub(crate) async fn beat(
    identity: Identity,
    membership: Membership,
    facts: impl Fn() -> SiteStatus,
    links: Links,
    every: Duration,
    shutdown: Shutdown,
) -> Result<(), Error> {
    let (mut told, mut followed): (Option<SiteStatus>, i64) = (None, 0);
    let mut told_at = Instant::now();
    let previous = identity.previous();
    let mut is_noted = previous == *identity.instance;
    let client = identity.client();
    loop {
        let started = Instant::now();
        let follows = if told.is_none() { previous.clone() } else { String::new() };
        let answer = beat_once(&identity, &membership, follows).await?;
        links.answered(started.elapsed());
        keep_fresh(&identity, &answer).await;
        is_noted = is_noted || note_instance(&identity);
        if answer.generation != followed {
            links.declare(&measured_locations(client, &membership.site).await?);
            followed = answer.generation;
        }
        // A fifth of jitter, so that sites that started together don't stay together.
        let jitter = every.mul_f64(f64::from(started.elapsed().subsec_nanos() % 200) / 1000.0);
        let next = Instant::now() + every + jitter;
        loop {
            let mut status = facts();
            status.links.extend(links.told());
            let is_news = |told: &SiteStatus| {
                let is_busier = usage::is_news(&told.usage, &status.usage);
                links::is_news(&told.links, &status.links)
                    || facts::is_news(told, &status)
                    || is_busier && told_at.elapsed() >= usage::SELDOM
            };
            if told.as_ref().is_none_or(is_news) {
                tell_site(client, &membership.site, &status).await?;
                (told, told_at) = (Some(status), Instant::now());
            }
            let left = next.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            if !shutdown.sleep(left.min(LOOK)).await {
                return Ok(());
            }
        }
    }
}

/// Notes on the disk that this instance reached the hub; answers whether the disk took it. If not, the site is heard all
/// the same.
fn note_instance(identity: &Identity) -> bool {
    let noted = identity.reached();
    if let Err(error) = &noted {
        let error = daemon::chain(error);
        warn!(error, "can't note that the hub was reached; a restart may be taken for another machine");
    }
    noted.is_ok()
}

/// One heartbeat, if need be with another certificate.
async fn beat_once(
    identity: &Identity,
    membership: &Membership,
    previous: String,
) -> Result<HeartbeatAnswer, Error> {
    let beat = Heartbeat { instance: identity.instance.to_string(), previous, now: Some(daemon::now()) };
    match ask(identity.client(), membership, &beat).await {
        Err(Error::Hub(error)) if error.is_unproven() || identity.may_have_ended() => {
            regain(identity, error).await?;
            ask(identity.client(), membership, &beat).await
        }
        answer => answer,
    }
}

/// The hub doesn't take the certificate, perhaps because it ended while nobody could renew it: the key gets another.
async fn regain(identity: &Identity, refused: client::Error) -> Result<(), Error> {
    match identity.renew().await {
        Ok(()) => Ok(()),
        // What the hub says of the key tells more than that a certificate was refused.
        Err(Error::Hub(error @ client::Error::Refused { .. })) => Err(Error::Hub(error)),
        Err(Error::Hub(_) | Error::NoKey) => Err(Error::Hub(refused)),
        Err(error) => Err(error),
    }
}

/// Gets the next certificate while there is time. That it fails now is no harm yet.
async fn keep_fresh(identity: &Identity, answer: &HeartbeatAnswer) {
    identity.keep_shown();
    let done = if identity.can_upgrade() {
        identity.upgrade().await
    } else if answer.renew {
        identity.renew().await
    } else {
        return;
    };
    if let Err(error) = done {
        warn!(error = %daemon::chain(&error), "can't get a new certificate yet");
    }
}

/// The locations that the Site at the hub names.
async fn measured_locations(client: &Client, site: &str) -> Result<Vec<MeasuredLocation>, Error> {
    let path = api::client::path(SiteSpec::PLURAL, "", site);
    let request = client.request(Method::GET, &path).timeout(LONGEST_ANSWER);
    let mut found: serde_json::Value = client.json(request).await?;
    // Of all else that a newer hub may say there nothing is needed.
    let named = found.pointer_mut("/spec/measure").map(serde_json::Value::take).unwrap_or_default();
    Ok(serde_json::from_value(named).unwrap_or_default())
}

async fn tell_site(client: &Client, site: &str, status: &SiteStatus) -> Result<(), Error> {
    let mut patch = serde_json::to_value(status).map_err(Error::Assignment)?;
    if let Some(fields) = patch.as_object_mut() {
        // Readiness is the hub's to judge.
        fields.remove("conditions");
    }
    let path = format!("{}/status", api::client::path(SiteSpec::PLURAL, "", site));
    let body = serde_json::json!({"status": patch}).to_string();
    let request = client.request(Method::PATCH, &path).header("content-type", "application/merge-patch+json");
    client.send(request.timeout(LONGEST_ANSWER).body(body)).await?;
    Ok(())
}
