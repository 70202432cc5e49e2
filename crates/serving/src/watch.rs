//! What is noted of a request beside its answer. Where nothing is, it costs a look for a header.

use std::time::Instant;

use inference::{Answer, Error, Model, Request};

use crate::payloads::{Outcome, Record, Ticket};
use crate::state::ServerState;
use crate::trace::{Trace, TraceParent};

/// A request that may be noted.
pub(crate) struct Watch {
    ticket: Option<Ticket>,
    trace: Option<TraceParent>,
}

impl Watch {
    /// Decides whether it is.
    pub fn begin(state: &ServerState, model: &Model, trace: Option<TraceParent>) -> Watch {
        let log = state.payloads.as_ref();
        let ticket = log.and_then(|log| log.sample(model.serving().payloads.as_ref()));
        Watch { ticket, trace }
    }

    /// Whether its tensors are noted, so that it has to be read even if its answer is known.
    pub fn wants_tensors(&self) -> bool {
        self.ticket.is_some()
    }

    /// Has it answered.
    ///
    /// # Errors
    /// Those of [`Model::answer`].
    pub async fn answer(self, model: &Model, request: Request, trace: &mut Trace) -> Result<Answer, Error> {
        let answer = self.answer_and_log(model, request).await?;
        trace.ran(&answer.timing);
        Ok(answer)
    }

    async fn answer_and_log(self, model: &Model, request: Request) -> Result<Answer, Error> {
        let Some(ticket) = self.ticket else { return model.answer(request).await };
        let (time, started) = (daemon::now(), Instant::now());
        let inputs = request.inputs.clone();
        let answer = model.answer(request).await;
        ticket.hand_in(Record {
            time,
            model: model.name().to_owned(),
            version: model.version().to_owned(),
            trace: self.trace,
            took: started.elapsed(),
            inputs,
            outcome: match &answer {
                Ok(answer) => {
                    Outcome::Answered { outputs: answer.outputs.clone(), cached: answer.timing.cached }
                }
                Err(error) => Outcome::Failed(error.to_string()),
            },
        });
        answer
    }
}
