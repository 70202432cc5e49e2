//! Git repositories that only the site reaches: it fetches them for the hub, if its operator allows it.

use std::time::Duration;

use api::Client;
use daemon::Shutdown;
use reqwest::Method;
use sources::{Delivery, Options, Order};
use tracing::debug;

use crate::Error;

/// How often the hub is asked what it wants. Only sites that may fetch anything ask.
const EVERY: Duration = Duration::from_secs(3);
/// How long the hub may take to answer, beside what is brought.
const LONGEST_ANSWER: Duration = Duration::from_secs(60);

/// Fetches what the hub wants until it can't be asked.
pub(crate) async fn run_errands(
    client: Client,
    site: String,
    options: Options,
    shutdown: Shutdown,
) -> Result<(), Error> {
    let path = format!("/avocet/v1/sites/{site}/sources");
    loop {
        let asked = client.request(Method::GET, &path).timeout(LONGEST_ANSWER);
        let orders: Vec<Order> = client.json(asked).await?;
        for order in orders {
            let delivery = tokio::select! {
                () = shutdown.wait() => return Ok(()),
                brought = sources::bring(&options, &order) => Delivery::of(brought),
            };
            debug!(
                id = order.id,
                revision = delivery.revision,
                reason = delivery.reason,
                "fetched for the hub"
            );
            let request =
                client.request(Method::POST, &format!("{path}/{}", order.id)).timeout(LONGEST_ANSWER);
            match client.send(request.json(&delivery)).await {
                // It took too long; the hub asks again.
                Err(error) if error.code() == Some(404) => {}
                other => drop(other?),
            }
        }
        if !shutdown.sleep(EVERY).await {
            return Ok(());
        }
    }
}
