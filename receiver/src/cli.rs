//! The commands. Each prints for a person and returns an exit code.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    io::{self, Write as _},
    process::ExitCode,
    sync::Arc,
};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use clap::{ArgAction, Parser, Subcommand};
use fathom::{
    KINDS,
    batch::Signal,
    component::{Factory, Receiver as _},
    config::{self, Plan, Style},
    descriptors,
    ebpf::capability,
    exporters::EXPORTERS,
    extensions::EXTENSIONS,
    privilege::{self, Needs},
    processors::PROCESSORS,
    receivers::{
        RECEIVERS,
        iomonitor::{self, config::ModeChoice},
    },
    telemetry,
};
use serde::Serialize;
use tracing::warn;

use crate::agent;

/// What runs when no configuration is given.
const QUICKSTART: &str = include_str!("../../otelcol-config/quickstart.yaml");

/// Watches the Linux kernel's storage path with eBPF and speaks OpenTelemetry.
///
/// Without arguments it runs the built-in quickstart: the iomonitor receiver, served to Prometheus
/// on http://localhost:9464/metrics.
#[derive(Parser)]
#[command(name = "fathom", version)]
pub(crate) struct Cli {
    /// A configuration: a file's path or a URI (file:, env:, yaml:). Later ones override earlier ones.
    #[arg(long, value_name = "URI", global = true)]
    config: Vec<String>,
    /// Sets one key after all configurations are merged, as in processors.batch.timeout=2s.
    #[arg(long, value_name = "KEY=VALUE", global = true)]
    set: Vec<String>,
    /// Feature gates to turn on, or with a minus sign off, as in +a,-b. This version has none.
    #[arg(
        long,
        value_name = "LIST",
        global = true,
        allow_hyphen_values = true,
        value_delimiter = ','
    )]
    feature_gates: Vec<String>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Checks a configuration and reports everything that is wrong with it.
    Validate,
    /// Prints what the sources mean together, with every default filled in.
    #[command(alias = "print-initial-config")]
    PrintConfig {
        /// Whether secrets are printed: redacted or unredacted.
        #[arg(long, default_value = "redacted")]
        mode: String,
        /// yaml or json.
        #[arg(long, default_value = "yaml")]
        format: String,
        /// Whether the configuration must be right.
        #[arg(long, default_value_t = true, action = ArgAction::Set, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
        validate: bool,
    },
    /// Prints the JSON Schema of configurations, with which editors complete and check them.
    Schema,
    /// Lists the components of this build, as YAML.
    Components,
    /// Lists the feature gates of this version, or shows one of them.
    #[command(name = "featuregate")]
    FeatureGate {
        /// The one to show.
        id: Option<String>,
    },
    /// Shows which probe would attach on this kernel, by which mechanism, and why not: every one that there is, or with
    /// a configuration those of its receivers, as they are configured.
    Probes {
        /// Tries this mechanism alone. Not with a configuration, which says so itself.
        #[arg(long, value_name = "MODE", value_enum)]
        mode: Option<ModeChoice>,
    },
}

impl Cli {
    pub(crate) fn run(self) -> Result<ExitCode> {
        // Whoever relies on a gate must not run without it.
        let mut gates = self.feature_gates.iter().map(|gate| gate.trim_start_matches(['+', '-']));
        if let Some(gate) = gates.find(|gate| !gate.is_empty()) {
            bail!(
                "invalid argument {:?} for \"--feature-gates\" flag: no such feature gate {gate:?}",
                self.feature_gates.join(",")
            );
        }
        if self.command.is_some() {
            agent::let_hangups_come()?;
        }
        match &self.command {
            None => self.agent(),
            Some(Command::Validate) => {
                let plan = self.load(&self.given()?)?;
                warn_of(&plan.warnings);
                Ok(ExitCode::SUCCESS)
            }
            Some(Command::PrintConfig { mode, format, validate }) => {
                self.print(mode, format, *validate)
            }
            Some(Command::Schema) => {
                show(&(serde_json::to_string_pretty(&config::schema::schema(&KINDS))? + "\n"))?;
                Ok(ExitCode::SUCCESS)
            }
            Some(Command::Components) => components(),
            Some(Command::FeatureGate { id: None }) => {
                show("ID  Enabled  Stage  Description\n")?;
                Ok(ExitCode::SUCCESS)
            }
            Some(Command::FeatureGate { id: Some(id) }) => bail!("feature {id:?} not found"),
            Some(Command::Probes { mode }) => self.probes(*mode),
        }
    }

    fn given(&self) -> Result<Vec<String>> {
        if self.config.is_empty() {
            return Err(anyhow!("at least one config flag must be provided"));
        }
        Ok(self.config.clone())
    }

    fn load(&self, uris: &[String]) -> Result<Plan> {
        // The report is many lines with a layout of its own: it stays the only cause.
        config::load(uris, &self.set, &KINDS).map_err(|report| anyhow!("{report}"))
    }

    fn print(&self, mode: &str, format: &str, validate: bool) -> Result<ExitCode> {
        let reveal = match mode.to_lowercase().as_str() {
            "redacted" => false,
            "unredacted" => true,
            _ => bail!("invalid mode {mode:?}: modes are: redacted, unredacted"),
        };
        let json = match format.to_lowercase().as_str() {
            "yaml" => false,
            "json" => true,
            _ => bail!("unrecognized print format: {format}"),
        };
        // As the Collector: what is redacted is for programs, what is not is for reading again.
        let style = Style { reveal, nanos: json && !reveal };
        let (printed, warnings) = config::print(&self.given()?, &self.set, &KINDS, style, validate)
            .map_err(|report| anyhow!("{report}"))?;
        warn_of(&warnings);
        show(&match json {
            true => serde_json::to_string_pretty(&printed)? + "\n",
            false => config::yaml(&printed),
        })?;
        Ok(ExitCode::SUCCESS)
    }

