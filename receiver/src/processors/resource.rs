//! `resource`: changes the attributes of resources.

use opentelemetry_proto::tonic::resource::v1::Resource;
use serde::{Deserialize, Serialize};

use super::actions::{self, Actions};
use crate::{
    batch::{Batch, Signal},
    channel::{Input, Output},
    component::{Component, Context, Processor},
    config::Mistakes,
};

/// The configuration of `resource`.
#[derive(Clone, Debug, Default, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// What to do, in this order.
    pub attributes: Vec<actions::Config>,
}

/// The processor.
pub struct ResourceProcessor(Actions);

impl Component for ResourceProcessor {
    const NAME: &'static str = "resource";
    const DESCRIPTION: &'static str = "Changes the attributes of resources.";
    const SIGNALS: &'static [Signal] = &Signal::ALL;
    const EXAMPLE: &'static str =
        "attributes:\n  - {key: deployment.environment.name, value: production, action: upsert}";
    type Config = Config;

    fn new(config: Config) -> Result<Self, Mistakes> {
        Actions::new("attributes", config.attributes).map(Self)
    }
}

impl Processor for ResourceProcessor {
    async fn run(self, _: Context, mut input: Input, out: Output) -> anyhow::Result<()> {
        while let Some(mut batch) = input.recv().await {
            each(&mut batch, |resource| {
                self.0.apply(&mut resource.get_or_insert_default().attributes);
            });
            out.send(batch).await?;
        }
        Ok(())
    }
}

/// Calls `change` with every resource.
pub(super) fn each(batch: &mut Batch, change: impl FnMut(&mut Option<Resource>)) {
    match batch {
        Batch::Metrics(r) => {
            r.resource_metrics.iter_mut().map(|r| &mut r.resource).for_each(change)
        }
        Batch::Logs(r) => r.resource_logs.iter_mut().map(|r| &mut r.resource).for_each(change),
        Batch::Traces(r) => r.resource_spans.iter_mut().map(|r| &mut r.resource).for_each(change),
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, time::SystemTime};

    use super::*;
    use crate::{
        channel::channel,
        exporters::queue::testing::context,
        metric::{Points, pairs},
    };

    #[tokio::test]
    async fn the_resource_is_changed() {
        let config = serde_json::json!({"attributes": [
            {"key": "a", "action": "upsert", "value": "new"},
            {"key": "b", "action": "delete"},
        ]});
        let config = serde_json::from_value(config).expect("of the right types");
        let processor = ResourceProcessor::new(config).expect("valid");
        let (cx, _) = context("resource");
        let ((to, input), (out, mut from)) = (channel(), channel());
        let (now, none) = (SystemTime::now(), BTreeSet::new());
        let batch = Points::new(now, now, &none).into_batch(&[("a", "old"), ("b", "1")], "test");
        to.send(batch).await.expect("it has room");
        drop(to);
        Processor::run(processor, cx, input, out).await.expect("it does not fail");
        let Some(Batch::Metrics(request)) = from.recv().await else { panic!("nothing came out") };
        let resource = request.resource_metrics[0].resource.as_ref().expect("a resource");
        assert_eq!(resource.attributes, pairs(&[("a", "new")]));
    }
}
