//! Where spans go and which, as OpenTelemetry's environment variables say it.

use std::time::Duration;

use axum::http::{HeaderName, HeaderValue};
use reqwest::Url;

use super::sampler::{Ratio, Sampler};

/// How requests are traced.
#[derive(Clone, Debug, PartialEq)]
pub struct TraceSettings {
    /// Where spans are posted: with the path.
    pub endpoint: Url,
    /// How they are posted there.
    pub protocol: Protocol,
    /// What is sent with them, such as a key.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Longest time to send them once.
    pub timeout: Duration,
    /// Who we are: `service.name` and other attributes.
    pub resource: Vec<(String, String)>,
    /// Which requests.
    pub sampler: Sampler,
    /// Most spans that wait to be sent; more are dropped.
    pub queue: usize,
    /// Most spans that are sent at once.
    pub batch: usize,
    /// Longest wait of a span for company.
    pub delay: Duration,
}

/// How collectors are spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Protobuf in a request of HTTP: `http/protobuf`, which collectors take at port 4318.
    Http,
    /// `grpc`, which they take at port 4317.
    Grpc,
}

/// A setting that can't be followed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name} can't be `{value}`: {problem}")]
pub struct InvalidSetting {
    /// The variable or option.
    pub name: String,
    /// What it says.
    pub value: String,
    /// Why not, and what it can say.
    pub problem: String,
}

impl InvalidSetting {
    pub(super) fn new(name: &str, value: &str, problem: impl Into<String>) -> InvalidSetting {
        InvalidSetting {
            name: name.into(),
            value: value.chars().take(128).collect(),
            problem: problem.into(),
        }
    }
}

/// Largest queue in spans; each has some hundred bytes.
const LARGEST_QUEUE: usize = 1 << 20;

impl TraceSettings {
    /// Settings from OpenTelemetry's variables; an endpoint that is given replaces those in variables. `None` where
    /// no endpoint is named, or tracing is turned off (`OTEL_SDK_DISABLED`, `OTEL_TRACES_EXPORTER=none`).
    ///
    /// # Errors
    /// When a variable can't be followed.
    pub fn read(
        endpoint: Option<&str>,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Option<TraceSettings>, InvalidSetting> {
        let get = |name: &str| variable(name).filter(|value| !value.trim().is_empty());
        let either = |name: &str| {
            get(&format!("OTEL_EXPORTER_OTLP_TRACES_{name}"))
                .or_else(|| get(&format!("OTEL_EXPORTER_OTLP_{name}")))
        };
        let off = get("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"));
        let told = match either("PROTOCOL").as_deref() {
            None => None,
            Some("http/protobuf") => Some(Protocol::Http),
            Some("grpc") => Some(Protocol::Grpc),
            Some(other) => {
                let problem = "use `http/protobuf` or `grpc`";
                return Err(InvalidSetting::new("OTEL_EXPORTER_OTLP_PROTOCOL", other, problem));
            }
        };
        let found = find_endpoint(endpoint, told, &get)?.filter(|_| !off);
        let Some((endpoint, protocol)) = found else { return Ok(None) };
        match get("OTEL_TRACES_EXPORTER").as_deref() {
            None | Some("otlp") => {}
            Some("none") => return Ok(None),
            Some(other) => {
                return Err(InvalidSetting::new("OTEL_TRACES_EXPORTER", other, "use `otlp` or `none`"));
            }
        }
        let number = |name: &str, default: usize, most: usize| match get(name) {
            None => Ok(default),
            Some(value) => {
                let number = value.trim().parse().ok().filter(|number| (1..=most).contains(number));
                number.ok_or_else(|| {
                    InvalidSetting::new(name, &value, format!("use a number from 1 to {most}"))
                })
            }
        };
        let milliseconds = |name: &str, default: usize| {
            number(name, default, 3_600_000).map(|number| Duration::from_millis(number as u64))
        };
        let timeout = match get("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT") {
            Some(_) => milliseconds("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", 10_000),
            None => milliseconds("OTEL_EXPORTER_OTLP_TIMEOUT", 10_000),
        };
        let queue = number("OTEL_BSP_MAX_QUEUE_SIZE", 2048, LARGEST_QUEUE)?;
        Ok(Some(TraceSettings {
            endpoint,
            protocol,
            headers: read_headers(either("HEADERS").as_deref())?,
            timeout: timeout?,
            resource: read_resource(&get)?,
            sampler: read_sampler(get("OTEL_TRACES_SAMPLER"), get("OTEL_TRACES_SAMPLER_ARG"))?,
            queue,
            batch: number("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", 512.min(queue), queue)?,
            delay: milliseconds("OTEL_BSP_SCHEDULE_DELAY", 5000)?,
        }))
    }
}

