//! Measures this machine: anchors, the plan, limits, the table.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use base::timing::unix_seconds;
use command::{Common, Ending, stop_flag, wrote};
use extract::latency::{
    Campaign, Conditions, DeviceFacts, Engine, Folded, LatencyTable, MeasureConfig, MeasureContext,
    MeasurePlan, MeasureTask, RowsLog, Session, Subject, Subjects, run_plan,
};
use serde_json::json;
use space::SearchSpace;
use tracing::info;

use super::limits::search_limits;
use super::{Arguments, flags, plan, say_stale, summarize};
use crate::cli::engine::show;

/// The inputs of one run.
pub struct Here<'a> {
    pub arguments: &'a Arguments,
    pub output: &'a Common,
    pub space: &'a SearchSpace,
    pub plan: &'a MeasurePlan,
    pub stop: &'a AtomicBool,
}

pub fn measure(
    arguments: &Arguments,
    space: &SearchSpace,
    present: Option<LatencyTable>,
    out: &Path,
) -> anyhow::Result<Ending> {
    let output = &arguments.common;
    let stop = stop_flag()?;
    let backend = arguments.on.backend(flags::number_type(arguments))?;
    let engine =
        &*arguments.engine.open(&backend, rayon::current_num_threads(), usize::from(arguments.batch))?;
    let device = DeviceFacts::this_machine(arguments.device_name.as_deref())
        .computing_on(backend.gpu(), arguments.device_name.is_none());
    if let Some(table) = &present {
        table.check_same_setting(&device, &engine.describe())?;
    }
    let plan = plan(arguments, space, &engine.describe(), present.as_ref())?;
    let mut log = open_log(out, &plan, &device, engine)?;
    let mut stopwatch = engine.stopwatch();
    let mut bench = MeasureContext { engine, stopwatch: stopwatch.as_mut(), conditions: Conditions::now };
    let here = Here { arguments, output, space, plan: &plan, stop: &stop };
    if let Some(table) = &present {
        here.check_state(table, &mut bench, &mut log)?;
    }
    let bar = output.plain_bar(plan.layers.len() as u64);
    let campaign = run_plan(&plan, &mut bench, &mut log, &mut |progress| show(&bar, &progress), &stop)?;
    bar.finish_and_clear();
    let mut table = match present {
        Some(table) => table,
        None => LatencyTable::empty(
            &out.display().to_string(),
            device,
            engine.describe(),
            &log.rows().setting.protocol,
        )?,
    };
    if table.rows().is_empty() {
        table.half_width = plan.half_width;
    }
    here.finish(&mut table, &mut bench, log, &campaign, out)
}

/// Opens the file next to the table that takes the samples; a run that was killed may have left some in it.
fn open_log(
    out: &Path,
    plan: &MeasurePlan,
    device: &DeviceFacts,
    engine: &dyn Engine,
) -> anyhow::Result<RowsLog> {
    let mut name = out.as_os_str().to_os_string();
    name.push(".rows");
    let session = Session { unix_seconds: unix_seconds(), conditions: Conditions::now() };
    let path = PathBuf::from(name);
    let (log, aside) = RowsLog::open_or_set_aside(&path, plan.setting(device, engine), session)?;
    if let Some(aside) = aside {
        let path = path.display();
        let aside = aside.display();
        info!(
            "{path} held samples taken with other flags: they are retained in {aside}, and `--rows {aside}` adds them to a table"
        );
    }
    let lines = log.rows().visits().count();
    if lines > 0 {
        info!("going on with {lines} lines of samples that were taken already");
    }
    Ok(log)
}

/// Share of the budget for telling whether the machine is in a comparable state.
const STATE_SHARE: f64 = 0.25;
/// Anchors that must count.
const LEAST_ANCHORS: usize = 3;

