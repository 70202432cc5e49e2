//! Notes for sites, in memory: bounded, and soon stale.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use planner::offload::Refusal;
use tokio::sync::{Notify, mpsc};

use super::{Answer, Ask, Note};

/// How many notes wait for one site; the oldest goes first.
const MOST_NOTES: usize = 256;
/// For how long a note is worth telling.
const FRESH: Duration = Duration::from_secs(10);
/// For how long a site that asked for its deliveries counts as one that listens.
const LISTENS: Duration = Duration::from_secs(5);
/// After how long without a word a site is forgotten here.
const FORGOTTEN: Duration = Duration::from_secs(600);
/// So many may be known without a look at who was silent.
const FEW: usize = 64;

/// Passes notes on between sites. Cheap to clone.
#[derive(Clone, Default)]
pub struct Relay(Arc<Inner>);

#[derive(Default)]
struct Inner {
    sites: Mutex<Listeners>,
    questions: Mutex<HashMap<String, Open>>,
}

#[derive(Default)]
struct Listeners {
    known: HashMap<String, Listener>,
    /// How many of them were there when the last ones were forgotten.
    kept: usize,
}

impl Listeners {
    /// Forgets who was silent for long, whenever there are twice as many as were kept the last time.
    fn forget(&mut self) {
        if self.known.len() > 2 * self.kept {
            self.known.retain(|_, known| known.asking > 0 || known.heard.elapsed() < FORGOTTEN);
            self.kept = self.known.len().max(FEW);
        }
    }
}

struct Listener {
    notes: VecDeque<(Instant, Note)>,
    told: Arc<Notify>,
    /// How many requests for its deliveries are under way.
    asking: usize,
    heard: Instant,
}

/// A question that is being answered.
struct Open {
    asked: Vec<String>,
    answers: mpsc::Sender<(String, Answer)>,
}

impl Listener {
    fn new() -> Self {
        Self { notes: VecDeque::new(), told: Arc::default(), asking: 0, heard: Instant::now() }
    }
}

impl Relay {
    fn sites(&self) -> MutexGuard<'_, Listeners> {
        self.0.sites.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn questions(&self) -> MutexGuard<'_, HashMap<String, Open>> {
        self.0.questions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A site asks for what there is for it; it listens until this is dropped, and a little longer.
    pub(crate) fn listen(&self, site: &str) -> Listening {
        let mut sites = self.sites();
        sites.forget();
        let listener = sites.known.entry(site.to_owned()).or_insert_with(Listener::new);
        listener.asking += 1;
        listener.heard = Instant::now();
        Listening { relay: self.clone(), site: site.to_owned(), told: listener.told.clone() }
    }

    /// Whether a site would hear of a note now.
    pub fn hears(&self, site: &str) -> bool {
        self.sites().known.get(site).is_some_and(|known| known.asking > 0 || known.heard.elapsed() < LISTENS)
    }

    /// Tells a site something, if it listens.
    pub(crate) fn tell(&self, site: &str, note: Note) {
        let mut sites = self.sites();
        let Some(listener) = sites.known.get_mut(site) else { return };
        if listener.notes.len() >= MOST_NOTES {
            listener.notes.pop_front();
        }
        listener.notes.push_back((Instant::now(), note));
        listener.told.notify_one();
    }

    /// Asks sites and gathers what they say: until all have answered, or the time is up.
    pub(crate) async fn ask(
        &self,
        ask: &Ask,
        sites: &[String],
        within: Duration,
    ) -> BTreeMap<String, Answer> {
        let (answers, mut answered) = mpsc::channel(sites.len().max(1));
        self.questions().insert(ask.id.clone(), Open { asked: sites.to_vec(), answers });
        let _closed = Closing { relay: self, question: &ask.id };
        for site in sites {
            self.tell(site, Note::Ask(Box::new(ask.clone())));
        }
        let silent = Answer::Refusal(Refusal::Silent);
        let mut all: BTreeMap<String, Answer> = sites.iter().map(|site| (site.clone(), silent)).collect();
        let until = tokio::time::Instant::now() + within;
        let mut missing = sites.len();
        while missing > 0 {
            let Ok(Some((site, answer))) = tokio::time::timeout_at(until, answered.recv()).await else {
                break;
            };
            all.insert(site, answer);
            missing -= 1;
        }
        all
    }

