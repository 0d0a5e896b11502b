//! Every YAML that we ship, changed at random for some seconds: nothing panics, everything ends soon,
//! mistakes have places, and what is valid survives a round trip through `print-config`.
//!
//! `FATHOM_FUZZ_SECONDS` says for how long, `FATHOM_FUZZ_SEED` repeats one run.

use std::{
    env, fs,
    panic::{self, AssertUnwindSafe},
    path::Path,
    time::{Duration, Instant},
};

use fastrand::Rng;
use fathom::{
    KINDS,
    config::{Style, load, print, yaml},
};

const REVEAL: Style = Style { reveal: true, nanos: false };

/// What means something to the readers.
const WORDS: [&str; 40] = [
    "${env:FATHOM_NOT_SET}",
    "${FATHOM_NOT_SET:-",
    "${",
    "}",
    "$$",
    "$",
    "::",
    ":",
    ": ",
    "- ",
    "? ",
    "&a ",
    "*a",
    "<<: *a",
    "!!str ",
    "!x ",
    "|\n",
    ">-\n",
    "#",
    "'",
    "\"",
    "[",
    "]",
    "{",
    "}",
    ",",
    "\n",
    "\n  ",
    "---\n",
    "...\n",
    "null",
    "true",
    "0123",
    "1e400",
    "-1",
    "99999999999999999999",
    "1_0",
    "\u{feff}",
    "\u{0}",
    "é\u{2028}",
];

fn corpus() -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut corpus = Vec::new();
    for folder in ["otelcol-config", "examples"] {
        for entry in fs::read_dir(root.join(folder)).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.extension().is_some_and(|e| e == "yaml") {
                corpus.push(fs::read_to_string(path).expect("text"));
            }
        }
    }
    for page in ["docs/configuration.md", "README.md"] {
        let text = fs::read_to_string(root.join(page)).expect("a page");
        let blocks = text.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next());
        corpus.extend(blocks.map(str::to_owned));
    }
    corpus
}

fn changed(corpus: &[String], rng: &mut Rng) -> String {
    let mut text: Vec<char> = corpus[rng.usize(..corpus.len())].chars().collect();
    for _ in 0..rng.usize(1..6) {
        let at = rng.usize(..=text.len());
        let end = (at + rng.usize(..20)).min(text.len());
        match rng.u8(..6) {
            0 => drop(text.drain(at..end)),
            1 => drop(text.splice(at..at, WORDS[rng.usize(..WORDS.len())].chars())),
            2 => drop(text.splice(at..end, WORDS[rng.usize(..WORDS.len())].chars())),
            3 => {
                let copy = text[at..end].to_vec();
                let to = rng.usize(..=text.len());
                text.splice(to..to, copy);
            }
            4 => {
                let other: Vec<char> = corpus[rng.usize(..corpus.len())].chars().collect();
                let from = rng.usize(..other.len());
                let to = (from + rng.usize(..80)).min(other.len());
                text.splice(at..at, other[from..to].to_vec());
            }
            _ => text.insert(at, rng.char(..)),
        }
    }
    text.into_iter().collect()
}

/// What must hold of every text.
fn check(text: &str) {
    let uri = [format!("yaml:{text}")];
    let begun = Instant::now();
    let loaded = load(&uri, &[], &KINDS).map(drop).map_err(|report| report.to_string());
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    let Err(report) = loaded else {
        let printed = print(&uri, &[], &KINDS, REVEAL, true).expect("it is valid").0;
        let again = [format!("yaml:{}", yaml(&printed))];
        let again = print(&again, &[], &KINDS, REVEAL, true).unwrap_or_else(|r| panic!("{r}")).0;
        assert_eq!(printed, again);
        return;
    };
    // Only what is not there has no place.
    let absent = [
        "empty configuration file",
        "no receiver configuration",
        "no exporter configuration",
        "at least one pipeline",
    ];
    let placed =
        report.contains("\n    at yaml::") || absent.iter().any(|text| report.contains(text));
    assert!(placed, "{report}");
}

#[test]
fn changed_configurations_are_read_or_refused() {
    let number = |name: &str| env::var(name).ok().map(|value| value.parse().expect(name));
    let seconds = number("FATHOM_FUZZ_SECONDS").unwrap_or(3);
    let seed = number("FATHOM_FUZZ_SEED").unwrap_or_else(|| fastrand::u64(..));
    let mut rng = Rng::with_seed(seed);
    let corpus = corpus();
    let (begun, mut valid, mut all) = (Instant::now(), 0, 0);
    while begun.elapsed() < Duration::from_secs(seconds) {
        let text = changed(&corpus, &mut rng);
        let checked = panic::catch_unwind(AssertUnwindSafe(|| check(&text)));
        assert!(checked.is_ok(), "FATHOM_FUZZ_SEED={seed}, after {all}: {text}\n{text:?}");
        all += 1;
        valid += usize::from(load(&[format!("yaml:{text}")], &[], &KINDS).is_ok());
    }
    // Changes that never or always break something would test nothing.
    assert!(valid > 0 && valid < all, "{valid} of {all} are valid");
}
