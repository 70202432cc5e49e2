//! Small applications, and shorthands to feed them and look at what becomes of it.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use testkit::{Hub, LIMIT, Ran, Site, Tree, wait_until};
use types::Digest;

/// A file of the repository, by its path from this package: tests run in its folder, wherever they were built.
pub fn ours(path: &str) -> PathBuf {
    std::path::absolute(path).unwrap()
}

pub fn tree() -> Tree {
    Tree::new(env!("CARGO_BIN_EXE_avocet"))
}

fn manifest(kind: &str, name: &str, spec: &Value) -> Value {
    json!({"apiVersion": "avocet.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec})
}

/// On every site of a tier; its name is the tier's.
pub fn placement(tier: &str) -> Value {
    manifest("Placement", tier, &json!({"tiers": [tier]}))
}

/// A function whose code is this file; the end of the file's name says which runtime it wants.
pub fn function(name: &str, file: &Path) -> Value {
    let runtime = if file.extension().is_some_and(|end| end == "py") { "python" } else { "shell" };
    let handler = file.file_name().unwrap().to_str();
    manifest("Function", name, &json!({"runtime": runtime, "handler": handler, "artifact": {"path": file}}))
}

/// A model that computes y = x * w + b.
pub fn model(name: &str) -> Value {
    let path = ours("../inference/tests/data/affine.onnx");
    manifest("Model", name, &json!({"versions": [{"name": "1", "artifact": {"path": path}}]}))
}

pub fn application(name: &str, components: &Value) -> Value {
    manifest("Application", name, &json!({"components": components}))
}

/// A component whose function has the component's name and moves things from one folder to another.
pub fn step(name: &str, tier: &str, from: &str, to: &str) -> Value {
    json!({
        "name": name, "placement": tier, "function": name, "inputs": [{"path": from}], "outputs": [{"path": to}],
    })
}

/// So many bytes that nothing on the way could make smaller; each seed has others.
pub fn noise(seed: &str, bytes: usize) -> Vec<u8> {
    let mut state = Digest::of(seed.as_bytes());
    let next = || {
        state = Digest::of(state.to_string().as_bytes());
        state.hex().into_bytes()
    };
    std::iter::repeat_with(next).flatten().take(bytes).collect()
}

/// A component that serves one model.
pub fn serving(model: &str, tier: &str) -> Value {
    json!({"name": model, "placement": tier, "models": [model]})
}

/// Writes manifests into one file of the tree.
pub fn write_manifests(tree: &Tree, name: &str, manifests: &[Value]) -> String {
    // kubectl takes a file that begins with a brace for one of JSON alone.
    let documents: Vec<String> = manifests.iter().map(|manifest| format!("---\n{manifest}\n")).collect();
    tree.write(name, documents.concat()).display().to_string()
}

#[track_caller]
pub fn apply(tree: &Tree, hub: &Hub, manifests: &[Value]) {
    hub.cli(&["apply", "-f", &write_manifests(tree, "applied.yaml", manifests)]).ok();
}

/// The application `letters`, ready: what lands in `letters/in` at the edge is shouted there, and counted at the
/// cloud. Shouting fails for what says `poison`.
#[track_caller]
pub fn start_letters(tree: &Tree, hub: &Hub) {
    let shout = tree.write("functions/shout.sh", SHOUT);
    let count = tree.write("functions/count.sh", COUNT);
    let components = json!([
        step("shout", "edge", "letters/in", "letters/loud"),
        step("count", "cloud", "letters/loud", "letters/counts"),
    ]);
    let manifests = [
        placement("edge"),
        placement("cloud"),
        function("shout", &shout),
        function("count", &count),
        application("letters", &components),
    ];
    apply(tree, hub, &manifests);
    hub.wait_until_ready("letters");
}

const SHOUT: &str = r#"
if grep -q poison "$INPUT_FILE_PATH"; then
    echo "this letter is poisoned" >&2
    exit 3
fi
echo "shouting"
tr a-z A-Z < "$INPUT_FILE_PATH" > "$TMP_OUTPUT_DIR/$(basename "$INPUT_FILE_PATH")"
"#;

const COUNT: &str = r#"wc -c < "$INPUT_FILE_PATH" > "$TMP_OUTPUT_DIR/$(basename "$INPUT_FILE_PATH")""#;

/// Puts an object into a bucket by way of its site alone: hubs are not asked.
#[track_caller]
pub fn put(tree: &Tree, site: &Site, key: &str, content: &str) {
    let file = tree.write("put", content);
    site.cli(&["cp", &file.display().to_string(), &format!("{}:{key}", site.name)]).ok();
}

/// What is in a folder of a bucket: keys, sizes, times.
#[track_caller]
pub fn list(site: &Site, folder: &str) -> Vec<Value> {
    let place = format!("{}:{folder}", site.name);
    let listed = site.cli(&["ls", &place, "-o", "json"]);
    if listed.stderr.contains("bucket") && !listed.success { vec![] } else { to_vec(&listed.json()) }
}

pub fn to_vec(value: &Value) -> Vec<Value> {
    value.as_array().unwrap().clone()
}

/// Waits for an object and answers its content without white space around it.
#[track_caller]
pub fn wait_for_object(tree: &Tree, site: &Site, key: &str) -> String {
    wait_for_content(tree, site, key, |_| true)
}

/// Waits until an object has the content that is looked for.
#[track_caller]
pub fn wait_for_content(tree: &Tree, site: &Site, key: &str, is_it: impl Fn(&str) -> bool) -> String {
    let (place, file) = (format!("{}:{key}", site.name), tree.folder().join("got"));
    wait_until(&format!("{place} is there"), LIMIT, || {
        let Ran { success, stderr, .. } = site.cli(&["cp", &place, &file.display().to_string()]);
        if !success {
            return Err(stderr);
        }
        let content = std::fs::read_to_string(&file).unwrap().trim().to_owned();
        if is_it(&content) { Ok(content) } else { Err(content) }
    })
}

/// The invocations of a site for objects of this key.
#[track_caller]
pub fn invocations_of(site: &Site, key: &str) -> Vec<Value> {
    site.invocations().into_iter().filter(|invocation| invocation["key"] == key).collect()
}

/// Waits until the one invocation for a key is in a state.
#[track_caller]
pub fn wait_for_state(site: &Site, key: &str, state: &str) -> Value {
    wait_until(&format!("the invocation for {key} is {state}"), LIMIT, || {
        let found = invocations_of(site, key);
        match found.as_slice() {
            [one] if one["state"] == state => Ok(one.clone()),
            other => Err(format!("{other:?}")),
        }
    })
}

/// Asks a server over plain HTTP, which hubs and sites take on loopback. A body that is null is not sent.
pub fn http(method: &str, url: &str, token: &str, body: &Value) -> Result<(u16, String), String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let client = api::client::http(None).unwrap();
        let mut request = client.request(method.parse().unwrap(), url).bearer_auth(token);
        if !body.is_null() {
            request = request.json(body);
        }
        let response = request.send().await.map_err(|error| format!("{error:?}"))?;
        let code = response.status().as_u16();
        Ok((code, response.text().await.map_err(|error| format!("{error:?}"))?))
    })
}

/// Waits until a site answers with what [`model`] makes of four zeros.
#[track_caller]
pub fn wait_until_model_answers(site: &Site, name: &str) {
    let url = format!("{}/v2/models/{name}/infer", site.access("inference"));
    let input = json!({"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [0.0, 0.0, 0.0, 0.0]});
    wait_until(&format!("model {name} answers"), LIMIT, || {
        let (code, body) = http("POST", &url, "", &json!({"inputs": [input]}))?;
        if code != 200 {
            return Err(format!("{code}: {body}"));
        }
        let answer: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(answer["outputs"][0]["data"], json!([1.0, 2.0, 3.0]));
        Ok(())
    });
}

/// Where the hub's registry listens.
pub fn registry(hub: &Hub) -> String {
    let said = hub.process.output();
    said.lines().find_map(|line| line.strip_prefix("registry is up: ")).unwrap().to_owned()
}

/// The admin's token.
pub fn token(hub: &Hub) -> String {
    let kubeconfig = std::fs::read_to_string(hub.kubeconfig()).unwrap();
    let value = kubeconfig.split("token").nth(1).unwrap();
    value.chars().skip_while(|c| !c.is_ascii_hexdigit()).take_while(char::is_ascii_hexdigit).collect()
}