    /// Takes what a site says to a question: once, if it was asked and the question is open.
    pub(crate) fn answer(&self, question: &str, site: &str, answer: Answer) {
        let mut questions = self.questions();
        let Some(open) = questions.get_mut(question) else { return };
        let Some(index) = open.asked.iter().position(|asked| asked == site) else { return };
        open.asked.swap_remove(index);
        // There is room for everybody who was asked; who asked may be gone.
        let _ = open.answers.try_send((site.to_owned(), answer));
    }
}

/// Closes a question when dropped, also when the one who asked is gone.
struct Closing<'a> {
    relay: &'a Relay,
    question: &'a str,
}

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        self.relay.questions().remove(self.question);
    }
}

/// One request of a site for what there is for it.
pub(crate) struct Listening {
    relay: Relay,
    site: String,
    told: Arc<Notify>,
}

impl Listening {
    /// The notes that are still worth telling.
    pub(crate) fn take(&self) -> Vec<Note> {
        let mut sites = self.relay.sites();
        let notes = sites.known.get_mut(&self.site).map(|known| std::mem::take(&mut known.notes));
        let fresh = notes.into_iter().flatten().filter(|(told, _)| told.elapsed() < FRESH);
        fresh.map(|(_, note)| note).collect()
    }

    /// Waits until there may be a note.
    pub(crate) async fn told(&self) {
        self.told.notified().await;
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        if let Some(known) = self.relay.sites().known.get_mut(&self.site) {
            known.asking = known.asking.saturating_sub(1);
            known.heard = Instant::now();
        }
    }
}

#[cfg(test)]
mod tests {
    use planner::offload::Offer;

    use super::*;

    fn progress(attempt: &str) -> Note {
        Note::Progress { from: "b".into(), attempt: attempt.into() }
    }

    #[tokio::test]
    async fn a_note_reaches_who_listens_once_and_nobody_else() {
        let relay = Relay::default();
        relay.tell("a", progress("lost"));
        assert!(!relay.hears("a"));
        let here = relay.listen("a");
        assert!(relay.hears("a"));
        assert_eq!(here.take(), []);
        relay.tell("a", progress("1"));
        relay.tell("b", progress("2"));
        here.told().await;
        assert_eq!(here.take(), [progress("1")]);
        assert_eq!(here.take(), []);
        drop(here);
        relay.tell("a", progress("3"));
        assert_eq!(relay.listen("a").take(), [progress("3")], "it asks again at once");
    }

    #[tokio::test]
    async fn who_does_not_listen_fills_no_memory() {
        let relay = Relay::default();
        let here = relay.listen("a");
        (0..2 * MOST_NOTES).for_each(|number| relay.tell("a", progress(&number.to_string())));
        let notes = here.take();
        assert_eq!(notes.len(), MOST_NOTES);
        assert_eq!(notes.last(), Some(&progress(&(2 * MOST_NOTES - 1).to_string())));
    }

    #[tokio::test]
    async fn answers_are_gathered_from_those_who_were_asked_and_once() {
        let relay = Relay::default();
        let ask: Ask = serde_json::from_value(serde_json::json!({
            "id": "q", "from": "a", "assignment": "x", "architecture": "x86_64",
            "spec": {"applicationNamespace": "default", "application": "x", "applicationUid": "u", "component": "c"},
            "request": {"inputBytes": 1, "outputBytes": 1, "memoryBytes": 1},
        }))
        .unwrap();
        let offer = |finish_seconds| Answer::Offer(Offer { finish_seconds, confidence: 0.0 });
        let listening = relay.listen("b");
        let sites = ["b".to_owned(), "c".to_owned()];
        let answering = async {
            listening.told().await;
            assert_eq!(listening.take(), [Note::Ask(Box::new(ask.clone()))]);
            relay.answer("q", "stranger", offer(0.0));
            relay.answer("q", "b", offer(1.0));
            relay.answer("q", "b", offer(0.0));
            relay.answer("other", "c", offer(0.0));
        };
        let (answers, ()) = tokio::join!(relay.ask(&ask, &sites, Duration::from_millis(20)), answering);
        assert_eq!(answers["b"], offer(1.0));
        assert_eq!(answers["c"], Answer::Refusal(Refusal::Silent));
        assert_eq!(answers.len(), 2);
        assert!(relay.questions().is_empty(), "nothing is kept of it");
    }
}
