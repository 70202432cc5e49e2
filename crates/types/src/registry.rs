//! All kinds, as data: what discovery, admission, tables and OpenAPI need to know of them.

use serde_json::Value;

use crate::{
    API_VERSION, ApplicationSpec, AssignmentSpec, FieldError, FieldErrors, FunctionSpec, Kind, ModelSpec,
    PlacementDecisionSpec, PlacementSpec, Resource, SiteSpec,
};

/// A column that `kubectl get` shows.
#[derive(Debug, Clone, Copy)]
pub struct Column {
    /// The heading.
    pub name: &'static str,
    /// `string`, `integer`, `boolean` or `date`.
    pub format: &'static str,
    /// Where the cell is found: dots, and `[?(@.type=="X")]` for conditions.
    pub json_path: &'static str,
    /// 0 is always shown, 1 only with `-o wide`.
    pub priority: u8,
    /// What the column says.
    pub description: &'static str,
}

/// One kind of resource.
#[derive(Debug, Clone, Copy)]
pub struct KindInfo {
    /// CamelCase singular.
    pub kind: &'static str,
    /// Lower-case plural.
    pub plural: &'static str,
    /// Lower-case singular.
    pub singular: &'static str,
    /// Short names for the command line.
    pub short_names: &'static [&'static str],
    /// Whether objects live in a namespace.
    pub namespaced: bool,
    /// What `kubectl get` shows beside NAME and AGE.
    pub columns: &'static [Column],
    /// The JSON schema of the whole resource.
    pub schema: fn() -> schemars::Schema,
    parse: fn(&Value) -> Result<Value, FieldErrors>,
}

impl KindInfo {
    const fn of<S: Kind>(
        singular: &'static str,
        short_names: &'static [&'static str],
        columns: &'static [Column],
    ) -> Self {
        Self {
            kind: S::KIND,
            plural: S::PLURAL,
            singular,
            short_names,
            namespaced: S::NAMESPACED,
            columns,
            schema: || {
                schemars::generate::SchemaSettings::openapi3()
                    .with(|settings| settings.inline_subschemas = true)
                    .into_generator()
                    .into_root_schema_for::<Resource<S>>()
            },
            parse: parse::<S>,
        }
    }

    /// Checks a manifest and fills in its defaults. Unknown fields of `spec` are mistakes; unknown metadata
    /// fields are dropped.
    ///
    /// # Errors
    /// Every mistake that was found, each with field, value and remedy.
    pub fn admit(&self, manifest: &Value) -> Result<Value, FieldErrors> {
        (self.parse)(manifest)
    }
}

fn parse<S: Kind>(manifest: &Value) -> Result<Value, FieldErrors> {
    let resource: Resource<S> = serde_path_to_error::deserialize(manifest)
        .map_err(|error| FieldErrors(vec![FieldError::from_serde(&error, manifest)]))?;
    let mut errors = Vec::new();
    if resource.api_version != API_VERSION {
        errors.push(FieldError::new(
            "apiVersion",
            format!("{:?}", resource.api_version),
            format!("is not served here: write {API_VERSION}"),
        ));
    }
    if resource.kind != S::KIND {
        errors.push(FieldError::new(
            "kind",
            format!("{:?}", resource.kind),
            format!("does not belong here: write {}", S::KIND),
        ));
    }
    resource.metadata.check(&mut errors);
    resource.spec.check(&mut errors);
    if !errors.is_empty() {
        return Err(FieldErrors(errors));
    }
    serde_json::to_value(&resource)
        .map_err(|error| FieldErrors(vec![FieldError::new("the manifest", "", error.to_string())]))
}

const fn column(
    name: &'static str,
    format: &'static str,
    json_path: &'static str,
    priority: u8,
    description: &'static str,
) -> Column {
    Column { name, format, json_path, priority, description }
}

