//! The resources that people state and controllers make true, in the shape of the Kubernetes API:
//! `apiVersion`, `kind`, `metadata`, `spec`, `status.conditions`.
//!
//! Everything here is plain data: no I/O, no async, no clock. A manifest becomes a typed resource in one
//! place ([`KindInfo::admit`]), which fills in defaults and answers with one [`FieldError`] per mistake, each
//! naming the field, the value and the remedy. Doc comments of fields are the descriptions that
//! `kubectl explain` shows.
#![warn(missing_docs)]

pub mod core;
pub mod names;

mod amount;
mod application;
mod assignment;
mod condition;
mod crd;
mod digest;
mod field_error;
mod function;
mod kind;
mod maintenance;
mod meta;
mod model;
mod offload;
mod outlook;
mod placement;
mod portion;
mod quantity;
mod registry;
mod revision;
mod rollout;
mod score;
mod selector;
mod site;
mod small_map;
mod source;

pub use amount::Amount;
pub use application::{
    Application, ApplicationSpec, ApplicationStatus, BucketPath, Component, ComponentStatus, ModelReference,
};
pub use assignment::{
    AssignedFunction, AssignedModel, AssignedOutput, Assignment, AssignmentSpec, AssignmentStatus,
    InvocationCounts,
};
pub use condition::{Condition, ConditionStatus, condition, set_condition};
pub use crd::{custom_resource_definition, definition_status, metadata_schema, structural_schema};
pub use digest::{Digest, DigestWriter, InvalidDigest};
pub use field_error::{FieldError, FieldErrors};
pub use function::{Function, FunctionSpec, FunctionStatus, Runtime};
pub use kind::{Kind, NoStatus, Plain, Resource};
pub use maintenance::{MaintenanceWindow, Weekday};
pub use meta::{ManagedFields, ObjectMeta, OwnerReference, Time};
pub use model::{
    Activation, Align, Artifact, Batching, BoxFormat, BoxesOutput, Channels, ClassesOutput, CsvInput,
    DeclaredTensor, Decoder, Drift, ElementType, Engine, Ensemble, EnsembleStep, Header, ImageInput,
    Interpolation, Isolation, Layout, Model, ModelSignature, ModelSpec, ModelStatus, ModelVersion, Payloads,
    Postprocessing, PredictionCache, Preprocessing, QueuePolicy, Resize, Rollback, Serving, Shadow, Share,
    Traffic,
};
pub use offload::{Offload, OffloadTo};
pub use outlook::{
    PLACEMENT_EXPLANATION, PLACEMENT_SIMULATION, PLACEMENT_SIMULATIONS, PlacementChange,
    PlacementExplanation, ScoreTerm, SiteChange, SiteMove, SiteVerdict,
};
pub use placement::{
    AddOnScore, AntiAffinity, ComponentReference, Constraints, DecisionGroup, DecisionGroups, GroupSelector,
    GroupSize, HttpJson, Metric, MetricProvider, Migration, Near, Placement, PlacementDecision,
    PlacementDecisionSpec, PlacementDecisionStatus, PlacementSpec, PlacementStatus, Predicate, Prioritizer,
    PrioritizerMode, PrioritizerPolicy, PrometheusQuery, ScoreCoordinate, ScoreType, SiteDecision,
    SiteMetric, SiteUsage, Spread, WhenUnsatisfiable,
};
pub use portion::{Portion, Span};
pub use quantity::Quantity;
pub use registry::{Cell, Column, KEYED_LISTS, KindInfo, Scale, VERBS, kind_at, kind_named, kind_of, kinds};
pub use revision::{ApplicationRevision, ApplicationRevisionSpec, ApplicationRevisionStatus};
pub use rollout::{
    Rejected, Rollout, RolloutCounts, RolloutGroup, RolloutKind, RolloutStatus, SiteProgress, SiteState,
};
pub use score::{PlacementScore, PlacementScoreSpec, Score};
pub use selector::{InvalidSelector, LabelSelector, Operator, Requirement, Selector};
pub use site::{
    Capacity, Claim, Complaint, Endpoints, Link, MeasuredLocation, OutputsStatus, Site, SiteSpec, SiteStatus,
    Taint, TaintEffect, Toleration, TolerationOperator,
};
pub use small_map::SmallMap;
pub use source::{
    AppliedObject, DeletionPolicy, DriftPolicy, FailedObject, GitReference, GitSource, HelmOptions,
    SecretReference, Source, SourceDrift, SourceSpec, SourceStatus, Verification, VerificationMode, Webhook,
};

/// The API group of Avocet's own kinds.
pub const GROUP: &str = "avocet.dev";
/// The one version of the group so far.
pub const VERSION: &str = "v1alpha1";
/// `GROUP/VERSION`, as manifests write it.
pub const API_VERSION: &str = "avocet.dev/v1alpha1";
