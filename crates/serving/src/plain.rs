//! Pictures and tables as they are, for models that declare how they take them, and answers that people can read.

use axum::http::{HeaderMap, header};
use axum::response::Response;
use bytes::Bytes;
use inference::steps::{Frame, Plain, Reading};
use inference::{Model, Request, Tensor};

use crate::aside;
use crate::compression::{self, Encoding, Room};
use crate::decode::BinaryOutputs;
use crate::encode::encode;
use crate::error::ApiError;
use crate::form;
use crate::infer::finish;
use crate::trace::Trace;
use crate::watch::Watch;

/// What a body is that is no request of the protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    Picture,
    Table,
    /// A form with one file, and what stands between its parts.
    Form {
        boundary: String,
    },
    /// Whatever the model takes: a form's file without a telling type.
    Either,
}

/// What the body is by its `Content-Type`; `None` for a request of the protocol.
///
/// # Errors
/// When it is a form that doesn't say what stands between its parts.
pub(crate) fn content(headers: &HeaderMap) -> Result<Option<Content>, ApiError> {
    let Some(kind) = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()) else {
        return Ok(None);
    };
    match content_of(kind) {
        Content::Either if form::is_form(kind) => {
            Ok(Some(Content::Form { boundary: form::boundary(kind)?.to_owned() }))
        }
        Content::Either => Ok(None),
        content => Ok(Some(content)),
    }
}

fn content_of(kind: &str) -> Content {
    let essence = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match essence.as_str() {
        "text/csv" => Content::Table,
        picture if picture.starts_with("image/") => Content::Picture,
        _ => Content::Either,
    }
}

/// Whether the outputs themselves are wanted, too, where a reading is the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Show {
    Reading,
    Outputs,
}

impl Show {
    /// What `?outputs=raw` says.
    pub fn of(query: Option<&str>) -> Show {
        let raw = query.unwrap_or_default().split('&').any(|pair| pair == "outputs=raw");
        if raw { Show::Outputs } else { Show::Reading }
    }
}

/// A body as it came.
pub(crate) struct Body {
    pub content: Content,
    pub packed: Option<Encoding>,
    pub body: Bytes,
    /// For it unpacked.
    pub room: Room,
}

/// Runs a model on plain content.
///
/// # Errors
/// When the model takes none or other, the content can't be read, or the run fails.
pub(crate) async fn infer(
    model: Model,
    body: Body,
    show: Show,
    accepted: Option<Encoding>,
    watch: Watch,
    trace: &mut Trace,
) -> Result<Response, ApiError> {
    let begun = trace.now();
    let (inputs, frame) = read(&model, body).await?;
    trace.step("preprocess", begun);
    let mut request = Request::new(inputs);
    let wanted = match model.output_steps() {
        Some(_) if show == Show::Outputs => {
            request.outputs = model.signature().outputs.iter().map(|spec| spec.name.clone()).collect();
            Some(Wanted::in_frame(&model, &mut request, frame)?)
        }
        Some(_) => Some(Wanted::in_frame(&model, &mut request, frame)?),
        None => None,
    };
    let answer = watch.answer(&model, request, trace).await?;
    let (mut outputs, begun) = (answer.outputs, trace.now());
    let write = move || {
        let reading = wanted.map(|wanted| wanted.read(&model, &mut outputs)).transpose()?;
        let (name, version, binary) = (model.name(), model.version(), BinaryOutputs::default());
        let encoded = encode(name, version, None, &outputs, &binary, reading.as_ref())?;
        Ok(finish(encoded.body(), accepted, None))
    };
    let written = aside(write).await;
    trace.step("postprocess", begun);
    written
}

async fn read(model: &Model, body: Body) -> Result<(Vec<Tensor>, Option<Frame>), ApiError> {
    let steps = model.input_steps().ok_or_else(|| {
        ApiError::MediaType(format!(
            "model '{}' takes tensors only; send the protocol's JSON, or declare `serving.preprocessing` for it",
            model.name()
        ))
    })?;
    let (content, data) = aside(move || body.unpack()).await?;
    let is_picture = match content {
        Content::Picture => true,
        Content::Table => false,
        Content::Form { .. } | Content::Either => steps.takes_pictures(),
    };
    let plain = if is_picture { Plain::Picture(data) } else { Plain::Table(data) };
    model.read(steps, plain).await.map_err(|error| match error {
        inference::Error::Content { source, .. } => ApiError::Step(source),
        other => ApiError::Inference(other),
    })
}

impl Body {
    /// The content itself.
    fn unpack(self) -> Result<(Content, Bytes), ApiError> {
        let Body { content, packed, body, room } = self;
        let body = compression::unpack(packed, body, &room)?;
        let Content::Form { boundary } = content else { return Ok((content, body)) };
        let file = form::only_file(&body, &boundary)?;
        let content = file.kind.map_or(Content::Either, content_of);
        Ok((content, body.slice_ref(file.data)))
    }
}

/// A reading that is wanted of a request's answer.
#[derive(Debug)]
pub(crate) struct Wanted {
    frame: Option<Frame>,
    /// How many outputs the client asked for itself; the rest is for the reading alone.
    named: usize,
}

impl Wanted {
    /// Lets a request of tensors ask for what the reading needs.
    ///
    /// # Errors
    /// When the model declares no reading.
    pub fn of(model: &Model, request: &mut Request) -> Result<Wanted, ApiError> {
        let frame = model.input_steps().and_then(|steps| steps.frame(&request.inputs));
        Wanted::in_frame(model, request, frame)
    }

    fn in_frame(model: &Model, request: &mut Request, frame: Option<Frame>) -> Result<Wanted, ApiError> {
        let steps = model.output_steps().ok_or_else(|| {
            ApiError::BadRequest(format!(
                "model '{}' gives no reading; leave the parameter `reading` out, or declare `serving.postprocessing`",
                model.name()
            ))
        })?;
        let named = request.outputs.len();
        let missing = steps.needs().iter().filter(|name| !request.outputs.contains(name));
        let missing: Vec<String> = missing.cloned().collect();
        request.outputs.extend(missing);
        Ok(Wanted { frame, named })
    }

    /// Reads the outputs, and leaves those that the client asked for.
    ///
    /// # Errors
    /// When they are not what the model declares.
    pub fn read(self, model: &Model, outputs: &mut Vec<Tensor>) -> Result<Reading, ApiError> {
        let steps = model.output_steps().ok_or_else(|| ApiError::Answer("the reading is gone".into()))?;
        let reading = steps.read(outputs, self.frame.as_ref())?;
        outputs.truncate(self.named);
        Ok(reading)
    }
}
