//! The tokens that the hub vouched for.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

/// How long the hub's word for a token is believed.
const BELIEVED: Duration = Duration::from_secs(30);
/// Most tokens that are known at once; of more the oldest are asked about again.
const KNOWN: usize = 64;
/// Questions at once; more wait.
const QUESTIONS: usize = 8;

/// Which tokens are good. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Tokens {
    /// With the time until when each is believed, the oldest first.
    known: Arc<Mutex<Vec<(String, Instant)>>>,
    questions: Arc<Semaphore>,
}

impl Default for Tokens {
    fn default() -> Self {
        Tokens { known: Arc::default(), questions: Arc::new(Semaphore::new(QUESTIONS)) }
    }
}

impl Tokens {
    /// Lets a token pass that is known, at once whatever is being asked about others, or that `ask` vouches for.
    ///
    /// # Errors
    /// Those of `ask`.
    pub async fn check<E>(&self, token: &str, ask: impl Future<Output = Result<(), E>>) -> Result<(), E> {
        if self.knows(token, Instant::now()) {
            return Ok(());
        }
        let _turn = self.questions.acquire().await;
        ask.await?;
        self.remember(token, Instant::now() + BELIEVED);
        Ok(())
    }

    fn knows(&self, token: &str, now: Instant) -> bool {
        self.known().iter().any(|(known, until)| now < *until && daemon::same_secret(known, token))
    }

    fn remember(&self, token: &str, until: Instant) {
        let mut known = self.known();
        known.retain(|(other, _)| other != token);
        if known.len() >= KNOWN {
            known.remove(0);
        }
        known.push((token.to_owned(), until));
    }

    fn known(&self) -> MutexGuard<'_, Vec<(String, Instant)>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::*;

    #[tokio::test]
    async fn questions_about_one_token_keep_no_other_waiting() {
        let tokens = Tokens::default();
        for good in ["anna", "bert"] {
            tokens.check(good, ready(Ok::<_, ()>(()))).await.unwrap();
        }
        let mut strangers: Vec<_> = ["x", "y", "z", "1", "2", "3", "4", "5", "6"]
            .map(|stranger| Box::pin(tokens.check(stranger, pending::<Result<(), ()>>())))
            .into();
        for stranger in &mut strangers {
            assert!(futures::poll!(stranger.as_mut()).is_pending());
        }
        for good in ["anna", "bert", "anna"] {
            tokens.check(good, ready(Err("the hub is away"))).await.unwrap();
        }
        drop(strangers);
        tokens.check("x", ready(Err("no"))).await.unwrap_err();
    }

    #[test]
    fn few_tokens_are_known_and_none_for_long() {
        let (tokens, now) = (Tokens::default(), Instant::now());
        for number in 0..=KNOWN {
            tokens.remember(&number.to_string(), now + BELIEVED);
        }
        assert!(!tokens.knows("0", now) && tokens.knows("1", now) && tokens.knows(&KNOWN.to_string(), now));
        assert!(!tokens.knows("1", now + BELIEVED));
    }
}