    /// Exit code 1 if a probe would not attach: a script can ask.
    fn probes(&self, mode: Option<ModeChoice>) -> Result<ExitCode> {
        let mut statuses = Vec::new();
        if self.config.is_empty() {
            ensure!(self.set.is_empty(), "--set changes a configuration: name it with --config");
            capability::check()?;
            statuses = iomonitor::everything(mode.unwrap_or(ModeChoice::Auto))?.probe()?;
        } else {
            let how = "the configuration says by which mechanism: --set receivers.iomonitor.mode=… changes it";
            ensure!(mode.is_none(), how);
            let plan = self.load(&self.config)?;
            warn_of(&plan.warnings);
            capability::check()?;
            for mut receiver in plan.receivers {
                let probed = receiver.component.probe();
                statuses.extend(probed.with_context(|| format!("receivers::{}", receiver.id))?);
            }
        }
        let width = statuses.iter().map(|s| s.probe.len()).max().unwrap_or_default();
        let mut table = format!("{:width$}  MODE                REASON\n", "PROBE");
        for status in &statuses {
            let mode = status.mode.map_or("-", |mode| mode.name());
            writeln!(table, "{:width$}  {mode:<18}  {}", status.probe, status.reason())?;
        }
        show(&table)?;
        let all = statuses.iter().all(|s| s.mode.is_some());
        Ok(if all { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    fn agent(&self) -> Result<ExitCode> {
        let uris = match self.config.is_empty() {
            true => vec![format!("yaml:{QUICKSTART}")],
            false => self.config.clone(),
        };
        descriptors::raise();
        let plan = self.load(&uris)?;
        let logs = telemetry::init_logs(&plan.telemetry)?;
        plan.warnings.iter().for_each(|text| warn!("{text}"));
        privilege::confine(&Needs::all(plan.receivers.iter().map(|r| r.component.needs())))?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            // Work comes once per interval; more threads would only hold more stacks.
            .worker_threads(2)
            .enable_all()
            .build()
            .context("cannot start the runtime")?;
        let sets = self.set.clone();
        let load = Arc::new(move || config::load(&uris, &sets, &KINDS));
        let code = runtime.block_on(agent::serve(plan, logs, load));
        // A source of a configuration that does not answer is not worth waiting for.
        runtime.shutdown_background();
        code
    }
}

#[derive(Serialize)]
struct Component {
    name: &'static str,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    aliases: &'static [&'static str],
    description: &'static str,
    module: &'static str,
    stability: BTreeMap<&'static str, &'static str>,
}

/// What stands for the module of Go in the Collector's lists.
const MODULE: &str = concat!(env!("CARGO_PKG_NAME"), " v", env!("CARGO_PKG_VERSION"));

fn list<K>(factories: &[Factory<K>]) -> Vec<Component> {
    let stability = |factory: &Factory<K>, signal: Signal| match factory.signals.contains(&signal) {
        true => factory.stability.name(),
        false => "Undefined",
    };
    let mut list: Vec<_> = factories
        .iter()
        .map(|f| Component {
            name: f.name,
            aliases: f.aliases,
            description: f.description,
            module: MODULE,
            stability: match f.signals {
                // What handles no signal is an extension.
                [] => BTreeMap::from([("extension", f.stability.name())]),
                _ => Signal::ALL.map(|signal| (signal.name(), stability(f, signal))).into(),
            },
        })
        .collect();
    list.sort_by_key(|c| c.name);
    list
}

/// Says on standard error what looks like an oversight in a configuration.
fn warn_of(warnings: &[String]) {
    warnings.iter().for_each(|text| eprintln!("Warning: {}", config::printable(text)));
}

/// Writes to standard output. A reader that has seen enough, such as `head`, is no error.
fn show(text: &str) -> Result<()> {
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(error).context("cannot write to standard output")
        }
        _ => Ok(()),
    }
}

fn components() -> Result<ExitCode> {
    #[derive(Serialize)]
    struct Components {
        buildinfo: BTreeMap<&'static str, &'static str>,
        receivers: Vec<Component>,
        processors: Vec<Component>,
        exporters: Vec<Component>,
        connectors: [Component; 0],
        extensions: Vec<Component>,
        providers: [BTreeMap<&'static str, &'static str>; 5],
    }
    let all = Components {
        buildinfo: BTreeMap::from([
            ("command", env!("CARGO_PKG_NAME")),
            ("description", env!("CARGO_PKG_DESCRIPTION")),
            ("version", env!("CARGO_PKG_VERSION")),
        ]),
        receivers: list(RECEIVERS),
        processors: list(PROCESSORS),
        exporters: list(EXPORTERS),
        connectors: [],
        extensions: list(EXTENSIONS),
        providers: ["env", "file", "http", "https", "yaml"]
            .map(|scheme| BTreeMap::from([("scheme", scheme), ("module", MODULE)])),
    };
    show(&serde_yaml::to_string(&all)?)?;
    Ok(ExitCode::SUCCESS)
}
