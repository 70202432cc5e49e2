//! All of it in one: from what a Source says to manifests. Hubs and sites do it alike, so it can be sent.

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use types::{GitSource, VerificationMode};

use crate::{Credential, Error, Helm, Manifest, Options, Signers, Wanted, build, fetch};

/// The data of a Secret, in Base64 as in its manifest.
type Secret = BTreeMap<String, String>;

/// What is to be brought. It holds secrets, so it is never logged.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Order {
    /// Names the cache: the UID of the Source.
    pub id: String,
    /// The repository and what of it.
    pub git: GitSource,
    /// What `git.secretRef` names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret: Option<Secret>,
    /// What must be signed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verify: Option<VerificationMode>,
    /// Who may sign.
    pub signers: Secret,
    /// How a chart is rendered.
    pub helm: Helm,
    /// How long fetching may take, in seconds.
    pub timeout_seconds: u64,
}

/// What was brought.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Brought {
    /// How many bytes were read.
    pub bytes: u64,
    /// What they state.
    pub manifests: Vec<Manifest>,
}

/// What a site brings, or why it can't.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Delivery {
    /// The commit, such as `main@sha1:…`; empty if it didn't come so far.
    pub revision: String,
    /// What is in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub brought: Option<Brought>,
    /// A CamelCase word for what is wrong.
    pub reason: String,
    /// What is wrong.
    pub message: String,
    /// Whether it stays so until somebody does something.
    pub is_lasting: bool,
}

impl Delivery {
    /// Of what came of an order.
    pub fn of((revision, brought): (String, Result<Brought, Error>)) -> Self {
        match brought {
            Ok(brought) => Self { revision, brought: Some(brought), ..Self::default() },
            Err(error) => Self {
                revision,
                reason: error.reason().to_owned(),
                message: error.to_string(),
                is_lasting: error.is_lasting(),
                ..Self::default()
            },
        }
    }
}

/// Fetches and builds; the revision is empty if it didn't come so far.
pub async fn bring(options: &Options, order: &Order) -> (String, Result<Brought, Error>) {
    let checkout = match fetched(options, order).await {
        Ok(checkout) => checkout,
        Err(error) => return (String::new(), Err(error)),
    };
    let (revision, path, helm) = (checkout.revision.clone(), order.git.path.clone(), order.helm.clone());
    let building = move || {
        let mut tree = checkout.tree()?;
        let manifests = build(&mut tree, &path, &helm)?;
        if manifests.len() > tree.limits().manifests {
            let most = tree.limits().manifests;
            return Err(Error::TooLarge(format!("the folder has more than {most} manifests; split it up")));
        }
        Ok(Brought { bytes: tree.bytes_read(), manifests })
    };
    // Only a panic keeps it from ending.
    let built = tokio::task::spawn_blocking(building).await;
    let unfinished =
        || Error::invalid(&order.git.path, "can't be built for a reason that is a bug; please report it");
    (revision, built.unwrap_or_else(|_| Err(unfinished())))
}

async fn fetched(options: &Options, order: &Order) -> Result<crate::Checkout, Error> {
    let credential = match &order.secret {
        Some(secret) => Credential::of(&decoded(secret))?,
        None => Credential::default(),
    };
    let verify = match order.verify {
        Some(mode) => Some((mode, Signers::of(&decoded(&order.signers))?)),
        None => None,
    };
    let timeout = Duration::from_secs(order.timeout_seconds.max(1));
    fetch(options, Wanted { cache: &order.id, git: &order.git, credential, verify, timeout }).await
}

fn decoded(secret: &Secret) -> BTreeMap<String, Vec<u8>> {
    let pairs = secret.iter().filter_map(|(key, text)| Some((key.clone(), STANDARD.decode(text).ok()?)));
    pairs.collect()
}