impl Here<'_> {
    /// Measures some layers of the table again. Where they are not what they were, nothing is added to it.
    fn check_state(
        &self,
        table: &LatencyTable,
        bench: &mut MeasureContext<'_>,
        log: &mut RowsLog,
    ) -> anyhow::Result<()> {
        let keys = table.anchors(10);
        if keys.len() < LEAST_ANCHORS {
            return Ok(()); // an old table, or one of another program: nothing can be compared
        }
        let mut anchors = Subjects::new();
        for key in keys {
            anchors.insert(Subject::Layer(key.clone()), vec![key.parse()?]);
        }
        let mut config = self.plan.config();
        config.budget = config.budget.mul_f64(STATE_SHARE);
        let bar = self.output.plain_bar(anchors.len() as u64);
        let config = MeasureConfig { spread: 0.0, ..config };
        let task = MeasureTask { subjects: &anchors, space: None, config: &config };
        bench.measure(task, log, &mut |progress| show(&bar, &progress), self.stop)?;
        bar.finish_and_clear();
        let folded = Folded::new(log.rows(), self.plan.kept_us, self.plan.half_width);
        let accepted = anchors
            .keys()
            .filter(|subject: &&Subject| folded.row(subject).is_some_and(|row| row.accepted))
            .count();
        if accepted < LEAST_ANCHORS {
            let pace = folded.sessions.last().and_then(|session| session.pace);
            let readings = pace.map_or_else(String::new, |pace| {
                format!(
                    " ({:.0} % of the sentinel's readings within 5 % of {:.1} us)",
                    100.0 * pace.share,
                    pace.fast_us
                )
            });
            anyhow::bail!(
                "{}: the machine is not in a comparable state now: of {} layers of the table that were measured again {accepted} were met \
                 undisturbed{readings}; what was sampled is saved, and the same command goes on with it when the machine is quieter",
                self.arguments.out.as_deref().unwrap_or(Path::new("")).display(),
                anchors.len(),
            );
        }
        table.clone().add_rows(log.rows(), None, None)?;
        Ok(())
    }

    /// Folds what was sampled into the table, also where it is not all.
    fn finish(
        &self,
        table: &mut LatencyTable,
        bench: &mut MeasureContext<'_>,
        mut log: RowsLog,
        campaign: &Campaign,
        out: &Path,
    ) -> anyhow::Result<Ending> {
        if log.rows().visits().next().is_none() && campaign.interrupted {
            return self.interrupted(campaign);
        }
        if log.rows().visits().next().is_none() {
            anyhow::bail!(
                "--budget: {} layers are not measured yet; give it more seconds",
                campaign.unmeasured_layers
            );
        }
        // without all layers no sub-network can be predicted
        let networks = if campaign.unmeasured_layers > 0 {
            Default::default()
        } else {
            self.plan.networks.keys().cloned().collect()
        };
        let added = table.add_rows(log.rows(), Some(self.space), Some(&networks))?;
        if table.rows().is_empty() {
            return self.interrupted(campaign); // a sub-network or two, of which a table says nothing
        }
        say_stale(&added.stale);
        let mut spent = campaign.spent;
        let mut interrupted = campaign.interrupted;
        if !interrupted && campaign.unmeasured_layers == 0 && self.arguments.limits > 0 {
            let searched = search_limits(self, table, spent, bench, &mut log)?;
            spent += searched.spent;
            interrupted = searched.interrupted;
        }
        self.write(table, spent, out)?;
        if interrupted {
            return self.interrupted(campaign);
        }
        if campaign.unmeasured_layers > 0 {
            anyhow::bail!(
                "--budget: {} layers are not measured yet; what was is in the table and its rows, and the same command goes on",
                campaign.unmeasured_layers
            );
        }
        if campaign.unfinished > 0 {
            info!(
                "--budget: {} layers and sub-networks are not known well enough yet; the same command goes on",
                campaign.unfinished
            );
        } else {
            log.remove()?;
        }
        summarize(self.output, table, self.space, Some(spent.as_secs_f64()))?;
        Ok(Ending::Done)
    }

    fn write(&self, table: &mut LatencyTable, spent: Duration, out: &Path) -> anyhow::Result<()> {
        table.run.insert("unix_seconds".to_string(), json!(unix_seconds()));
        table.run.insert("seconds".to_string(), json!(spent.as_secs_f64().round()));
        table.write(out)?;
        wrote(out);
        Ok(())
    }

    fn interrupted(&self, campaign: &Campaign) -> anyhow::Result<Ending> {
        info!("interrupted; what was sampled is saved, and the same command goes on with it");
        let layers = self.plan.layers.len() - campaign.unmeasured_layers;
        let document =
            json!({ "finished": false, "entries": layers, "seconds": campaign.spent.as_secs_f64() });
        self.output.print(&document, || format!("{layers} layers sampled so far"))?;
        Ok(Ending::Interrupted)
    }
}
