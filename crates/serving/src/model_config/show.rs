//! A loaded model's configuration in Triton's words.

use inference::{Datatype, Model, TensorSpec};
use serde_json::{Value, json};
use types::{Ensemble, EnsembleStep, QueuePolicy, Serving};
use wire::inference::model_ensembling::Step;
use wire::inference::model_instance_group::Kind;
use wire::inference::model_version_policy::PolicyChoice;
use wire::inference::{
    AllVersions, DataType, LatestVersions, ModelConfig, ModelDynamicBatching, ModelEnsembling, ModelInput,
    ModelInstanceGroup, ModelOutput, ModelParameter, ModelQueuePolicy, ModelResponseCache,
    ModelVersionPolicy, SpecificVersions,
};

use super::{DynamicBatching, VersionPolicy};
use crate::state::ServerState;
use crate::views::platform;

/// The configuration as protobuf: what holds, and what the model's own one says beside that.
pub(crate) fn show(state: &ServerState, model: &Model) -> ModelConfig {
    let given = state.control.config(model.name()).unwrap_or_default();
    let serving = model.serving();
    let signature = model.signature();
    let batch = serving.batching.as_ref().filter(|_| signature.inputs.iter().all(has_open_batch));
    let dims = |spec: &TensorSpec| {
        let shape = spec.shape.as_deref().unwrap_or(&[-1]);
        let inner = shape.get(1..).filter(|_| batch.is_some());
        inner.unwrap_or(shape).to_vec()
    };
    let file = model.path().file_name().map(|name| name.to_string_lossy().into_owned());
    let threads =
        (serving.threads > 0).then(|| ("intra_op_thread_count".to_owned(), serving.threads.to_string()));
    let given_parameters =
        given.parameters.iter().map(|(name, parameter)| (name.clone(), parameter.string_value.clone()));
    let parameters =
        given_parameters.chain(threads).map(|(name, string_value)| (name, ModelParameter { string_value }));
    let ensemble = model.ensemble();
    let backend = if ensemble.is_some() { "" } else { model.engine() };
    // An ensemble runs nothing itself.
    let file = file.filter(|_| ensemble.is_none());
    let group = || ModelInstanceGroup {
        name: format!("{}_0", model.name()),
        count: i32::try_from(model.instances()).unwrap_or(i32::MAX),
        kind: Kind::Cpu.into(),
    };
    ModelConfig {
        name: model.name().to_owned(),
        platform: platform(model),
        backend: backend.to_owned(),
        ensemble_scheduling: ensemble.map(ensembling),
        version_policy: Some(ModelVersionPolicy {
            policy_choice: Some(policy(given.version_policy.as_ref())),
        }),
        max_batch_size: batch.map_or(0, |batch| i32::try_from(batch.max_size).unwrap_or(i32::MAX)),
        input: (signature.inputs.iter())
            .map(|spec| ModelInput {
                name: spec.name.clone(),
                data_type: data_type(spec.datatype).into(),
                dims: dims(spec),
            })
            .collect(),
        output: (signature.outputs.iter())
            .map(|spec| ModelOutput {
                name: spec.name.clone(),
                data_type: data_type(spec.datatype).into(),
                dims: dims(spec),
                label_filename: (given.output.iter().find(|output| output.name == spec.name))
                    .map(|output| output.label_filename.clone())
                    .unwrap_or_default(),
            })
            .collect(),
        instance_group: ensemble.is_none().then(group).into_iter().collect(),
        default_model_filename: file.unwrap_or_default(),
        dynamic_batching: queue(serving, given.dynamic_batching.as_ref()),
        parameters: parameters.collect(),
        response_cache: serving.cache.as_ref().map(|_| ModelResponseCache { enable: true }),
    }
}

fn policy(given: Option<&VersionPolicy>) -> PolicyChoice {
    match given {
        None => PolicyChoice::Latest(LatestVersions { num_versions: 1 }),
        Some(VersionPolicy::Latest { num_versions }) => {
            let num_versions = u32::try_from((*num_versions).max(1)).unwrap_or(u32::MAX);
            PolicyChoice::Latest(LatestVersions { num_versions })
        }
        Some(VersionPolicy::All {}) => PolicyChoice::All(AllVersions {}),
        Some(VersionPolicy::Specific { versions }) => PolicyChoice::Specific(SpecificVersions {
            versions: versions.iter().filter_map(|version| i64::try_from(*version).ok()).collect(),
        }),
    }
}

fn ensembling(ensemble: &Ensemble) -> ModelEnsembling {
    let step = |step: &EnsembleStep| Step {
        model_name: step.model.clone(),
        model_version: step.version.as_ref().and_then(|version| version.parse().ok()).unwrap_or(-1),
        input_map: step.inputs.clone(),
        output_map: step.outputs.clone(),
    };
    ModelEnsembling { step: ensemble.steps.iter().map(step).collect() }
}

fn has_open_batch(spec: &TensorSpec) -> bool {
    spec.shape.as_ref().and_then(|shape| shape.first()) == Some(&-1)
}

fn queue(serving: &Serving, given: Option<&DynamicBatching>) -> Option<ModelDynamicBatching> {
    let queue = &serving.queue;
    let batching = serving.batching.as_ref();
    if batching.is_none() && given.is_none() && *queue == QueuePolicy::default() {
        return None;
    }
    let given = given.cloned().unwrap_or_default();
    let preferred = given.preferred_batch_size.iter().filter_map(|size| i32::try_from(*size).ok());
    Some(ModelDynamicBatching {
        max_queue_delay_microseconds: batching.map_or(0, |batch| batch.max_delay_microseconds.into()),
        preferred_batch_size: preferred.collect(),
        preserve_ordering: given.preserve_ordering,
        priority_levels: given.priority_levels,
        default_priority_level: queue.default_priority.into(),
        default_queue_policy: (*queue != QueuePolicy::default()).then(|| ModelQueuePolicy {
            default_timeout_microseconds: u64::from(queue.timeout_milliseconds) * 1000,
            // Whatever a configuration says: a request's own timeout always holds.
            allow_timeout_override: true,
            max_queue_size: queue.max_requests,
        }),
    })
}

