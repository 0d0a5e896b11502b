//! A translated batch as the requests that carry it: none is larger than configured, but for one that holds a
//! single group, which cannot be divided.

use std::{collections::HashMap, sync::Arc};

use bytes::Bytes;
use prost::Message;

use super::{
    Version,
    proto::{self, Exemplar, MetricMetadata, TimeSeries, WriteRequest, v2},
    translate::{Family, Group, Series, Translated},
};

/// One request, ready to be sent.
#[derive(Debug)]
pub struct Request {
    /// The message, compressed.
    pub body: Bytes,
    pub holds: Holds,
}

/// What is in a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Holds {
    /// Points: all of them became samples, or all native histograms.
    pub points: usize,
    pub samples: usize,
    pub histograms: usize,
    pub exemplars: usize,
}

impl Holds {
    fn add(&mut self, group: &Group) {
        let of = |length: fn(&Series) -> usize| group.series.iter().map(length).sum::<usize>();
        self.points += group.points;
        self.samples += of(|series| series.samples.len());
        self.histograms += of(|series| series.histograms.len());
        self.exemplars += of(|series| series.exemplars.len());
    }
}

/// The requests for a batch. What belongs to one series stays together, so that they can be sent in
/// any order.
pub fn requests(
    version: Version,
    translated: Translated,
    max_bytes: usize,
    metadata: bool,
) -> Result<Vec<Request>, snap::Error> {
    let Translated { families, groups, .. } = translated;
    // Many receivers refuse a request for one native histogram: nothing else shall be in it.
    let native = |group: &Group| group.series.iter().any(|series| !series.histograms.is_empty());
    let (native, floats): (Vec<_>, Vec<_>) = groups.into_iter().partition(native);
    let mut requests = Vec::new();
    for groups in [floats, native] {
        requests.extend(match version {
            Version::V1 => fill(&mut V1::default(), &families, groups, max_bytes)?,
            Version::V2 => fill(&mut V2::new(), &families, groups, max_bytes)?,
        });
    }
    // Version 2 has it beside each series.
    if metadata && version == Version::V1 {
        described(families, max_bytes, &mut requests)?;
    }
    Ok(requests)
}

/// A message that is being made.
trait Draft {
    /// Adds a group if there is room for it, or if nothing else is there.
    fn add(&mut self, family: &Family, group: &Group, max_bytes: usize) -> bool;
    /// The message so far. What follows goes into the next one.
    fn take(&mut self) -> Vec<u8>;
}

fn fill(
    draft: &mut impl Draft,
    families: &[Family],
    groups: Vec<Group>,
    max_bytes: usize,
) -> Result<Vec<Request>, snap::Error> {
    let mut requests = Vec::new();
    let mut holds = Holds::default();
    for group in groups {
        let family = &families[group.family];
        if !draft.add(family, &group, max_bytes) {
            requests.push(pack(&draft.take(), std::mem::take(&mut holds))?);
            draft.add(family, &group, max_bytes);
        }
        holds.add(&group);
    }
    if holds != Holds::default() {
        requests.push(pack(&draft.take(), holds)?);
    }
    Ok(requests)
}

fn pack(message: &[u8], holds: Holds) -> Result<Request, snap::Error> {
    let body = snap::raw::Encoder::new().compress_vec(message)?.into();
    Ok(Request { body, holds })
}

fn described(
    families: Vec<Family>,
    max_bytes: usize,
    requests: &mut Vec<Request>,
) -> Result<(), snap::Error> {
    let mut message = WriteRequest::default();
    let mut size = 0;
    for family in families {
        let metadata = MetricMetadata {
            r#type: family.kind.into(),
            metric_family_name: family.name,
            help: family.help,
            unit: family.unit,
        };
        let more = framed(metadata.encoded_len());
        if size > 0 && size + more >= max_bytes {
            let full = std::mem::take(&mut message);
            requests.push(pack(&full.encode_to_vec(), Holds::default())?);
            size = 0;
        }
        size += more;
        message.metadata.push(metadata);
    }
    if size > 0 {
        requests.push(pack(&message.encode_to_vec(), Holds::default())?);
    }
    Ok(())
}

