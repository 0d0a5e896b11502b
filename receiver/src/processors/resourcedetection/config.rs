//! The keys of `resourcedetection`.

use std::time::Duration;

use schemars::{JsonSchema, Schema};
use serde::{Deserialize, Serialize, de::IgnoredAny};
use serde_json::{Value, json};

use super::{DetectorConfig, EnvConfig, SystemConfig};
use crate::config::Signed;

/// The configuration, which may have sections of detectors that the Collector has and that are not here, and keys of the
/// client by which those ask. Whoever has such a file can start with it.
macro_rules! config {
    (elsewhere: $($elsewhere:ident)*; client: $($client:ident)*;) => {
        /// The configuration of `resourcedetection`.
        #[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
        #[serde(default, deny_unknown_fields)]
        #[schemars(transform = unused)]
        pub struct Config {
            /// The detectors, in order: of an attribute that several find, the first one's value counts.
            pub detectors: Vec<String>,
            /// Whether what is found replaces attributes that a resource has already.
            pub r#override: bool,
            /// The time that the detectors may take, all together.
            #[serde(with = "crate::config::duration")]
            pub timeout: Duration,
            /// Time between two detections; `0s` is one at the start alone.
            pub refresh_interval: Signed,
            /// Of detector `env`.
            pub env: EnvConfig,
            /// Of detector `system`.
            pub system: SystemConfig,
            /// Of detector `container`.
            pub container: DetectorConfig,
            /// Of detector `k8s_downward`.
            pub k8s_downward: DetectorConfig,
            $(
                #[serde(skip_serializing)]
                #[schemars(skip)]
                $elsewhere: IgnoredAny,
            )*
            $(
                #[serde(skip_serializing)]
                #[schemars(skip)]
                $client: IgnoredAny,
            )*
        }

        impl Default for Config {
            fn default() -> Self {
                Self {
                    detectors: vec!["env".to_owned()],
                    r#override: true,
                    timeout: Duration::from_secs(5),
                    refresh_interval: Duration::ZERO.into(),
                    env: EnvConfig::default(),
                    system: SystemConfig::default(),
                    container: DetectorConfig::default(),
                    k8s_downward: DetectorConfig::default(),
                    $($elsewhere: IgnoredAny,)*
                    $($client: IgnoredAny,)*
                }
            }
        }

        /// Detectors that the Collector has and that are not here.
        pub const ELSEWHERE: &[&str] = &[$(stringify!($elsewhere)),*];
        const CLIENT: &[&str] = &[$(stringify!($client)),*];
    };
}

config! {
    elsewhere:
        akamai aks alibaba_ecs azure consul digitalocean docker dynatrace ec2 ecs eks
        elastic_beanstalk elasticbeanstalk gcp heroku hetzner ibmcloud_classic ibmcloud_vpc
        k8s_api k8snode kubeadm lambda nova openshift oraclecloud scaleway tencent_cvm upcloud
        vultr;
    client:
        auth compression compression_params cookies disable_keep_alives endpoint
        force_attempt_http2 headers http2_ping_timeout http2_read_idle_timeout idle_conn_timeout
        max_conns_per_host max_idle_conns max_idle_conns_per_host middlewares proxy_url
        read_buffer_size tls write_buffer_size;
}

/// Lets a schema have those keys, without a page saying something of each.
fn unused(schema: &mut Schema) {
    let names = [ELSEWHERE, CLIENT].concat().join("|");
    let object = schema.ensure_object();
    let patterns = object.entry("patternProperties").or_insert_with(|| json!({}));
    patterns[format!("^({names})$")] = Value::Bool(true);
}
