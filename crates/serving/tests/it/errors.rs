use std::path::Path;
use std::sync::{Arc, Mutex};

use inference::{
    Engine, EngineError, EngineInfo, Engines, LoadError, LoadOptions, LoadRequest, LoadedModel, Options,
    Repository, Signature, Tensor, read_signature,
};

use avocet_serving::{ServerState, router};

use crate::support::{app, get, model, post, repository, send, x};

const INFER: &str = "/v2/models/affine/infer";

#[tokio::test]
async fn what_the_client_can_correct_is_a_400_that_names_it() {
    let app = app();
    let fp32 = |name: &str, shape: &str, data: &str| x(shape, data).replace("\"x\"", &format!("\"{name}\""));
    for (body, message) in [
        (fp32("zz", "[1,4]", "[1,2,3,4]"), "model `affine`: unexpected input `zz`; the model takes `x`"),
        (
            x("[1,4]", "[1,2,3,4]").replace("FP32", "INT32"),
            "model `affine`: input `x` has datatype INT32 but the model takes FP32; send FP32",
        ),
        (
            x("[1,4]", "[1,2,3,4.5]").replace("FP32", "INT32"),
            "input `x` has the value `4.5` at element 3, which is no INT32; send INT32 values",
        ),
        (
            x("[1,5]", "[1,2,3,4]"),
            "tensor `x` of shape [1, 5] needs 5 elements but has 4; make `shape` and data agree",
        ),
        (
            x("[1,3]", "[1,2,3]"),
            "model `affine`: input `x` has shape [1, 3] but the model takes [-1, 4]; -1 stands for any size",
        ),
        (
            "{bad".into(),
            "the body is no inference request: key must be a string at line 1 column 2; see the Open Inference Protocol v2",
        ),
        (
            String::new(),
            "the body is no inference request: EOF while parsing a value at line 1 column 0; see the Open Inference Protocol v2",
        ),
        (r#"{"inputs":[]}"#.into(), "model `affine`: input `x` is missing; the model takes `x`"),
        (
            x("[1,4]", "[1,2,3,4]").replacen('{', r#"{"outputs":[{"name":"zz"}],"#, 1),
            "model `affine`: unexpected output `zz`; the model gives `y`",
        ),
    ] {
        let reply = post(&app, INFER, body.clone()).await;
        assert_eq!((reply.status.as_u16(), reply.error().as_str()), (400, message), "{body}");
        assert_eq!(reply.header("content-type"), Some("application/json"));
    }
    let headers = [("inference-header-content-length", "many")];
    assert_eq!(send(&app, "POST", INFER, &headers, "{}").await.status, 400);
    let reply =
        post(&app, "/v2/models/int64/infer", x("[1]", "[1099511627776]").replace("FP32", "INT64")).await;
    assert_eq!(reply.status, 400, "a value that the engine can't hold is the client's to change");
}

#[tokio::test]
async fn unknown_models_versions_and_routes_are_404_and_wrong_methods_405() {
    let app = app();
    let reply = post(&app, "/v2/models/nope/infer", x("[1]", "[1]")).await;
    assert_eq!(reply.status, 404);
    assert_eq!(reply.error(), "unknown model `nope`; list the models to see what this site serves");
    let reply = get(&app, "/v2/models/affine/versions/9").await;
    assert_eq!(reply.status, 404);
    assert_eq!(reply.error(), "model `affine` has no version `9`; loaded: 1, 2");
    for path in ["/", "/v2/", "/v2/nope", "/v2/models", "/v2/models/affine/versions/1/nope"] {
        let reply = get(&app, path).await;
        assert_eq!(reply.status, 404, "{path}");
        reply.error();
    }
    let reply = get(&app, INFER).await;
    assert_eq!((reply.status.as_u16(), reply.header("allow")), (405, Some("POST")));
    reply.error();
    assert_eq!(get(&app, "/v2/models/%FF%FE").await.status, 400);
}

#[tokio::test]
async fn bodies_over_the_limit_are_413_with_or_without_a_length_and_compressed() {
    let app = router(ServerState::new(repository()).body_limit(1000));
    let body = x("[1,4]", &format!("[1,2,3,4{}]", " ".repeat(2000)));
    let reply = post(&app, INFER, body.clone()).await;
    assert_eq!(reply.status, 413);
    assert!(reply.error().contains("limit of 1000 bytes"));
    let mut packed = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
    std::io::Write::write_all(&mut packed, body.as_bytes()).unwrap();
    let reply = send(&app, "POST", INFER, &[("content-encoding", "deflate")], packed.finish().unwrap()).await;
    assert_eq!(reply.status, 413);
    assert_eq!(send(&app, "POST", INFER, &[("content-encoding", "br")], "{}").await.status, 415);
    assert_eq!(post(&app, INFER, x("[1,4]", "[1,2,3,4]")).await.status, 200);
}

#[tokio::test]
async fn a_claimed_shape_over_the_limit_is_413() {
    let reply = post(&app(), INFER, x("[100000000,4]", "[1]")).await;
    assert_eq!(reply.status, 413);
}

/// Fails as its first input tells it: 1 reports an error, 2 panics, 3 waits.
struct Trouble(Arc<Mutex<()>>);

struct TroubleModel(Signature, Arc<Mutex<()>>);

impl Engine for Trouble {
    fn info(&self) -> EngineInfo {
        EngineInfo { name: "trouble", version: "1".into(), path: None }
    }

    fn load(&self, path: &Path, _: &LoadOptions) -> Result<Arc<dyn LoadedModel>, LoadError> {
        Ok(Arc::new(TroubleModel(read_signature(path).unwrap(), Arc::clone(&self.0))))
    }
}

impl LoadedModel for TroubleModel {
    fn signature(&self) -> &Signature {
        &self.0
    }

    fn instances(&self) -> usize {
        1
    }

    fn run(&self, inputs: &[Tensor], _: &[&str]) -> Result<Vec<Tensor>, EngineError> {
        let kind = inputs[0].elements::<f32>().unwrap()[0];
        match kind {
            1.0 => return Err(EngineError::Failed("out of memory".into())),
            2.0 => panic!("index out of bounds"),
            3.0 => drop(self.1.lock()),
            _ => {}
        }
        Ok(vec![Tensor::from_vec("y", [1], vec![kind]).unwrap()])
    }
}

fn trouble(lock: &Arc<Mutex<()>>) -> axum::Router {
    let engines = Engines::with(vec![Arc::new(Trouble(Arc::clone(lock)))]);
    let options = Options { workers: 1, queue: 1, warm_up: false, ..Options::default() };
    let repository = Repository::new(engines, options).unwrap();
    repository.load(LoadRequest::new("log", "1", model("log"))).unwrap();
    router(ServerState::new(repository))
}

#[tokio::test]
async fn an_engines_failure_or_panic_is_a_500_and_the_next_request_is_answered() {
    let app = trouble(&Arc::default());
    for (data, message) in [
        ("[1]", "model `log` version `1` failed: the engine failed: out of memory"),
        ("[2]", "model `log` version `1` failed: the engine panicked: index out of bounds"),
    ] {
        let reply = post(&app, "/v2/models/log/infer", x("[1]", data)).await;
        assert_eq!((reply.status.as_u16(), reply.error().as_str()), (500, message));
    }
    assert_eq!(post(&app, "/v2/models/log/infer", x("[1]", "[9]")).await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn overload_is_a_503_that_says_when_to_come_back() {
    let lock = Arc::new(Mutex::new(()));
    let app = trouble(&lock);
    let mut slow = tokio::task::JoinSet::new();
    let refused = {
        let _held = lock.lock().unwrap();
        // One runs, one waits, so of three at least one is refused at once.
        for _ in 0..3 {
            let app = app.clone();
            slow.spawn(async move { post(&app, "/v2/models/log/infer", x("[1]", "[3]")).await });
        }
        tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(slow.join_next()))
    };
    let refused = refused.unwrap().unwrap();
    assert_eq!((refused.status.as_u16(), refused.header("retry-after")), (503, Some("1")));
    assert!(refused.error().ends_with("requests are waiting already; try again in a moment"));
    while let Some(reply) = slow.join_next().await {
        let reply = reply.unwrap();
        assert!(reply.status == 200 || reply.status == 503);
    }
}