/// What gRPC calls the service of collectors.
const EXPORT: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

/// An endpoint for all signals gets the path of traces; one for traces alone is taken as it is. One of gRPC has the path of
/// its service; it is one where that is told, or where the scheme is `grpc` (in the clear) or `grpcs`.
fn find_endpoint(
    given: Option<&str>,
    told: Option<Protocol>,
    get: &impl Fn(&str) -> Option<String>,
) -> Result<Option<(Url, Protocol)>, InvalidSetting> {
    const TRACES: &str = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";
    const ALL: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
    let (name, text) = match (given, get(TRACES), get(ALL)) {
        (Some(given), ..) => ("--otlp-endpoint", given.to_owned()),
        (None, Some(traces), _) => (TRACES, traces),
        (None, None, Some(all)) => (ALL, all),
        (None, None, None) => return Ok(None),
    };
    let problem = "write http://HOST:4318 or https://HOST:4318, or grpc://HOST:4317 or grpcs://HOST:4317";
    let (clear, sealed) = (text.strip_prefix("grpc://"), text.strip_prefix("grpcs://"));
    let is_grpc = clear.or(sealed).is_some();
    let protocol = if is_grpc { Protocol::Grpc } else { told.unwrap_or(Protocol::Http) };
    let plain = match (clear, sealed) {
        (Some(rest), _) => format!("http://{rest}"),
        (None, Some(rest)) => format!("https://{rest}"),
        (None, None) => text.clone(),
    };
    let url =
        Url::parse(&plain).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
    let mut url = url.ok_or_else(|| InvalidSetting::new(name, &text, problem))?;
    if protocol == Protocol::Grpc {
        url.set_path(EXPORT);
    } else if name != TRACES {
        let path = format!("{}/v1/traces", url.path().trim_end_matches('/'));
        url.set_path(&path);
    }
    Ok(Some((url, protocol)))
}

fn read_headers(text: Option<&str>) -> Result<Vec<(HeaderName, HeaderValue)>, InvalidSetting> {
    let pairs = pairs("OTEL_EXPORTER_OTLP_HEADERS", text.unwrap_or_default())?.into_iter();
    let header = |(name, value): (String, String)| {
        let header = name.parse().ok().zip(value.parse().ok());
        // Its value may be a secret.
        header.ok_or_else(|| InvalidSetting::new("OTEL_EXPORTER_OTLP_HEADERS", &name, "this is no header"))
    };
    pairs.map(header).collect()
}

fn read_resource(get: &impl Fn(&str) -> Option<String>) -> Result<Vec<(String, String)>, InvalidSetting> {
    let name = "OTEL_RESOURCE_ATTRIBUTES";
    let mut all = pairs(name, &get(name).unwrap_or_default())?;
    let service = get("OTEL_SERVICE_NAME");
    if service.is_some() {
        all.retain(|(name, _)| name != "service.name");
    }
    if !all.iter().any(|(name, _)| name == "service.name") {
        all.push(("service.name".into(), service.unwrap_or_else(|| "avocet".into())));
    }
    if !all.iter().any(|(name, _)| name == "service.version") {
        all.push(("service.version".into(), env!("CARGO_PKG_VERSION").into()));
    }
    Ok(all)
}

/// `NAME=VALUE,NAME=VALUE`; values may be percent-encoded.
fn pairs(name: &str, text: &str) -> Result<Vec<(String, String)>, InvalidSetting> {
    let given = text.split(',').map(str::trim).filter(|pair| !pair.is_empty());
    let pair = |pair: &str| {
        let (key, value) = pair.split_once('=')?;
        let value = percent_encoding::percent_decode_str(value.trim()).decode_utf8().ok()?;
        Some((key.trim().to_owned(), value.into_owned()))
    };
    // Values may be secrets: they are not repeated.
    given
        .map(pair)
        .collect::<Option<_>>()
        .ok_or_else(|| InvalidSetting::new(name, "…", "write NAME=VALUE,NAME=VALUE"))
}

