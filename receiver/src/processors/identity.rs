//! What identifies a stream, as 128 bits: resource, scope, metric and attributes, in any order.
//!
//! The hash is keyed at random, so that no sender can make two streams look the same; that two of a
//! billion do so by chance is as likely as one in 10^20.

use std::hash::{BuildHasher as _, Hash, RandomState};

use opentelemetry_proto::tonic::{
    common::v1::KeyValue,
    metrics::v1::{Metric, ScopeMetrics, metric::Data},
    resource::v1::Resource,
};
use prost::Message as _;

/// Makes identities. Those of different makers cannot be compared.
#[derive(Default)]
pub(super) struct Identities {
    seeds: [RandomState; 2],
    buffer: Vec<u8>,
}

impl Identities {
    /// The identity of anything that can be hashed.
    pub(super) fn of(&self, part: impl Hash) -> u128 {
        let [high, low] = &self.seeds;
        (u128::from(high.hash_one(&part)) << 64) | u128::from(low.hash_one(&part))
    }

    /// Of what `owner` has with these attributes.
    pub(super) fn attributes(&mut self, owner: u128, attributes: &[KeyValue]) -> u128 {
        let mut all = 0_u128;
        for attribute in attributes {
            self.buffer.clear();
            // A vector takes whatever is written.
            let _ = attribute.encode(&mut self.buffer);
            // A sum does not depend on the order.
            all = all.wrapping_add(self.of(&self.buffer));
        }
        self.of((owner, attributes.len(), all))
    }

    /// Of a resource.
    pub(super) fn resource(&mut self, resource: Option<&Resource>) -> u128 {
        self.attributes(0, resource.map_or(&[], |r| &r.attributes))
    }

    /// Of a scope of a resource: the same scope with another schema is another one.
    pub(super) fn scope(&mut self, resource: u128, of: &ScopeMetrics) -> u128 {
        let resource = self.of((resource, &of.schema_url));
        let Some(scope) = &of.scope else { return resource };
        let named = self.of((resource, &scope.name, &scope.version));
        self.attributes(named, &scope.attributes)
    }

    /// Of a metric of a scope: another kind of data is another metric.
    pub(super) fn metric(&self, scope: u128, metric: &Metric) -> u128 {
        let kind = match &metric.data {
            None => (0, 0, false),
            Some(Data::Gauge(_)) => (1, 0, false),
            Some(Data::Sum(d)) => (2, d.aggregation_temporality, d.is_monotonic),
            Some(Data::Histogram(d)) => (3, d.aggregation_temporality, false),
            Some(Data::ExponentialHistogram(d)) => (4, d.aggregation_temporality, false),
            Some(Data::Summary(_)) => (5, 0, false),
        };
        self.of((scope, &metric.name, &metric.unit, kind))
    }
}
