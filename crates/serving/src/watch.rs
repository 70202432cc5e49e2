//! What is noted of a request beside its answer. Where nothing is, it costs a look for a header.

use std::time::Instant;

use inference::{Answer, Error, Model, Request};

use crate::error::ApiError;
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
    /// Those of [`Model::answer`]; what they say is for the client alone where the request has a redacted input.
    pub async fn answer(
        self,
        model: &Model,
        request: Request,
        trace: &mut Trace,
    ) -> Result<Answer, ApiError> {
        let private = is_private(model, &request);
        let answer = self.answer_and_log(model, request, private).await.map_err(|error| match private {
            true => ApiError::Private(Box::new(error.into())),
            false => error.into(),
        })?;
        trace.ran(&answer.timing);
        Ok(answer)
    }

    async fn answer_and_log(self, model: &Model, request: Request, private: bool) -> Result<Answer, Error> {
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
                Err(_) if private => Outcome::Failed(REDACTED.into()),
                Err(error) => Outcome::Failed(error.to_string()),
            },
        });
        answer
    }
}

/// What is noted of an error that may tell what was sent.
pub(crate) const REDACTED: &str = "redacted, as an input of the request is";

/// Whether the request has an input whose values are written nowhere.
fn is_private(model: &Model, request: &Request) -> bool {
    let redact = model.serving().payloads.as_ref().map_or(&[][..], |payloads| &payloads.redact);
    request.inputs.iter().any(|input| redact.iter().any(|name| name == input.name()))
}
