use avocet_sources::{Error, Helm, Tree, build};
use serde_json::json;

const TEMPLATE: &str = "apiVersion: v1
kind: ConfigMap
metadata:
  name: {{ .Release.Name }}-settings
data:
  size: {{ .Values.size | quote }}
  color: {{ .Values.color | quote }}
";

fn chart() -> Tree {
    let files = [
        ("chart/Chart.yaml", "apiVersion: v2\nname: settings\nversion: 1.0.0\n"),
        ("chart/values.yaml", "size: small\ncolor: red\n"),
        ("chart/north.yaml", "size: middle\ncolor: blue\n"),
        ("chart/templates/settings.yaml", TEMPLATE),
    ];
    Tree::of_files(files.iter().map(|(path, text)| ((*path).to_owned(), text.as_bytes().to_vec())).collect())
}

fn release(value_file: &str) -> Helm {
    let values = json!({"size": "large"}).as_object().unwrap().clone();
    Helm { release: "r".into(), namespace: "n".into(), values, value_files: vec![value_file.into()] }
}

#[test]
fn a_chart_is_rendered_by_the_real_helm_or_says_that_it_is_missing() {
    match build(&mut chart(), "chart", &release("north.yaml")) {
        Ok(built) => {
            assert_eq!(built[0].value["metadata"]["name"], "r-settings");
            assert_eq!(built[0].value["data"], json!({"size": "large", "color": "blue"}));
        }
        Err(error) => {
            println!("skipped: there is no helm here to render with");
            assert!(matches!(error, Error::Missing { program: "helm" }), "{error}");
            assert!(error.to_string().contains("`helm` is not installed"), "{error}");
        }
    }
}

#[test]
fn a_chart_that_becomes_larger_than_memory_is_refused_and_says_so() {
    let bomb = "a: {{ repeat 2000000000 \"a\" | quote }}\n";
    let files = [
        ("chart/Chart.yaml", "apiVersion: v2\nname: bomb\nversion: 1.0.0\n"),
        ("chart/templates/bomb.yaml", bomb),
    ];
    let files = files.iter().map(|(path, text)| ((*path).to_owned(), text.as_bytes().to_vec())).collect();
    let helm = Helm { release: "r".into(), namespace: "n".into(), ..Helm::default() };
    let told = build(&mut Tree::of_files(files), "chart", &helm).unwrap_err();
    if matches!(told, Error::Missing { .. }) {
        println!("skipped: there is no helm here to render with");
        return;
    }
    assert_eq!(told.reason(), "TooLarge", "{told}");
    assert!(told.to_string().contains("helm needs more than the 1024 MiB of memory"), "{told}");
}

#[test]
fn files_of_values_are_files_of_the_chart() {
    for file in ["../outside.yaml", "gone.yaml"] {
        let told = build(&mut chart(), "chart", &release(file)).unwrap_err().to_string();
        assert!(told.contains("is no file of the chart"), "{told}");
    }
}