fn read_sampler(name: Option<String>, share: Option<String>) -> Result<Sampler, InvalidSetting> {
    let name = name.unwrap_or_else(|| "parentbased_always_on".into());
    let (follows_caller, root) = match name.strip_prefix("parentbased_") {
        Some(root) => (true, root),
        None => (false, name.as_str()),
    };
    let ratio = match root {
        "always_on" => Ratio::ALL,
        "always_off" => Ratio::NONE,
        "traceidratio" => {
            let share = share.unwrap_or_else(|| "1".into());
            let ratio = share.trim().parse().ok().and_then(Ratio::new);
            let problem = "use a number from 0 to 1";
            ratio.ok_or_else(|| InvalidSetting::new("OTEL_TRACES_SAMPLER_ARG", &share, problem))?
        }
        _ => {
            let problem = "use always_on, always_off or traceidratio, or one of them behind `parentbased_`";
            return Err(InvalidSetting::new("OTEL_TRACES_SAMPLER", &name, problem));
        }
    };
    Ok(Sampler { ratio, follows_caller })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(
        endpoint: Option<&str>,
        variables: &[(&str, &str)],
    ) -> Result<Option<TraceSettings>, InvalidSetting> {
        TraceSettings::read(endpoint, |name| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn without_an_endpoint_nothing_is_traced() {
        assert_eq!(read(None, &[("OTEL_TRACES_SAMPLER", "always_on")]), Ok(None));
        assert_eq!(read(None, &[("OTEL_EXPORTER_OTLP_ENDPOINT", "")]), Ok(None));
        assert_eq!(read(Some("http://c:4318"), &[("OTEL_SDK_DISABLED", "TRUE")]), Ok(None));
        assert_eq!(read(Some("http://c:4318"), &[("OTEL_TRACES_EXPORTER", "none")]), Ok(None));
    }

    #[test]
    fn the_path_of_traces_is_added_to_an_endpoint_of_all_signals() {
        let endpoint = |given, variables: &[_]| read(given, variables).unwrap().unwrap().endpoint.to_string();
        let all = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://a:4318/base/");
        let traces = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://b:4318/here");
        assert_eq!(endpoint(None, &[all]), "http://a:4318/base/v1/traces");
        assert_eq!(endpoint(None, &[all, traces]), "http://b:4318/here");
        assert_eq!(endpoint(Some("https://c"), &[all, traces]), "https://c/v1/traces");
    }

    #[test]
    fn grpc_is_spoken_where_the_protocol_or_the_scheme_says_so() {
        let found = |given, variables: &[_]| {
            let settings = read(given, variables).unwrap().unwrap();
            (settings.endpoint.to_string(), settings.protocol)
        };
        let told = ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc");
        let service = |begin: &str| (format!("{begin}{EXPORT}"), Protocol::Grpc);
        assert_eq!(found(Some("http://c:4317"), &[told]), service("http://c:4317"));
        assert_eq!(found(Some("grpc://c:4317"), &[]), service("http://c:4317"));
        let traces = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "grpcs://c:4317/ignored");
        assert_eq!(found(None, &[traces]), service("https://c:4317"));
        let all = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318");
        let of_traces = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/protobuf");
        assert_eq!(found(None, &[told, of_traces, all]), ("http://c:4318/v1/traces".into(), Protocol::Http));
    }

    #[test]
    fn standard_variables_say_who_we_are_and_which_requests() {
        let settings = read(
            Some("http://c:4318"),
            &[
                ("OTEL_SERVICE_NAME", "shop"),
                ("OTEL_RESOURCE_ATTRIBUTES", "service.name=other, deployment.environment=a%20b"),
                ("OTEL_EXPORTER_OTLP_HEADERS", "api-key=s3cret,x=1"),
                ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"),
                ("OTEL_TRACES_SAMPLER_ARG", "0.25"),
                ("OTEL_BSP_SCHEDULE_DELAY", "20"),
                ("OTEL_BSP_MAX_QUEUE_SIZE", "100"),
            ],
        );
        let settings = settings.unwrap().unwrap();
        let named = |name: &str| {
            settings.resource.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
        };
        assert_eq!((named("service.name"), named("deployment.environment")), (Some("shop"), Some("a b")));
        assert_eq!(settings.headers[0].1, "s3cret");
        assert_eq!(settings.sampler, Sampler { ratio: Ratio::new(0.25).unwrap(), follows_caller: true });
        assert_eq!((settings.queue, settings.batch, settings.delay), (100, 100, Duration::from_millis(20)));
    }

    #[test]
    fn what_can_not_be_followed_is_refused_by_name() {
        for (name, value) in [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
            ("OTEL_TRACES_EXPORTER", "zipkin"),
            ("OTEL_TRACES_SAMPLER", "sometimes"),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "0"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "soon"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "novalue"),
        ] {
            let other = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://c:4318");
            let variables =
                if name.ends_with("ENDPOINT") { vec![(name, value)] } else { vec![(name, value), other] };
            assert_eq!(read(None, &variables).unwrap_err().name, name);
        }
        let ratio = [("OTEL_TRACES_SAMPLER", "traceidratio"), ("OTEL_TRACES_SAMPLER_ARG", "2")];
        assert_eq!(read(Some("http://c"), &ratio).unwrap_err().name, "OTEL_TRACES_SAMPLER_ARG");
    }
}
