//! Each overlay is built here and by the real kustomize within kubectl; both must make the same of it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;

use avocet_sources::{Helm, Tree, build};
use serde_json::Value;

type Objects = BTreeMap<String, Value>;

fn by_name(values: impl IntoIterator<Item = Value>) -> Objects {
    let named = values.into_iter().map(|value| {
        let text =
            |pointer: &str| value.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
        (format!("{} {}/{}", text("/kind"), text("/metadata/namespace"), text("/metadata/name")), value)
    });
    named.collect()
}

fn ours(files: &[(&str, &str)], path: &str) -> Result<Objects, String> {
    let files = files.iter().map(|(path, text)| ((*path).to_owned(), text.as_bytes().to_vec()));
    let built = build(&mut Tree::of_files(files.collect()), path, &Helm::default());
    Ok(by_name(built.map_err(|error| error.to_string())?.into_iter().map(|manifest| manifest.value)))
}

/// What the newest kubectl makes of it; `None` where there is none.
fn theirs(files: &[(&str, &str)], path: &str) -> Option<Objects> {
    let named = std::env::var_os("AVOCET_TEST_KUBECTL").unwrap_or_else(|| "kubectl".into());
    let program: PathBuf = std::env::split_paths(&named).last()?;
    let folder = tempfile::tempdir().unwrap();
    for (path, text) in files {
        let file = folder.path().join(path);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, text).unwrap();
    }
    let Ok(output) = Command::new(program).arg("kustomize").arg(folder.path().join(path)).output() else {
        println!("skipped: there is no kubectl to compare with");
        return None;
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let documents: Vec<Value> =
        serde_saphyr::from_multiple(&String::from_utf8(output.stdout).unwrap()).unwrap();
    Some(by_name(documents))
}

#[track_caller]
fn same(files: &[(&str, &str)], path: &str) -> Objects {
    let ours = ours(files, path).unwrap();
    if let Some(theirs) = theirs(files, path) {
        assert_eq!(ours.keys().collect::<Vec<_>>(), theirs.keys().collect::<Vec<_>>());
        for (name, object) in &ours {
            assert_eq!(object, &theirs[name], "{name}");
        }
    }
    ours
}

const APPLICATION: &str = "apiVersion: avocet.dev/v1alpha1
kind: Application
metadata:
  name: letters
  labels: {team: vision}
spec:
  components:
  - {name: count, placement: edge, function: count}
";
const PLACEMENT: &str = "apiVersion: avocet.dev/v1alpha1
kind: Placement
metadata:
  name: edge
spec:
  numberOfSites: 1
  predicates:
  - labels: {matchLabels: {line: a}}
";
const BASE: &str = "resources: [application.yaml, placement.yaml]\n";

#[test]
fn namespaces_labels_and_annotations_are_put_on_all() {
    let built = same(
        &[
            ("base/kustomization.yaml", BASE),
            ("base/application.yaml", APPLICATION),
            ("base/placement.yaml", PLACEMENT),
            (
                "overlays/north/kustomization.yaml",
                "apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
resources: [../../base, role.yaml]
namespace: north
labels:
- pairs: {plant: north}
commonAnnotations: {owner: 'anna, bert'}
",
            ),
            (
                "overlays/north/role.yaml",
                "apiVersion: v1
kind: Namespace
metadata: {name: any}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: reads}
rules: []
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: robot}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: reads}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: reads}
subjects:
- {kind: ServiceAccount, name: robot, namespace: elsewhere}
- {kind: ServiceAccount, name: robot}
- {kind: ServiceAccount, name: default, namespace: elsewhere}
",
            ),
        ],
        "overlays/north",
    );
    assert_eq!(built["Application north/letters"]["metadata"]["labels"]["plant"], "north");
    assert!(built.contains_key("ClusterRole /reads"));
}

#[test]
fn patches_find_what_they_are_for() {
    let files = [
        ("base/kustomization.yaml", "resources: [application.yaml, placement.yaml]\nnamePrefix: a-\n"),
        ("base/application.yaml", APPLICATION),
        ("base/placement.yaml", PLACEMENT),
        (
            "north/kustomization.yaml",
            "resources: [../base]
nameSuffix: -n
patches:
- path: sites.yaml
- target: {kind: Placement}
  patch: |-
    - op: replace
      path: /spec/numberOfSites
      value: 3
- target: {labelSelector: team=vision, name: 'a?-?letters'}
  patch: |-
    apiVersion: avocet.dev/v1alpha1
    kind: Application
    metadata: {name: whatever, annotations: {patched: 'yes'}}
- target: {kind: Nothing}
  patch: |-
    - op: remove
      path: /spec
",
        ),
        (
            "north/sites.yaml",
            "apiVersion: avocet.dev/v1alpha1
kind: Placement
metadata: {name: a-edge}
spec:
  predicates:
  - labels: {matchLabels: {line: b}}
  extra: {deep: 1}
",
        ),
    ];
    let mut built = ours(&files, "north").unwrap();
    let placement = &built["Placement /a-edge-n"]["spec"];
    assert_eq!(placement["numberOfSites"], 3);
    assert_eq!(placement["predicates"][0]["labels"]["matchLabels"]["line"], "b");
    assert_eq!(built["Application /a-letters-n"]["metadata"]["annotations"]["patched"], "yes");
    let application = built.get_mut("Application /a-letters-n").unwrap();
    let named = application["spec"]["components"][0]["placement"].take();
    assert_eq!(named, "a-edge-n", "kustomize knows no references of our kinds; here they are followed");
    if let Some(mut theirs) = theirs(&files, "north") {
        theirs.get_mut("Application /a-letters-n").unwrap()["spec"]["components"][0]["placement"].take();
        assert_eq!(built, theirs);
    }
}