/// The bytes that a nested message or a text of `length` takes.
fn framed(length: usize) -> usize {
    1 + prost::length_delimiter_len(length) + length
}

/// `prometheus.WriteRequest`.
#[derive(Default)]
struct V1 {
    message: WriteRequest,
    size: usize,
}

impl Draft for V1 {
    fn add(&mut self, _: &Family, group: &Group, max_bytes: usize) -> bool {
        let series: Vec<_> = group
            .series
            .iter()
            .map(|series| TimeSeries {
                labels: series.labels.to_vec(),
                samples: series.samples.clone(),
                exemplars: series.exemplars.clone(),
                histograms: series.histograms.clone(),
            })
            .collect();
        let more: usize = series.iter().map(|series| framed(series.encoded_len())).sum();
        if self.size > 0 && self.size + more >= max_bytes {
            return false;
        }
        self.size += more;
        self.message.timeseries.extend(series);
        true
    }

    fn take(&mut self) -> Vec<u8> {
        self.size = 0;
        std::mem::take(&mut self.message).encode_to_vec()
    }
}

/// `io.prometheus.write.v2.Request`.
struct V2 {
    timeseries: Vec<v2::TimeSeries>,
    /// Each text once, with its place.
    symbols: HashMap<Arc<str>, u32>,
    order: Vec<Arc<str>>,
    size: usize,
}

impl V2 {
    fn new() -> Self {
        let mut new =
            Self { timeseries: Vec::new(), symbols: HashMap::new(), order: Vec::new(), size: 0 };
        // The first one is empty, so that a place of 0 is nothing.
        new.symbol("");
        new
    }

    fn symbol(&mut self, text: &str) -> u32 {
        if let Some(place) = self.symbols.get(text) {
            return *place;
        }
        let text: Arc<str> = text.into();
        // There are fewer than there are bytes in a message.
        let place = self.order.len() as u32;
        self.size += framed(text.len());
        self.order.push(text.clone());
        self.symbols.insert(text, place);
        place
    }

    fn symbols(&mut self, labels: &[proto::Label]) -> Vec<u32> {
        labels
            .iter()
            .flat_map(|label| [self.symbol(&label.name), self.symbol(&label.value)])
            .collect()
    }

    fn exemplar(&mut self, exemplar: &Exemplar) -> v2::Exemplar {
        v2::Exemplar {
            labels_refs: self.symbols(&exemplar.labels),
            value: exemplar.value,
            timestamp: exemplar.timestamp,
        }
    }

    fn series(&mut self, family: &Family, series: &Series) -> v2::TimeSeries {
        let metadata = v2::Metadata {
            r#type: family.kind.into(),
            help_ref: self.symbol(&family.help),
            unit_ref: self.symbol(&family.unit_in_words()),
        };
        let starts = series.samples.iter().map(|sample| sample.start_timestamp);
        let mut starts = starts.chain(series.histograms.iter().map(|h| h.start_timestamp));
        let first = starts.next().unwrap_or_default();
        v2::TimeSeries {
            labels_refs: self.symbols(&series.labels),
            samples: series.samples.clone(),
            histograms: series.histograms.clone(),
            exemplars: series.exemplars.iter().map(|e| self.exemplar(e)).collect(),
            metadata: Some(metadata),
            // It would be said of all samples.
            created_timestamp: if starts.all(|start| start == first) { first } else { 0 },
        }
    }
}

impl Draft for V2 {
    fn add(&mut self, family: &Family, group: &Group, max_bytes: usize) -> bool {
        let (symbols, size) = (self.order.len(), self.size);
        let series: Vec<_> =
            group.series.iter().map(|series| self.series(family, series)).collect();
        self.size += series.iter().map(|series| framed(series.encoded_len())).sum::<usize>();
        if !self.timeseries.is_empty() && self.size >= max_bytes {
            for text in self.order.drain(symbols..) {
                self.symbols.remove(&text);
            }
            self.size = size;
            return false;
        }
        self.timeseries.extend(series);
        true
    }

    fn take(&mut self) -> Vec<u8> {
        let Self { timeseries, order, .. } = std::mem::replace(self, Self::new());
        let symbols = order.iter().map(|text| text.to_string()).collect();
        v2::Request { symbols, timeseries }.encode_to_vec()
    }
}
