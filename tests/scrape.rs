//! A scrape of the Prometheus endpoint, in the text format.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
};

use anyhow::{Context, Result, bail, ensure};

use crate::deadline::DEADLINE;

/// All samples of one scrape.
#[derive(Clone, Debug, Default)]
pub struct Scrape {
    samples: Vec<Sample>,
}

/// One line.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// The metric's name, with `_bucket`, `_sum` or `_count` if it has one.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its value.
    pub value: f64,
    /// When it was collected, in ms since the epoch, if the endpoint says.
    pub time: Option<i64>,
}

/// A label that a sample must have, with its value.
pub type Label<'a> = (&'a str, &'a str);

/// The body of a GET, which must be answered with status 200.
pub fn get(address: SocketAddr, path: &str) -> Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(*DEADLINE))?;
    // HTTP/1.0: the answer ends where the connection does.
    let request = format!("GET {path} HTTP/1.0\r\nHost: {address}\r\nAccept: text/plain\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("no end of the header")?;
    let status = head.lines().next().unwrap_or_default();
    ensure!(status.split(' ').nth(1) == Some("200"), "GET {path}: {status}");
    Ok(body.to_owned())
}

impl Scrape {
    /// Reads `text`; any line that is not in the format is an error.
    pub fn parse(text: &str) -> Result<Self> {
        let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        let samples = lines
            .map(|line| sample(line).with_context(|| format!("line {line:?}")))
            .collect::<Result<_>>()?;
        Ok(Self { samples })
    }

    /// Every sample of `name` that has `labels`, and perhaps others.
    pub fn all<'s, 'a>(
        &'s self,
        name: &'a str,
        labels: &'a [Label<'a>],
    ) -> impl Iterator<Item = &'s Sample> + use<'s, 'a> {
        self.samples.iter().filter(move |sample| {
            let has = |(key, value): &Label<'_>| {
                sample.labels.get(*key).is_some_and(|found| found == value)
            };
            sample.name == name && labels.iter().all(has)
        })
    }

    /// The one sample of `name` that has `labels`.
    pub fn one(&self, name: &str, labels: &[Label<'_>]) -> Result<&Sample> {
        let found: Vec<_> = self.all(name, labels).collect();
        match found[..] {
            [sample] => Ok(sample),
            [] => {
                let family: Vec<_> = self.all(name, &[]).collect();
                bail!("no sample {name} with {labels:?}, only {family:?}")
            }
            _ => bail!("several samples {name} with {labels:?}: {found:?}"),
        }
    }

    /// The count of the one sample of `name` that has `labels`.
    pub fn count(&self, name: &str, labels: &[Label<'_>]) -> Result<u64> {
        whole(self.one(name, labels)?)
    }

    /// The sum of all samples of `name` that have `labels`; 0 if there is none.
    pub fn sum(&self, name: &str, labels: &[Label<'_>]) -> Result<u64> {
        self.all(name, labels).map(whole).sum()
    }

    /// Fails unless the kernel says that it did not run the programs of `probe` for so many events at least. Programs
    /// that can be preempted lose the events of other tasks meanwhile.
    pub fn admits(&self, probe: &str, lost: u64) -> Result<()> {
        let missed = self.sum("ebpf_probe_missed_total", &[("probe", probe)])?;
        ensure!(lost <= missed, "{probe}: {lost} events lost, {missed} said to be missed");
        Ok(())
    }

    /// When the newest of the samples was collected.
    pub fn time(&self) -> Option<i64> {
        self.samples.iter().filter_map(|sample| sample.time).max()
    }

    /// Those that were collected last.
    pub fn newest(mut self) -> Self {
        let time = self.time();
        self.samples.retain(|sample| sample.time == time);
        self
    }

    /// Every sample.
    pub fn samples(&self) -> &[Sample] {
        &self.samples
    }
}

fn whole(sample: &Sample) -> Result<u64> {
    let count = sample.value as u64;
    ensure!(count as f64 == sample.value, "{sample:?} is no count");
    Ok(count)
}

fn sample(line: &str) -> Result<Sample> {
    let end = line.find(['{', ' ']).context("no value")?;
    let (name, mut rest) = line.split_at(end);
    let mut labels = BTreeMap::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        while !rest.starts_with('}') {
            let (key, after) = rest.split_once("=\"").context("no label value")?;
            let (value, after) = quoted(after).context("a label value without end")?;
            ensure!(labels.insert(key.to_owned(), value).is_none(), "label {key} twice");
            rest = after.strip_prefix(',').unwrap_or(after);
        }
        rest = &rest[1..];
    }
    let mut fields = rest.split_ascii_whitespace();
    let value = fields.next().context("no value")?.parse()?;
    let time = fields.next().map(str::parse).transpose()?;
    ensure!(fields.next().is_none(), "something after the time");
    Ok(Sample { name: name.to_owned(), labels, value, time })
}

/// What stands before the closing quote, unescaped, and what stands after it.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => match chars.next()?.1 {
                'n' => value.push('\n'),
                escaped => value.push(escaped),
            },
            _ => value.push(c),
        }
    }
    None
}
