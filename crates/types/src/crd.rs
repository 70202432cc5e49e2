//! The kinds as CustomResourceDefinitions, for a real Kubernetes API server.

use serde_json::{Map, Value, json};

use crate::core::{
    CustomResourceDefinitionSpec, CustomResourceDefinitionStatus, DefinitionNames, DefinitionVersion,
    PrinterColumn, SelectableField, VersionDetails,
};
use crate::{Cell, Column, Condition, ConditionStatus, GROUP, KEYED_LISTS, Kind, KindInfo, Time, VERSION};

/// The CustomResourceDefinition of a kind, without what is the same in all: empty lists, zeros.
pub fn custom_resource_definition(info: &KindInfo) -> Value {
    let columns: Vec<PrinterColumn> = info.columns.iter().filter_map(printer_column).collect();
    let mut subresources = Map::from_iter([("status".to_owned(), json!({}))]);
    if let Some(scale) = info.scale {
        let paths =
            json!({"specReplicasPath": scale.spec_replicas, "statusReplicasPath": scale.status_replicas});
        subresources.insert("scale".to_owned(), paths);
    }
    let selectable =
        info.selectable.iter().map(|field| SelectableField { json_path: format!(".{field}") }).collect();
    let version = DefinitionVersion {
        name: VERSION.to_owned(),
        served: true,
        storage: true,
        about: VersionDetails {
            schema: Map::from_iter([("openAPIV3Schema".to_owned(), structural_schema(info))]),
            subresources,
            additional_printer_columns: columns,
            selectable_fields: selectable,
        },
    };
    let spec = CustomResourceDefinitionSpec {
        group: GROUP.to_owned(),
        names: definition_names(info),
        scope: if info.namespaced { "Namespaced" } else { "Cluster" }.to_owned(),
        versions: vec![version],
        ..CustomResourceDefinitionSpec::default()
    };
    json!({
        "apiVersion": CustomResourceDefinitionSpec::api_version(), "kind": CustomResourceDefinitionSpec::KIND,
        "metadata": {"name": info.qualified()}, "spec": spec,
    })
}

/// What a server says of the definition of a kind that it serves since then.
pub fn definition_status(info: &KindInfo, since: Time) -> CustomResourceDefinitionStatus {
    let condition = |kind: &str, reason: &str, message: &str| Condition {
        kind: kind.to_owned(),
        status: ConditionStatus::True,
        observed_generation: 0,
        last_transition_time: since,
        reason: reason.to_owned(),
        message: message.to_owned(),
    };
    CustomResourceDefinitionStatus {
        conditions: vec![
            condition("NamesAccepted", "NoConflicts", "no conflicts found"),
            condition("Established", "InitialNamesAccepted", "the initial names have been accepted"),
        ],
        accepted_names: definition_names(info),
        stored_versions: vec![VERSION.to_owned()],
    }
}

fn definition_names(info: &KindInfo) -> DefinitionNames {
    let texts = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    DefinitionNames {
        plural: info.plural.to_owned(),
        singular: info.singular.to_owned(),
        short_names: texts(info.short_names),
        kind: info.kind.to_owned(),
        list_kind: format!("{}List", info.kind),
        categories: texts(info.categories),
    }
}

fn printer_column(column: &Column) -> Option<PrinterColumn> {
    let path = match column.cell {
        Cell::Path(".metadata.name") | Cell::Computed(_) => return None,
        Cell::Path(path) => path,
        Cell::Age(paths) => paths.first()?,
    };
    Some(PrinterColumn {
        name: column.name.to_owned(),
        kind: column.format.to_owned(),
        description: column.description.to_owned(),
        priority: i32::from(column.priority),
        json_path: path.to_owned(),
        ..PrinterColumn::default()
    })
}

/// The schema as the Kubernetes API wants it: metadata is the server's, lists with keys say so, nothing that a
/// structural schema forbids.
pub fn structural_schema(info: &KindInfo) -> Value {
    let mut schema = (info.schema)().to_value();
    clean(&mut schema);
    if let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) {
        info.rename_fields(properties);
        properties.insert("metadata".into(), json!({"type": "object"}));
        properties.insert("apiVersion".into(), json!({"type": "string"}));
        properties.insert("kind".into(), json!({"type": "string"}));
    }
    if let Some(fields) = schema.as_object_mut() {
        fields.remove("required");
        if info.is_ours() {
            fields.insert("required".into(), json!(["spec"]));
        }
    }
    for (path, key) in KEYED_LISTS {
        let pointer: String = path.split('.').map(|name| format!("/properties/{name}")).collect();
        if let Some(list) = schema.pointer_mut(&pointer).and_then(Value::as_object_mut) {
            list.insert("x-kubernetes-list-type".into(), json!("map"));
            list.insert("x-kubernetes-list-map-keys".into(), json!([key]));
        }
    }
    if let Some(copied) = schema.pointer_mut(COPIED_SPEC).and_then(Value::as_object_mut) {
        copied.remove("x-kubernetes-validations");
    }
    schema
}

/// The specs of models in Assignments: copies of what was checked already, and too many for rules to be affordable by
/// Kubernetes' estimate.
const COPIED_SPEC: &str = "/properties/spec/properties/models/items/properties/spec";

/// The schema of the metadata that all resources have.
pub fn metadata_schema() -> Value {
    let mut schema = crate::registry::schema_of::<crate::ObjectMeta>().to_value();
    clean(&mut schema);
    schema
}

/// Formats that Kubernetes knows, and those of numbers.
const FORMATS: [&str; 13] = [
    "int32",
    "int64",
    "double",
    "float",
    "date-time",
    "date",
    "duration",
    "uri",
    "hostname",
    "ipv4",
    "ipv6",
    "uuid",
    "byte",
];

fn clean(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            fields.retain(|name, value| match name.as_str() {
                "$schema" | "title" => false,
                // A null says the same as nothing, and goes away before anything is checked.
                "nullable" => false,
                "default" => !value.is_null(),
                "additionalProperties" => !value.is_boolean(),
                "format" => value.as_str().is_some_and(|format| FORMATS.contains(&format)),
                _ => true,
            });
            for (name, value) in fields.iter_mut() {
                match (name.as_str(), value) {
                    ("default" | "enum" | "x-kubernetes-validations", _) => {}
                    ("properties", Value::Object(properties)) => properties.values_mut().for_each(clean),
                    (_, value) => clean(value),
                }
            }
            join_variants(fields);
        }
        Value::Array(entries) => entries.iter_mut().for_each(clean),
        _ => {}
    }
}

/// A structural schema has one type a value: words to choose from become one list of them, and something or null
/// becomes that something.
fn join_variants(fields: &mut Map<String, Value>) {
    for union in ["oneOf", "anyOf"] {
        let Some(Value::Array(variants)) = fields.remove(union) else { continue };
        let mut words = Vec::new();
        for variant in variants {
            let Value::Object(variant) = variant else { continue };
            match variant.get("enum").and_then(Value::as_array) {
                Some(choices) => words.extend(choices.iter().filter(|choice| !choice.is_null()).cloned()),
                // Its own description is of the type; the field's is better known here.
                None => fields.extend(variant.into_iter().filter(|(name, _)| name != "description")),
            }
        }
        if !words.is_empty() {
            fields.insert("type".into(), json!("string"));
            fields.insert("enum".into(), json!(words));
        }
    }
}
