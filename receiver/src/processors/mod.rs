//! The processors. A new one is a file, its `mod` line and its line in the list.

use crate::component::{AnyProcessor, Factory, processor};

mod actions;
mod attributes;
mod batch;
mod cardinality;
mod cumulativetodelta;
mod deltatocumulative;
mod enrichment;
mod exponential;
mod filter;
mod identity;
pub(crate) mod matching;
mod memory_limiter;
mod metricstransform;
mod resource;
mod resourcedetection;

/// Every processor.
pub const PROCESSORS: &[Factory<Box<dyn AnyProcessor>>] = &[
    processor::<attributes::Attributes>(),
    processor::<batch::BatchProcessor>(),
    processor::<cardinality::Cardinality>(),
    processor::<cumulativetodelta::CumulativeToDelta>(),
    processor::<deltatocumulative::DeltaToCumulative>(),
    processor::<enrichment::Enrichment>(),
    processor::<filter::Filter>(),
    processor::<memory_limiter::MemoryLimiter>(),
    processor::<metricstransform::MetricsTransform>(),
    processor::<resource::ResourceProcessor>(),
    processor::<resourcedetection::ResourceDetection>(),
];