fn data_type(datatype: Datatype) -> DataType {
    match datatype {
        Datatype::Bool => DataType::TypeBool,
        Datatype::Uint8 => DataType::TypeUint8,
        Datatype::Uint16 => DataType::TypeUint16,
        Datatype::Uint32 => DataType::TypeUint32,
        Datatype::Uint64 => DataType::TypeUint64,
        Datatype::Int8 => DataType::TypeInt8,
        Datatype::Int16 => DataType::TypeInt16,
        Datatype::Int32 => DataType::TypeInt32,
        Datatype::Int64 => DataType::TypeInt64,
        Datatype::Fp16 => DataType::TypeFp16,
        Datatype::Fp32 => DataType::TypeFp32,
        Datatype::Fp64 => DataType::TypeFp64,
        Datatype::Bf16 => DataType::TypeBf16,
        Datatype::Bytes => DataType::TypeString,
    }
}

/// The configuration as JSON, in Triton's shape: what can't be set here has its neutral value.
pub(crate) fn show_json(state: &ServerState, model: &Model) -> Value {
    let config = show(state, model);
    let policy = match config.version_policy.and_then(|policy| policy.policy_choice) {
        Some(PolicyChoice::All(_)) => json!({"all": {}}),
        Some(PolicyChoice::Specific(these)) => json!({"specific": {"versions": these.versions}}),
        Some(PolicyChoice::Latest(latest)) => json!({"latest": {"num_versions": latest.num_versions}}),
        None => json!({}),
    };
    let type_name = |number: i32| DataType::try_from(number).unwrap_or_default().as_str_name();
    let inputs = config.input.iter().map(|input| {
        json!({
            "name": input.name, "data_type": type_name(input.data_type), "format": "FORMAT_NONE",
            "dims": input.dims, "is_shape_tensor": false, "allow_ragged_batch": false, "optional": false,
            "is_non_linear_format_io": false,
        })
    });
    let outputs = config.output.iter().map(|output| {
        json!({
            "name": output.name, "data_type": type_name(output.data_type), "dims": output.dims,
            "reshape": {"shape": []}, "label_filename": output.label_filename, "is_shape_tensor": false, "is_non_linear_format_io": false,
        })
    });
    let groups = config.instance_group.iter().map(|group| {
        json!({
            "name": group.name, "kind": "KIND_CPU", "count": group.count, "gpus": [], "secondary_devices": [],
            "profile": [], "passive": false, "host_policy": "",
        })
    });
    let parameters: serde_json::Map<String, Value> = (config.parameters.iter())
        .map(|(name, parameter)| (name.clone(), json!({"string_value": parameter.string_value})))
        .collect();
    let mut document = json!({
        "name": config.name, "platform": config.platform, "backend": config.backend, "runtime": "",
        "version_policy": policy, "max_batch_size": config.max_batch_size,
        "input": inputs.collect::<Vec<_>>(), "output": outputs.collect::<Vec<_>>(),
        "batch_input": [], "batch_output": [],
        "optimization": {
            "priority": "PRIORITY_DEFAULT", "input_pinned_memory": {"enable": false},
            "output_pinned_memory": {"enable": false}, "gather_kernel_buffer_threshold": 0, "eager_batching": false,
        },
        "instance_group": groups.collect::<Vec<_>>(),
        "default_model_filename": config.default_model_filename,
        "cc_model_filenames": {}, "metric_tags": {}, "parameters": parameters, "model_warmup": [],
    });
    let batching = config.dynamic_batching.as_ref().map(|batching| {
        let mut shown = json!({
            "preferred_batch_size": batching.preferred_batch_size,
            "max_queue_delay_microseconds": batching.max_queue_delay_microseconds,
            "preserve_ordering": batching.preserve_ordering,
            "priority_levels": batching.priority_levels,
            "default_priority_level": batching.default_priority_level,
            "priority_queue_policy": {},
        });
        if let (Some(members), Some(policy)) = (shown.as_object_mut(), batching.default_queue_policy) {
            let policy = json!({
                "timeout_action": "REJECT",
                "default_timeout_microseconds": policy.default_timeout_microseconds,
                "allow_timeout_override": policy.allow_timeout_override,
                "max_queue_size": policy.max_queue_size,
            });
            members.insert("default_queue_policy".into(), policy);
        }
        shown
    });
    let ensemble = config.ensemble_scheduling.map(|ensemble| {
        let step = |step: Step| {
            json!({
                "model_name": step.model_name, "model_version": step.model_version,
                "input_map": step.input_map, "output_map": step.output_map, "model_namespace": "",
            })
        };
        json!({"step": ensemble.step.into_iter().map(step).collect::<Vec<_>>()})
    });
    let optional = [
        ("ensemble_scheduling", ensemble),
        ("dynamic_batching", batching),
        ("response_cache", config.response_cache.map(|_| json!({"enable": true}))),
    ];
    if let Some(members) = document.as_object_mut() {
        for (name, value) in optional {
            members.extend(value.map(|value| (name.to_owned(), value)));
        }
    }
    document
}
