//! Many requests on one connection, as agents have it.

use std::sync::Arc;
use std::time::Duration;

use avocet_api::client::{self, Client};
use axum::http::{HeaderMap, Method, Request, Response};
use bytes::Bytes;
use daemon::tls;
use futures::{StreamExt, TryStreamExt};
use multiplex::{Answer, Multiplexed, Patience};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use types::SiteSpec;

use crate::certificates::{HOUR, NAME, SecureHub, TestAuthority};
use crate::support::{placement, resource};

const PLACEMENTS: &str = "namespaces/default/placements";
const PATIENCE: Duration = Duration::from_secs(30);
const LONG: Patience = Patience { asks_after: PATIENCE, waits: PATIENCE };

/// A hub, and a connection of its admin.
async fn start() -> (SecureHub, TlsStream<TcpStream>) {
    let authority = TestAuthority::new();
    let hub = SecureHub::with(&authority).await;
    let anna = authority.client("anna", "system:masters", HOUR, daemon::now());
    let ca = authority.authority.certificate();
    let mut config = tls::client_with_certificate(ca, &anna.certificate, &anna.key).unwrap();
    config.alpn_protocols = vec![tls::MULTIPLEXED.to_vec()];
    let stream = TcpStream::connect(hub.address).await.unwrap();
    let connector = TlsConnector::from(Arc::new(config));
    let stream = connector.connect(NAME.try_into().unwrap(), stream).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(tls::MULTIPLEXED));
    (hub, stream)
}

async fn connected() -> (SecureHub, Multiplexed) {
    let (hub, stream) = start().await;
    (hub, Multiplexed::begin(stream, &HeaderMap::new(), LONG))
}

async fn send(connection: &Multiplexed, method: Method, path: &str, body: &Value) -> Response<Answer> {
    let body = if body.is_null() { Bytes::new() } else { body.to_string().into() };
    let request = Request::builder().method(method).uri(path).header("content-type", "application/json");
    connection.send(&request.body(body).unwrap()).await.unwrap()
}

async fn read(answer: Response<Answer>) -> Value {
    let body: Vec<Bytes> = answer.into_body().try_collect().await.unwrap();
    serde_json::from_slice(&body.concat()).unwrap()
}

async fn get(connection: &Multiplexed, path: &str) -> Value {
    read(send(connection, Method::GET, path, &Value::Null).await).await
}

fn frame(kind: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&[kind], &length[1..], &stream.to_be_bytes(), payload].concat()
}

/// The next frame: its kind, its stream and its payload.
async fn next(stream: &mut TlsStream<TcpStream>) -> (u8, u32, Vec<u8>) {
    let mut head = [0; 8];
    stream.read_exact(&mut head).await.unwrap();
    let mut payload = vec![0; u32::from_be_bytes([0, head[1], head[2], head[3]]) as usize];
    stream.read_exact(&mut payload).await.unwrap();
    (head[0], u32::from_be_bytes(head[4..].try_into().unwrap()), payload)
}

#[tokio::test]
async fn a_client_with_a_certificate_asks_and_watches_on_one_connection() {
    for is_old in [false, true] {
        let authority = TestAuthority::new();
        let hub = match is_old {
            false => SecureHub::with(&authority).await,
            true => SecureHub::of_old(&authority).await,
        };
        let anna = authority.client("anna", "system:masters", HOUR, daemon::now());
        let base = format!("https://localhost:{}", hub.address.port());
        let identity = format!("{}\n{}", anna.key, anna.certificate);
        let ca = authority.authority.certificate();
        let client = Client::with_certificate(&base, ca, &identity).unwrap().with_patience(PATIENCE);
        let (sites, version) = client.list::<SiteSpec>("").await.unwrap();
        assert_eq!(sites.len(), 2);
        let changes = client.watch("placements", "default", &version, PATIENCE).await.unwrap();
        let mut changes = changes.boxed();
        let info = types::kind_named("placements").unwrap();
        client.apply(info, "default", &placement("p")).await.unwrap();
        let change = changes.next().await.unwrap().unwrap();
        assert_eq!((&*change.kind, &change.object["metadata"]["name"]), ("ADDED", &json!("p")));
        // Who wrote it is known by the name that all requests carry.
        assert_eq!(change.object["metadata"]["managedFields"][0]["manager"], "avocet");
        let refused = client.get::<SiteSpec>("", "nowhere").await.unwrap_err();
        assert_eq!(refused.code(), Some(404));
        // What may be large goes another way, to the same hub.
        assert_eq!(client.in_bulk().list::<SiteSpec>("").await.unwrap().0.len(), 2);
    }
}

