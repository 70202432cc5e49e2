//! Real S3 clients against the front.

use std::process::Command;
use std::time::Duration;

use avocet_objects::front::{Credentials, serve};
use daemon::Tasks;
use tokio::net::TcpListener;

use super::Site;

const ACCESS_KEY: &str = "avocet-test";
const SECRET_KEY: &str = "not-a-secret-0123456789";

async fn start(site: &Site, tasks: &Tasks) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let credentials = Credentials::new(ACCESS_KEY, SECRET_KEY).unwrap();
    tasks.spawn("s3", serve(listener, site.objects.clone(), credentials, tasks.shutdown()));
    format!("http://{address}")
}

/// Needs a Python with boto3, named by `AVOCET_TEST_PYTHON`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn boto3_finds_what_it_knows_from_s3() {
    let Ok(python) = std::env::var("AVOCET_TEST_PYTHON") else {
        println!("skipped: AVOCET_TEST_PYTHON names no Python with boto3");
        return;
    };
    let site = Site::new().await;
    let tasks = Tasks::default();
    let endpoint = start(&site, &tasks).await;
    let session = tokio::task::spawn_blocking(move || {
        Command::new(python)
            .arg("tests/clients/boto3_session.py")
            .args([&endpoint, ACCESS_KEY, SECRET_KEY])
            .output()
            .unwrap()
    });
    let output = session.await.unwrap();
    print!("{}", String::from_utf8_lossy(&output.stdout));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    // What came through S3 is there with its changes.
    let changes = site.objects.changes(0, 10_000).await.unwrap();
    assert!(changes.iter().any(|change| change.bucket == "session" && change.key == "large.bin"));
    assert!(tasks.end(Duration::from_secs(30)).await);
}

/// One request over a connection of its own; the answer's head and body.
async fn ask(endpoint: &str, request: &str) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(endpoint.trim_start_matches("http://")).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn nobody_gets_in_without_the_key_pair() {
    let site = Site::new().await;
    site.put("secret.txt", "the content").await;
    let tasks = Tasks::default();
    let endpoint = start(&site, &tasks).await;
    let head = "Host: localhost\r\nConnection: close\r\n";
    for line in ["GET / HTTP/1.1", "GET /data/secret.txt HTTP/1.1", "DELETE /data/secret.txt HTTP/1.1"] {
        let answer = ask(&endpoint, &format!("{line}\r\n{head}\r\n")).await;
        assert!(answer.starts_with("HTTP/1.1 403") && answer.contains("AccessDenied"), "{answer}");
    }
    let form = "--b\r\nContent-Disposition: form-data; name=\"key\"\r\n\r\nk\r\n\
        --b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"f\"\r\n\r\nbytes\r\n--b--\r\n";
    let length = form.len();
    let posted = format!(
        "POST /data HTTP/1.1\r\n{head}Content-Type: multipart/form-data; boundary=b\r\nContent-Length: {length}\r\n\r\n{form}"
    );
    let answer = ask(&endpoint, &posted).await;
    assert!(answer.starts_with("HTTP/1.1 4"), "{answer}");
    assert_eq!(site.objects.latest_sequence(), 1);
    assert!(tasks.end(Duration::from_secs(5)).await);
}

#[tokio::test]
async fn a_shutdown_ends_idle_connections() {
    let site = Site::new().await;
    let tasks = Tasks::default();
    let endpoint = start(&site, &tasks).await;
    let _idle = tokio::net::TcpStream::connect(endpoint.trim_start_matches("http://")).await.unwrap();
    tokio::task::yield_now().await;
    assert!(tasks.end(Duration::from_secs(10)).await);
}