static KINDS: [KindInfo; 7] = [
    KindInfo::of::<SiteSpec>(
        "site",
        &[],
        &[
            column("Tier", "string", ".spec.tier", 0, "place in the landscape"),
            column(
                "Ready",
                "string",
                ".status.conditions[?(@.type==\"Ready\")].status",
                0,
                "heartbeats arrive",
            ),
            column("Parent", "string", ".spec.parent", 0, "the site it is joined to"),
            column("Cpus", "integer", ".status.capacity.cpus", 0, "logical CPUs"),
            column("Engines", "string", ".status.engines", 0, "inference engines that work there"),
            column("Version", "string", ".status.version", 1, "version of the program there"),
            column("Inference", "string", ".status.endpoints.inference", 1, "where models answer"),
            column("Objects", "string", ".status.endpoints.objects", 1, "where buckets are"),
            column(
                "Message",
                "string",
                ".status.conditions[?(@.type==\"Ready\")].message",
                1,
                "why it is or isn't ready",
            ),
        ],
    ),
    KindInfo::of::<PlacementSpec>(
        "placement",
        &["pl"],
        &[
            column(
                "Satisfied",
                "string",
                ".status.conditions[?(@.type==\"Satisfied\")].status",
                0,
                "as many sites as wanted",
            ),
            column("Sites", "integer", ".status.numberOfSelectedSites", 0, "selected sites"),
            column("Wanted", "integer", ".spec.numberOfSites", 0, "wanted sites; empty for all"),
            column(
                "Message",
                "string",
                ".status.conditions[?(@.type==\"Satisfied\")].message",
                0,
                "what keeps it from being satisfied",
            ),
        ],
    ),
    KindInfo::of::<PlacementDecisionSpec>(
        "placementdecision",
        &["pd"],
        &[
            column("Placement", "string", ".spec.placement", 0, "the policy"),
            column("Sites", "string", ".status.decisions[*].site", 0, "selected sites"),
        ],
    ),
    KindInfo::of::<ApplicationSpec>(
        "application",
        &["app"],
        &[
            column("Ready", "string", ".status.ready", 0, "components that run where they should"),
            column("Succeeded", "integer", ".status.invocations.succeeded", 0, "invocations that succeeded"),
            column("Failed", "integer", ".status.invocations.failed", 0, "invocations that failed"),
            column("Pending", "integer", ".status.invocations.pending", 0, "invocations that wait or run"),
            column(
                "Message",
                "string",
                ".status.conditions[?(@.type==\"Ready\")].message",
                0,
                "what keeps it from being ready",
            ),
        ],
    ),
    KindInfo::of::<AssignmentSpec>(
        "assignment",
        &["asg"],
        &[
            column("Application", "string", ".spec.application", 0, "what it belongs to"),
            column("Component", "string", ".spec.component", 0, "which part of it"),
            column(
                "Available",
                "string",
                ".status.conditions[?(@.type==\"Available\")].status",
                0,
                "runs on the site",
            ),
            column(
                "Message",
                "string",
                ".status.conditions[?(@.type==\"Available\")].message",
                0,
                "why it does or doesn't",
            ),
        ],
    ),
    KindInfo::of::<ModelSpec>(
        "model",
        &[],
        &[
            column("Versions", "string", ".spec.versions[*].name", 0, "its versions"),
            column("Default", "string", ".spec.defaultVersion", 0, "answers where none is named"),
            column("Engine", "string", ".spec.engine", 0, "what runs it"),
        ],
    ),
    KindInfo::of::<FunctionSpec>(
        "function",
        &["fn"],
        &[
            column("Runtime", "string", ".spec.runtime", 0, "what runs the handler"),
            column("Handler", "string", ".spec.handler", 0, "the file that is run"),
            column("Parallelism", "integer", ".spec.parallelism", 1, "invocations at once"),
            column("Timeout", "integer", ".spec.timeoutSeconds", 1, "seconds an invocation may take"),
        ],
    ),
];

/// Lists whose entries are told apart by a field, so that several clients can each state some of them: the path of
/// the list, dots between names, and the field.
pub const KEYED_LISTS: [(&str, &str); 4] = [
    ("spec.components", "name"),
    ("spec.versions", "name"),
    ("status.components", "name"),
    ("status.conditions", "type"),
];

/// All kinds.
pub fn kinds() -> &'static [KindInfo] {
    &KINDS
}

/// The kind that a word means: its kind, plural, singular or a short name, in any case.
pub fn kind_named(word: &str) -> Option<&'static KindInfo> {
    let word = word.to_lowercase();
    KINDS.iter().find(|info| {
        info.plural == word || info.singular == word || info.short_names.contains(&word.as_str())
    })
}