#[tokio::test]
async fn promise_7_who_shows_what_is_not_taken_hears_that_it_was_that() {
    let (authority, stranger) = (TestAuthority::new(), TestAuthority::new());
    let hub = SecureHub::with(&authority).await;
    let ca = authority.authority.certificate();
    let long_ago = types::Time(daemon::now().0.checked_sub(HOUR * 2).unwrap());
    let base = format!("https://localhost:{}", hub.address.port());
    for pair in [
        authority.client("anna", "system:masters", HOUR, long_ago),
        stranger.client("anna", "system:masters", HOUR, daemon::now()),
    ] {
        let identity = format!("{}\n{}", pair.key, pair.certificate);
        let client = Client::with_certificate(&base, ca, &identity).unwrap().with_patience(PATIENCE);
        for _ in 0..3 {
            let refused = client.list::<SiteSpec>("").await.unwrap_err();
            assert!(refused.is_unproven(), "{}", daemon::chain(&refused));
        }
    }
    let anna = authority.client("anna", "system:masters", HOUR, daemon::now());
    let identity = format!("{}\n{}", anna.key, anna.certificate);
    let other = stranger.authority.certificate();
    let client = Client::with_certificate(&base, other, &identity).unwrap().with_patience(PATIENCE);
    let unknown = client.list::<SiteSpec>("").await.unwrap_err();
    assert!(matches!(unknown, client::Error::UnknownAuthority { .. }), "{}", daemon::chain(&unknown));
}

#[tokio::test]
async fn requests_are_answered_in_any_order_and_who_asks_is_known() {
    let (_hub, connection) = connected().await;
    let path = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    let review = read(send(&connection, Method::POST, path, &json!({})).await).await;
    assert_eq!(review["status"]["userInfo"]["username"], "anna");
    let path = resource(PLACEMENTS);
    let watch = send(&connection, Method::GET, &format!("{path}?watch=true"), &Value::Null).await;
    let makes = (0..40).map(|number| {
        let (connection, path) = (connection.clone(), path.clone());
        async move {
            let made = send(&connection, Method::POST, &path, &placement(&format!("p{number}"))).await;
            assert_eq!(made.status(), 201);
            read(made).await["metadata"]["name"].clone()
        }
    });
    let made = futures::future::join_all(makes).await;
    for (number, name) in made.iter().enumerate() {
        assert_eq!(*name, json!(format!("p{number}")));
    }
    let mut seen = Vec::new();
    let mut body = watch.into_body();
    while seen.iter().filter(|byte| **byte == b'\n').count() < 40 {
        seen.extend_from_slice(&body.next().await.unwrap().unwrap());
    }
    assert_eq!(get(&connection, &path).await["items"].as_array().unwrap().len(), 40);
}

#[tokio::test]
async fn an_answer_of_many_frames_arrives_whole() {
    let (_hub, connection) = connected().await;
    let (text, path) = ("x".repeat(60_000), "/api/v1/namespaces/default/configmaps");
    for number in 0..30 {
        let made = json!({"metadata": {"name": format!("c{number}")}, "data": {"text": text}});
        let made = send(&connection, Method::POST, path, &made).await;
        assert_eq!(made.status(), 201);
    }
    let list = get(&connection, path).await;
    let items = list["items"].as_array().unwrap();
    assert_eq!(items.len(), 30);
    assert!(items.iter().all(|item| item["data"]["text"] == json!(text)));
}

