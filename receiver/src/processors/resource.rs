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
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
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

fn each(batch: &mut Batch, change: impl FnMut(&mut Option<Resource>)) {
    match batch {
        Batch::Metrics(r) => {
            r.resource_metrics.iter_mut().map(|r| &mut r.resource).for_each(change)
        }
        Batch::Logs(r) => r.resource_logs.iter_mut().map(|r| &mut r.resource).for_each(change),
        Batch::Traces(r) => r.resource_spans.iter_mut().map(|r| &mut r.resource).for_each(change),
    }
}
