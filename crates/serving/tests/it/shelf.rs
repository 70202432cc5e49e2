use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock};

use axum::body::Body;
use futures::{StreamExt, stream};
use inference::State;
use tokio::io::AsyncReadExt;

use crate::support::{Kept, Setup, form, get, model, own_model, post, send, upload};
use avocet_serving::Shelf;
use avocet_serving::shelf::{Error, Label, Options};

fn blobs(folder: &Path) -> usize {
    std::fs::read_dir(folder.join("models/blobs")).unwrap().count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_uploaded_is_there_after_a_restart_and_loaded_when_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let server = Kept::open(folder.path(), Setup::default());
    upload(&server.app, "t", "m.onnx", &own_model("label")).await;
    upload(&server.app, "t", "m.onnx", &std::fs::read(model("affine")).unwrap()).await;
    post(&server.app, "/api/v1/models/t/default", r#"{"default": 1}"#).await;
    server.end().await;
    std::fs::write(folder.path().join("models/blobs").join("0".repeat(64)), "an orphan").unwrap();

    let server = Kept::open(folder.path(), Setup::default());
    assert_eq!(blobs(folder.path()), 2);
    let of_t = |status: &inference::ModelStatus| status.name == "t" && status.state == State::Idle;
    assert_eq!(server.repository.list().iter().filter(|status| of_t(status)).count(), 2);
    let reply = post(&server.app, "/api/v1/models/t/prediction", r#"{"values": [0, 0, 7, 0]}"#).await;
    assert_eq!(reply.json()["values"], serde_json::json!([2]));
    let x = crate::support::x("[1,4]", "[0,0,0,0]");
    assert_eq!(
        post(&server.app, "/v2/models/t/versions/2/infer", x).await.json()["outputs"][0]["data"][0],
        1.0
    );
    assert_eq!(get(&server.app, "/api/v1/models/t:1").await.body, own_model("label"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn equal_files_share_one_blob_until_the_last_version_goes() {
    let folder = tempfile::tempdir().unwrap();
    let server = Kept::open(folder.path(), Setup::default());
    for tag in ["a", "a", "b"] {
        assert_eq!(upload(&server.app, tag, "m.onnx", &own_model("label")).await.status, 201);
    }
    for (path, left) in [("a:1", 1), ("b", 1), ("a", 0)] {
        assert_eq!(blobs(folder.path()), 1);
        let reply = send(&server.app, "DELETE", &format!("/api/v1/models/{path}"), &[], "").await;
        assert_eq!((reply.status.as_u16(), blobs(folder.path())), (200, left), "{path}");
    }
    assert!(server.repository.list().iter().all(|model| model.name != "a" && model.name != "b"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sizes_tags_versions_and_names_are_bounded() {
    let folder = tempfile::tempdir().unwrap();
    let taken = Arc::new(|name: &str| name == "reserved");
    let options = Options { file_bytes: 10_000, tags: 1, versions: 2, taken, ..Options::default() };
    let server = Kept::open(folder.path(), Setup { shelf: options, ..Setup::default() });
    assert_eq!(upload(&server.app, "t", "m.onnx", &vec![0; 10_001]).await.status, 413);
    assert_eq!(blobs(folder.path()), 0);
    for status in [201, 201, 409] {
        assert_eq!(upload(&server.app, "t", "m.onnx", &own_model("label")).await.status, status);
    }
    assert_eq!(upload(&server.app, "u", "m.onnx", &own_model("label")).await.status, 409, "one tag only");
    assert_eq!(upload(&server.app, "reserved", "m.onnx", &own_model("label")).await.status, 409);
    for name in ["-a".to_owned(), "a".repeat(64)] {
        assert_eq!(upload(&server.app, &name, "m.onnx", &own_model("label")).await.status, 422, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_files_together_are_bounded_and_what_goes_makes_room() {
    let folder = tempfile::tempdir().unwrap();
    let affine = std::fs::read(model("affine")).unwrap();
    let bytes = (own_model("label").len() + affine.len() - 1) as u64;
    let setup = || Setup { shelf: Options { bytes, ..Options::default() }, ..Setup::default() };
    let server = Kept::open(folder.path(), setup());
    assert_eq!(upload(&server.app, "a", "m.onnx", &own_model("label")).await.status, 201);
    server.end().await;
    let server = Kept::open(folder.path(), setup());
    let reply = upload(&server.app, "b", "m.onnx", &affine).await;
    let told = reply.json()["http_status"]["description"].as_str().unwrap().to_owned();
    assert_eq!(reply.status, 507, "{told}");
    assert!(told.contains(&format!("of at most {bytes} together; delete some")), "{told}");
    assert_eq!(blobs(folder.path()), 1, "nothing of it stays");
    // What comes at once counts, too.
    let first = server.shelf.receive(affine.as_slice().take((affine.len() - 1) as u64)).await.unwrap();
    assert!(matches!(server.shelf.receive([0; 2].as_slice()).await, Err(Error::Full { .. })));
    server.shelf.discard(first).await;
    assert_eq!(send(&server.app, "DELETE", "/api/v1/models/a", &[], "").await.status, 200);
    assert_eq!(upload(&server.app, "b", "m.onnx", &affine).await.status, 201);
}

#[tokio::test(start_paused = true)]
async fn who_sends_no_more_of_an_upload_or_a_default_is_not_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let server = Kept::open(folder.path(), Setup { idle: true, ..Setup::default() });
    let (kind, body) = form(&[("path", Some("m.onnx"), None, &[0; 4096])]);
    let begun = stream::iter([Ok::<_, std::io::Error>(body[..2048].to_vec())]).chain(stream::pending());
    let headers = [("content-type", kind.as_str())];
    let reply = send(&server.app, "POST", "/api/v1/models/t", &headers, Body::from_stream(begun)).await;
    assert_eq!((reply.status.as_u16(), reply.json()["http_status"]["code"].as_u64()), (408, Some(408)));
    assert_eq!(blobs(folder.path()), 0);
    let nothing = Body::from_stream(stream::pending::<Result<Vec<u8>, std::io::Error>>());
    assert_eq!(send(&server.app, "POST", "/api/v1/models/t/default", &headers, nothing).await.status, 408);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn uploads_at_once_get_different_numbers() {
    let folder = tempfile::tempdir().unwrap();
    let server = Kept::open(folder.path(), Setup::default());
    let content = own_model("label");
    let uploads = (0..8).map(|_| async {
        let received = server.shelf.receive(content.as_slice()).await.unwrap();
        server.shelf.publish("t", Label::default(), received).await.unwrap()
    });
    let mut numbers = futures::future::join_all(uploads).await;
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=8).collect::<Vec<u32>>());
    let missing = server.shelf.delete_version("t", 9).await;
    assert!(matches!(missing, Err(Error::UnknownVersion { version: 9, .. })));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_uploader_who_goes_away_leaves_a_whole_version_or_none() {
    let folder = tempfile::tempdir().unwrap();
    let server = Kept::open(folder.path(), Setup::default());
    for polls in 1..12 {
        let received = server.shelf.receive(own_model("label").as_slice()).await.unwrap();
        let mut publishing = Box::pin(server.shelf.publish("t", Label::default(), received));
        for _ in 0..polls {
            if futures::poll!(publishing.as_mut()).is_ready() {
                break;
            }
            tokio::task::yield_now().await;
        }
    }
    let received = server.shelf.receive(own_model("label").as_slice()).await.unwrap();
    let last = server.shelf.publish("t", Label::default(), received).await.unwrap();
    let tag = server.shelf.tag("t").unwrap();
    assert_eq!(tag.default_version(), last);
    assert_eq!(tag.versions().keys().copied().collect::<Vec<_>>(), (1..=last).collect::<Vec<_>>());
    for number in tag.versions().keys() {
        server.repository.obtain("t", Some(&number.to_string())).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_that_is_promised_to_somebody_while_an_upload_is_tried_out_is_theirs() {
    let folder = tempfile::tempdir().unwrap();
    let (shelf, held) = (Arc::new(OnceLock::<Shelf>::new()), Arc::new(Mutex::new(Vec::new())));
    let (of_taken, asked) = (Arc::clone(&shelf), Arc::clone(&held));
    // The hub assigns it after the first question, and looks whether it may load its model.
    let taken = Arc::new(move |name: &str| {
        let mut asked = asked.lock().unwrap();
        asked.push(of_taken.get().unwrap().holds(name));
        asked.len() > 1
    });
    let options = Options { taken, ..Options::default() };
    let server = Kept::open(folder.path(), Setup { shelf: options, ..Setup::default() });
    assert!(shelf.set(server.shelf.clone()).is_ok());
    let received = server.shelf.receive(own_model("label").as_slice()).await.unwrap();
    let refused = server.shelf.publish("t", Label::default(), received).await;
    assert!(matches!(refused, Err(Error::Taken(_))), "{refused:?}");
    assert_eq!(*held.lock().unwrap(), [true, true], "nobody else loads it meanwhile");
    assert!(!server.shelf.holds("t"));
    assert!(server.repository.list().iter().all(|model| model.name != "t"));
    assert_eq!(blobs(folder.path()), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_deleted_while_it_is_loaded_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = Kept::open(folder.path(), Setup::default());
    for polls in 0..8 {
        upload(&server.app, "t", "m.onnx", &own_model("label")).await;
        server.end().await;
        server = Kept::open(folder.path(), Setup::default());
        let mut loading = Box::pin(futures::future::maybe_done(server.repository.obtain("t", None)));
        for _ in 0..polls {
            let _ = futures::poll!(loading.as_mut());
            tokio::task::yield_now().await;
        }
        let (_, deleted) = futures::future::join(loading, server.shelf.delete("t")).await;
        deleted.unwrap();
        assert_eq!(blobs(folder.path()), 0);
        assert!(server.repository.list().iter().all(|model| model.name != "t"));
    }
}