#[tokio::test]
async fn so_many_requests_may_be_open_and_one_that_nobody_waits_for_is_not() {
    let (_hub, mut stream) = start().await;
    let watch = format!("GET {}?watch=true HTTP/1.1\r\n\r\n", resource(PLACEMENTS)).into_bytes();
    for number in 1..=65 {
        stream.write_all(&frame(2, number, &watch)).await.unwrap();
    }
    let (mut open, mut refused) = (0, 0);
    while open + refused < 65 {
        match next(&mut stream).await {
            (4, _, head) if head.starts_with(b"HTTP/1.1 200 ") => open += 1,
            (4, _, head) => {
                assert!(head.starts_with(b"HTTP/1.1 429 "), "{}", String::from_utf8_lossy(&head));
                refused += 1;
            }
            (5, _, said) if refused == 1 => {
                assert!(String::from_utf8_lossy(&said).contains("64 requests are open"));
            }
            (5 | 6, ..) => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((open, refused), (64, 1));
    stream.write_all(&frame(3, 1, b"")).await.unwrap();
    // The hub hears of it in its own time.
    for number in 100.. {
        stream.write_all(&frame(2, number, &watch)).await.unwrap();
        let head = loop {
            match next(&mut stream).await {
                (4, found, head) if found == number => break head,
                _ => {}
            }
        };
        if head.starts_with(b"HTTP/1.1 200 ") {
            return;
        }
    }
}

#[tokio::test]
async fn what_is_wrong_with_a_request_is_said_and_the_connection_goes_on() {
    let (_hub, mut stream) = start().await;
    // Of later versions, and more of what nobody asked for.
    let mut sent = [frame(77, 3, b"news"), frame(3, 9, b""), frame(5, 9, b"data")].concat();
    let long = format!("GET / HTTP/1.1\r\na: {}\r\n\r\n", "b".repeat(64 << 10));
    for (stream, payload) in [
        (1, &b"GET /healthz HTTP/1.1\r\n"[..]),
        (2, b"\x00\xff"),
        (3, b"GET nonsense HTTP/1.1\r\n\r\n"),
        (4, b""),
        (5, long.as_bytes()),
    ] {
        sent.extend(frame(2, stream, payload));
    }
    sent.extend(frame(8, 0, b""));
    stream.write_all(&sent).await.unwrap();
    let (mut refused, mut ponged) = (0, false);
    while refused < 5 || !ponged {
        match next(&mut stream).await {
            (4, _, head) => {
                assert!(head.starts_with(b"HTTP/1.1 400 "), "{}", String::from_utf8_lossy(&head));
                refused += 1;
            }
            (9, 0, _) => ponged = true,
            (5 | 6, 1..=5, _) => {}
            other => panic!("{other:?}"),
        }
    }
    stream.write_all(&frame(2, 6, b"GET /readyz HTTP/1.1\r\n\r\n")).await.unwrap();
    loop {
        if let (4, 6, head) = next(&mut stream).await {
            assert!(head.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&head));
            return;
        }
    }
}

#[tokio::test]
async fn promise_7_who_shows_no_certificate_is_not_multiplexed_for() {
    let authority = TestAuthority::new();
    let hub = SecureHub::with(&authority).await;
    let mut config = tls::client(authority.authority.certificate()).unwrap();
    config.alpn_protocols = vec![tls::MULTIPLEXED.to_vec()];
    let connector = TlsConnector::from(Arc::new(config));
    let stream = TcpStream::connect(hub.address).await.unwrap();
    let mut stream = connector.connect(NAME.try_into().unwrap(), stream).await.unwrap();
    let _ = stream.write_all(&frame(2, 1, b"GET /healthz HTTP/1.1\r\n\r\n")).await;
    let mut said = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut said)).await.unwrap();
    assert_eq!(said, b"");
}

#[tokio::test]
async fn frames_that_can_not_be_meant_end_the_connection() {
    let watch = format!("GET {}?watch=true HTTP/1.1\r\n\r\n", resource(PLACEMENTS)).into_bytes();
    let wrong = [
        // Larger than a request may be.
        vec![2, 0x10, 0, 1, 0, 0, 0, 1],
        // As a stream that can't be, and one that is open.
        frame(2, 0, &watch),
        [frame(2, 7, &watch), frame(2, 7, &watch)].concat(),
        frame(1, 0, b"no: end\r\n"),
        frame(1, 0, format!("a: {}\r\n\r\n", "b".repeat(8 << 10)).as_bytes()),
        frame(1, 0, b"in valid\x00\r\n\r\n"),
    ];
    for sent in wrong {
        let (_hub, mut stream) = start().await;
        stream.write_all(&sent).await.unwrap();
        let mut rest = Vec::new();
        let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut rest)).await.unwrap();
    }
}

#[tokio::test]
async fn what_is_open_ends_with_the_hub_and_nothing_new_is_asked() {
    let (hub, connection) = connected().await;
    let watch = format!("{}?watch=true", resource(PLACEMENTS));
    let watch = send(&connection, Method::GET, &watch, &Value::Null).await;
    let wait = send(&connection, Method::GET, "/avocet/v1/mailbox/plant?wait=120", &Value::Null).await;
    hub.hub.tasks.end(Duration::from_millis(1)).await;
    let ended: Result<Vec<Bytes>, _> = watch.into_body().try_collect().await;
    ended.unwrap();
    assert_eq!(read(wait).await["deliveries"], json!([]));
    let request = Request::builder().uri("/healthz").body(Bytes::new()).unwrap();
    let refused = connection.send(&request).await.err().unwrap();
    assert_eq!(refused.kind(), std::io::ErrorKind::NotConnected);
    assert!(!connection.is_open());
}

#[tokio::test]
async fn a_path_with_spaces_or_lines_does_not_become_another_request() {
    let (_hub, connection) = connected().await;
    // What a URI can't have it can't smuggle either.
    assert!(Request::builder().uri("/healthz HTTP/1.1\r\nx: y").body(()).is_err());
    let odd = get(&connection, "/api/v1/namespaces/default/configmaps/a%20HTTP%2F1.1%0D%0Ax:%20y").await;
    assert_eq!(odd["code"], 404);
    assert!(client::path("sites", "", "a").ends_with("/sites/a"));
}