#[test]
fn old_forms_of_patches_are_known() {
    same(
        &[
            (
                "kustomization.yaml",
                "resources: [application.yaml, placement.yaml]
patchesStrategicMerge:
- merge.yaml
patchesJson6902:
- target: {group: avocet.dev, version: v1alpha1, kind: Application, name: letters}
  path: operations.json
",
            ),
            ("application.yaml", APPLICATION),
            ("placement.yaml", PLACEMENT),
            (
                "merge.yaml",
                "apiVersion: avocet.dev/v1alpha1
kind: Placement
metadata: {name: edge}
$patch: delete
",
            ),
            ("operations.json", r#"[{"op": "add", "path": "/metadata/labels/new", "value": "1"}]"#),
        ],
        ".",
    );
}

#[test]
fn generated_names_change_with_their_content() {
    let kustomization = "namespace: north
namePrefix: p-
generatorOptions:
  labels: {generated: 'yes'}
configMapGenerator:
- name: plain
  literals: [a=1, 'b=<x> & \"y\"', 'c=\"quoted\"']
  files: [settings.ini, other=deep/file.txt]
- name: fixed
  envs: [variables.env]
  options: {disableNameSuffixHash: true, annotations: {note: v}, immutable: true}
- name: empty
secretGenerator:
- name: token
  type: example.com/token
  literals: [token=abc]
- name: usual
  files: [settings.ini]
";
    let files = [
        ("kustomization.yaml", kustomization),
        ("settings.ini", "[a]\nb = ü\n"),
        ("deep/file.txt", "deep"),
        ("variables.env", "# comment\nX=1\n\nY=a=b\n"),
    ];
    let built = same(&files, ".");
    assert!(built.contains_key("ConfigMap north/p-fixed"));
    let other = kustomization.replace("a=1", "a=2");
    let changed = ours(&[("kustomization.yaml", &other), files[1], files[2], files[3]], ".").unwrap();
    let plain = |objects: &Objects| objects.keys().find(|name| name.contains("p-plain")).unwrap().clone();
    assert_ne!(plain(&built), plain(&changed));
}

#[test]
fn overlays_merge_and_replace_what_bases_generate() {
    same(
        &[
            (
                "base/kustomization.yaml",
                "configMapGenerator:\n- name: m\n  literals: [a=1, b=2]\n- name: r\n  literals: [a=1]\n",
            ),
            (
                "top/kustomization.yaml",
                "resources: [../base]
configMapGenerator:
- {name: m, behavior: merge, literals: [b=3, c=4]}
- {name: r, behavior: replace, literals: [z=1]}
",
            ),
        ],
        "top",
    );
}

#[test]
fn images_of_containers_are_replaced() {
    same(
        &[
            (
                "kustomization.yaml",
                "resources: [d.yaml]\nimages:\n- {name: app, newName: reg.example/app, newTag: v2}\n- {name: side, digest: 'sha256:aa'}\n",
            ),
            (
                "d.yaml",
                "apiVersion: apps/v1
kind: Deployment
metadata: {name: d}
spec:
  template:
    spec:
      containers: [{name: a, image: 'app:v1'}, {name: b, image: application}]
      initContainers: [{name: c, image: side}]
",
            ),
        ],
        ".",
    );
}

#[test]
fn replicas_are_for_whatever_can_be_scaled() {
    let kustomization = "resources: [placement.yaml]\nreplicas: [{name: edge, count: 4}]\n";
    let built = ours(&[("kustomization.yaml", kustomization), ("placement.yaml", PLACEMENT)], ".").unwrap();
    assert_eq!(built["Placement /edge"]["spec"]["numberOfSites"], 4);
}

#[test]
fn what_is_not_known_is_refused_by_its_name() {
    for (kustomization, told) in [
        ("helmCharts: []\n", "unknown field `helmCharts`"),
        ("resources: [../../x]\n", "outside of the repository"),
        ("resources: [gone.yaml]\n", "which is not in the repository"),
        ("resources: ['https://example.com/x.yaml']\n", "nothing is fetched from elsewhere"),
        ("resources: [o]\n", "has no kustomization.yaml"),
        ("resources: [../a]\n", "is its own base"),
        ("kind: Component\n", "only Kustomization is known"),
        ("patches: [{target: {kind: '('}, patch: '{}'}]\n", "has a target with"),
        ("configMapGenerator: [{name: x, literals: [a]}]\n", "write KEY=VALUE"),
    ] {
        let files = [("a/kustomization.yaml", kustomization), ("a/o/x.txt", "")];
        let found = ours(&files, "a").unwrap_err();
        assert!(found.contains(told) && found.starts_with("a/"), "{kustomization}: {found}");
    }
}
