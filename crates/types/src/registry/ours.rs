//! Avocet's own kinds.

use serde_json::Value;

use super::{AGE, Cell, Column, KindInfo, NAME, Scale, column};
use crate::{
    ApplicationRevisionSpec, ApplicationSpec, AssignmentSpec, FunctionSpec, Kind, ModelSpec,
    PlacementDecisionSpec, PlacementScoreSpec, PlacementSpec, SiteSpec, SourceSpec,
};

/// In the order that Kubernetes has for custom resources.
const VERBS: [&str; 8] = ["delete", "deletecollection", "get", "list", "patch", "create", "update", "watch"];

const fn ours<S: Kind>(
    singular: &'static str,
    short_names: &'static [&'static str],
    columns: &'static [Column],
) -> KindInfo {
    KindInfo {
        categories: &["avocet"],
        verbs: &VERBS,
        ..KindInfo::resource::<S>(singular, short_names, columns)
    }
}

pub(super) static OURS: [KindInfo; 10] = [
    ours::<SiteSpec>(
        "site",
        &[],
        &[
            NAME,
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
            Column {
                cell: Cell::Computed(via),
                ..column("Via", "string", "", 1, "the child of this hub by which it is reached")
            },
            column("Version", "string", ".status.version", 1, "version of the program there"),
            column("Inference", "string", ".status.endpoints.inference", 1, "where models answer"),
            column("Objects", "string", ".status.endpoints.objects", 1, "where buckets are"),
            column("Late", "integer", ".status.outputs.late", 1, "outputs that wait for over ten minutes"),
            column("Refused", "integer", ".status.outputs.refused", 1, "outputs that the hub refused"),
            column(
                "Message",
                "string",
                ".status.conditions[?(@.type==\"Ready\")].message",
                1,
                "why it is or isn't ready",
            ),
            AGE,
        ],
    )
    .selectable_by(&["spec.tier", "spec.parent"]),
    ours::<PlacementSpec>(
        "placement",
        &["pl"],
        &[
            NAME,
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
            AGE,
        ],
    )
    .scalable(Scale {
        spec_replicas: ".spec.numberOfSites",
        status_replicas: ".status.numberOfSelectedSites",
    }),
    ours::<PlacementDecisionSpec>(
        "placementdecision",
        &["pd"],
        &[
            NAME,
            column("Placement", "string", ".spec.placement", 0, "the policy"),
            column("First Site", "string", ".status.decisions[*].site", 0, "the first of the selected sites"),
            AGE,
        ],
    )
    .selectable_by(&["spec.placement"]),
    ours::<PlacementScoreSpec>(
        "placementscore",
        &[],
        &[
            NAME,
            column("Valid Until", "string", ".spec.validUntil", 0, "when it stops to count; empty for never"),
            AGE,
        ],
    )
    .without_status(),
    ours::<ApplicationSpec>(
        "application",
        &["app"],
        &[
            NAME,
            column("Ready", "string", ".status.ready", 0, "components that run where they should"),
            column("Revision", "integer", ".status.rollout.number", 1, "what its sites are to run"),
            column("Rollout", "string", ".status.rollout.message", 1, "what its rollout waits for"),
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
            AGE,
        ],
    ),
    ours::<ApplicationRevisionSpec>(
        "applicationrevision",
        &["apprev"],
        &[
            NAME,
            column("Application", "string", ".spec.application", 0, "what it is a revision of"),
            column("Number", "integer", ".spec.number", 0, "counts the revisions"),
            column("Succeeded", "date", ".status.succeeded", 0, "when all sites ran it last"),
            column("Rejected", "string", ".status.rejected", 0, "why it was gone back from"),
            AGE,
        ],
    )
    .selectable_by(&["spec.application"]),
    ours::<AssignmentSpec>(
        "assignment",
        &["asg"],
        &[
            NAME,
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
            AGE,
        ],
    )
    .selectable_by(&["spec.application", "spec.component"]),
    ours::<ModelSpec>(
        "model",
        &[],
        &[
            NAME,
            column("Default", "string", ".spec.defaultVersion", 0, "answers where none is named"),
            column("Engine", "string", ".spec.engine", 0, "what runs it"),
            AGE,
        ],
    )
    .selectable_by(&["spec.engine"]),
    ours::<FunctionSpec>(
        "function",
        &["fn"],
        &[
            NAME,
            column("Runtime", "string", ".spec.runtime", 0, "what runs the handler"),
            column("Handler", "string", ".spec.handler", 0, "the file that is run"),
            column("Parallelism", "integer", ".spec.parallelism", 1, "invocations at once"),
            column("Timeout", "integer", ".spec.timeoutSeconds", 1, "seconds an invocation may take"),
            AGE,
        ],
    )
    .selectable_by(&["spec.runtime"]),
    ours::<SourceSpec>(
        "source",
        &["src"],
        &[
            NAME,
            column("Url", "string", ".spec.git.url", 1, "the repository"),
            column(
                "Ready",
                "string",
                ".status.conditions[?(@.type==\"Ready\")].status",
                0,
                "what the repository says is applied",
            ),
            column("Revision", "string", ".status.lastAppliedRevision", 0, "the commit that is applied"),
            column("Objects", "integer", ".status.objects", 1, "objects that are kept applied"),
            column("Suspended", "boolean", ".spec.suspend", 1, "left alone until resumed"),
            column(
                "Status",
                "string",
                ".status.conditions[?(@.type==\"Ready\")].message",
                0,
                "what keeps it from being ready",
            ),
            AGE,
        ],
    ),
];

/// By which child of the hub a site is reached; nothing for those that joined the hub itself.
fn via(site: &Value) -> Value {
    let labels = site.pointer("/metadata/labels");
    labels.and_then(|labels| labels.get(crate::names::label::VIA)).cloned().unwrap_or_default()
}
