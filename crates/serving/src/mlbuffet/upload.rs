//! `POST /api/v1/models/TAG`: a file becomes the tag's next version.

use axum::extract::multipart::{Field, MultipartRejection};
use axum::extract::{Multipart, Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use futures::TryStreamExt;
use tokio_util::io::StreamReader;

use super::Buffet;
use super::reply::Reply;
use crate::shelf::{Error, Label, Received};

/// What engines read.
const TAKEN: [&str; 8] = [".onnx", ".pb", ".h5", ".zip", ".tflite", ".json", ".ubj", ".txt"];
/// What MLBuffet takes.
const THEIRS: [&str; 8] = [".h5", ".onnx", ".pkl", ".pt", ".pmml", ".pb", ".mlmodel", ".zip"];
/// Longest text beside the file, in bytes.
const TEXT_BYTES: usize = 16 << 10;
/// Most parts of a form.
const PARTS: usize = 16;

pub(super) async fn upload(
    State(buffet): State<Buffet>,
    Path(tag): Path<String>,
    form: Result<Multipart, MultipartRejection>,
) -> Response {
    let reply = take(&buffet, &tag, form).await;
    buffet.answer(reply.unwrap_or_else(|refusal| refusal))
}

async fn take(
    buffet: &Buffet,
    tag: &str,
    form: Result<Multipart, MultipartRejection>,
) -> Result<Reply, Reply> {
    if !tag.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-')) {
        let tag: String = tag.chars().take(64).collect();
        let text = format!(
            "Tag name {tag} is not a dns-valid tag name. Only numbers [0-9], lowercase letters [a-z] and hyphens [-] \
             are allowed."
        );
        return Err(Reply::unprocessable(text));
    }
    buffet.shelf.check(tag).map_err(refused)?;
    let form = read(buffet, form.map_err(|_| no_file())?).await?;
    let Some((file, received)) = form.file else { return Err(no_file()) };
    let Some(library) = form.library.filter(|library| !library.is_empty()) else {
        buffet.shelf.discard(received).await;
        let text = "No model library provided. Please provide 'library_version' (e.g. tensorflow==2.7.0).";
        return Err(Reply::unprocessable(text));
    };
    let description = form.description.filter(|description| !description.is_empty());
    let label = Label { file: file.clone(), library, description };
    let number = buffet.shelf.publish(tag, label, received).await.map_err(refused)?;
    tracing::info!(model = tag, version = number, file, "model uploaded");
    let saved = format!("File {file} saved with the tag {tag}");
    Ok(Reply::new(StatusCode::CREATED, saved).theirs_by_200())
}

#[derive(Default)]
struct Form {
    file: Option<(String, Received)>,
    library: Option<String>,
    description: Option<String>,
}

async fn read(buffet: &Buffet, mut parts: Multipart) -> Result<Form, Reply> {
    let mut form = Form::default();
    match read_parts(buffet, &mut parts, &mut form).await {
        Ok(()) => Ok(form),
        Err(refusal) => {
            if let Some((_, received)) = form.file {
                buffet.shelf.discard(received).await;
            }
            Err(refusal)
        }
    }
}

async fn read_parts(buffet: &Buffet, parts: &mut Multipart, form: &mut Form) -> Result<(), Reply> {
    for _ in 0..PARTS {
        let Some(field) = parts.next_field().await.map_err(|_| Reply::bad_request())? else { return Ok(()) };
        let name = field.name().unwrap_or_default().to_owned();
        match (name.as_str(), field.file_name().map(str::to_owned)) {
            ("path", Some(file)) if form.file.is_none() => {
                check_file(&file, buffet.legacy)?;
                form.file = Some((file, receive(buffet, field).await?));
            }
            ("library_version", _) => form.library = Some(text(field).await?),
            ("model_description", _) => form.description = Some(text(field).await?),
            _ => {}
        }
    }
    Err(Reply::unprocessable(format!("The form has more than {PARTS} parts")))
}

async fn receive(buffet: &Buffet, field: Field<'_>) -> Result<Received, Reply> {
    let content = StreamReader::new(field.map_err(std::io::Error::other));
    buffet.shelf.receive(content).await.map_err(refused)
}

async fn text(mut field: Field<'_>) -> Result<String, Reply> {
    let mut bytes = Vec::new();
    while let Some(chunk) = field.chunk().await.map_err(|_| Reply::bad_request())? {
        bytes.extend_from_slice(&chunk);
        if bytes.len() > TEXT_BYTES {
            return Err(Reply::too_large(TEXT_BYTES));
        }
    }
    String::from_utf8(bytes).map_err(|_| Reply::unprocessable("A text of the form is not UTF-8"))
}

/// Whether a file's name says that an engine may read it.
fn check_file(file: &str, legacy: bool) -> Result<(), Reply> {
    if file.len() > 255 || file.contains(['/', '\\', '"']) || file.chars().any(char::is_control) {
        return Err(Reply::unprocessable(
            "The file's name is too long or has a slash, quote or control character",
        ));
    }
    let extension = file.rfind('.').and_then(|dot| file.get(dot..)).unwrap_or_default().to_ascii_lowercase();
    let is_among = |list: &[&str]| list.contains(&extension.as_str());
    if is_among(&TAKEN) && (is_among(&THEIRS) || !legacy) {
        return Ok(());
    }
    let instead = match extension.as_str() {
        ".pkl" => {
            "Pickled models run whatever code is in them, so they are not taken. Please export scikit-learn to .onnx \
             with skl2onnx, XGBoost to .ubj and LightGBM to .txt with their own save_model"
        }
        ".pt" => "PyTorch's files need its code to run. Please export to .onnx with torch.onnx.export",
        ".pmml" => "PMML is not taken. Please export the model to .onnx where it was trained",
        ".mlmodel" => "Core ML runs on Apple's machines alone. Please convert to .onnx with onnxmltools",
        _ => "",
    };
    if !instead.is_empty() {
        return Err(Reply::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, instead));
    }
    Err(Reply::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, one_of(&TAKEN)).theirs_says(one_of(&THEIRS)))
}

fn one_of(extensions: &[&str]) -> String {
    let list: Vec<String> = extensions.iter().map(|extension| format!("'{extension}'")).collect();
    format!("Filename extension not allowed. Please use one of these: [{}]", list.join(", "))
}

fn no_file() -> Reply {
    Reply::unprocessable("No file path (named 'path') specified")
}

/// What the shelf refuses, in this protocol's form.
pub(super) fn refused(error: Error) -> Reply {
    let text = daemon::chain(&error);
    let code = match error {
        Error::Name(_) | Error::Unloadable(_) => StatusCode::UNPROCESSABLE_ENTITY,
        Error::Taken(_) | Error::TooMany { .. } => StatusCode::CONFLICT,
        Error::UnknownTag(_) | Error::UnknownVersion { .. } => StatusCode::NOT_FOUND,
        Error::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
        Error::Full { .. } => StatusCode::INSUFFICIENT_STORAGE,
        Error::Undone | Error::CutOff => StatusCode::SERVICE_UNAVAILABLE,
        Error::Artifacts(_) | Error::Ledger(_) => {
            tracing::warn!(error = text, "an uploaded model can't be kept");
            StatusCode::INTERNAL_SERVER_ERROR
        }
    };
    Reply::new(code, text)
}
